"""Losses with a second head: emo, plackett_luce_distill, and linear_pairwise's kinds."""

import math

import pytest
import torch
from lossk import linear_pairwise, losses, reference
from problem import FLOAT32_AND_HALVES, assert_matches, each_dtype, each_reduction, random_problem, wide
from tolerance import assert_identical, relative_error, rounding_floor

CASES = {
    "emo": {},
    "emo of other costs": dict(cost_dim=13),
    "emo demd": dict(mode="demd"),
    "emo emo2": dict(mode="emo2", cost_dim=13),
    "plackett_luce_distill": {},
    "plackett_luce_distill 3": dict(k=3, temperature=1.5),
    "plackett_luce_distill all": dict(k=128),
    "sigmoid": dict(bias=-1.5),
    "mw": {},
    "hinge": dict(margin=0.7),
    "psl": {},
    "psl relu": dict(activation="relu", temperature=0.5, scale=0.1),  # else no other class is within 1 of the target
}
FROZEN = ("cost_embedding", "teacher_input", "teacher_linear_weight")
each_case = pytest.mark.parametrize("case", CASES)


def name_of(case):
    return case.split()[0]


def pair(case):
    name = name_of(case)
    if name == "emo":
        return losses.emo, _emo
    if name == "plackett_luce_distill":
        return losses.plackett_luce_distill, _plackett_luce
    ours = lambda *a, **own: linear_pairwise(*a, kind=name, **own)  # noqa: E731
    return ours, reference.losses.of(getattr(reference.losses, f"pairwise_{name}"))


def _emo(input, linear_weight, target, **own):
    loss = reference.losses.of(reference.losses.emo)
    return loss(input, linear_weight, target, **{"cost_embedding": linear_weight} | own)


def _plackett_luce(input, linear_weight, target, *, teacher_input, teacher_linear_weight, **own):
    u = reference.logits(teacher_input, teacher_linear_weight).detach()
    own["teacher_logits"] = u[target != own.get("ignore_index", -100)]
    return reference.losses.of(reference.losses.plackett_luce_distill)(input, linear_weight, target, **own)


def problem_of(case, *size, dtype=torch.float32, device="cpu", **options):
    rows, vocab, _ = size
    own = dict(CASES[case])
    p = random_problem(*size, dtype, device=device, **options)
    if "cost_dim" in own:
        own["cost_embedding"] = torch.randn(vocab, own.pop("cost_dim"), device=device).to(dtype)
    if name_of(case) == "plackett_luce_distill":
        own["teacher_input"] = torch.randn(rows, 21, device=device).to(dtype)
        own["teacher_linear_weight"] = torch.randn(vocab, 21, device=device).to(dtype) / 2
    if "scale" in own and "scale" in p.tensors:
        own["scale"] = own["scale"] * p.tensors["scale"]
    if name_of(case) == "sigmoid":
        own["bias"] = torch.tensor(own["bias"], device=device, dtype=wide(dtype))
    return p.with_(**own)


def check(case, problem, **how):
    """Costs are rounded to the dtype, as the second head of any product; a sum over pairs cancels in d bias."""
    dtype = problem.tensors["input"].dtype
    floor = max(rounding_floor(dtype), 2.0**-17, 0.0 if dtype == torch.float32 else torch.finfo(dtype).eps)
    return assert_matches(problem, *pair(case), frozen=FROZEN, floor=floor, **how)


@each_case
@pytest.mark.float64
def test_float64(case, device):
    p = problem_of(
        case, 37, 131, 300, dtype=torch.float64, device=device, bias=True, token_weight=True, token_scale=True
    )
    ours, right = (p.gradients(f, frozen=FROZEN) for f in pair(case))
    for name, x in ours.items():
        assert relative_error(x, right[name]) < 1e-9, name


@each_dtype(only=FLOAT32_AND_HALVES)
@each_case
@each_reduction
def test_each(reduction, case, dtype, device):
    check(case, problem_of(case, 60, 203, 300, dtype=dtype, device=device, reduction=reduction, bias=True))


# emo's mass on the target has no gradient, which differences do not know: test_float64 has it.
@pytest.mark.parametrize("case", [case for case in CASES if name_of(case) != "emo"])
@pytest.mark.float64
def test_gradcheck(case, device):
    p = problem_of(case, 4, 9, 3, dtype=torch.float64, device=device, bias=True, reduction="none")
    names = [k for k in p.tensors if k != "target" and k not in FROZEN]

    def f(*leaves):
        return pair(case)[0](**p.with_(**dict(zip(names, leaves, strict=True))).arguments())

    assert torch.autograd.gradcheck(f, [p.tensors[name].requires_grad_() for name in names])


@each_case
def test_ignored_tokens_cost_nothing_whatever_they_hold(case, device):
    p = problem_of(case, 40, 33, 16, device=device, reduction="none")
    ignored = p.tensors["target"] == -100
    dirty = {k: p.tensors[k].clone() for k in ("input", "teacher_input") if k in p.tensors}
    for x in dirty.values():
        x[ignored] = math.nan
    ours = pair(case)[0]
    with_nan, without = p.with_(**dirty).gradients(ours, frozen=FROZEN), p.gradients(ours, frozen=FROZEN)
    for name, value in without.items():
        assert_identical(with_nan[name], value, name)
    assert ignored.any() and not without["loss"][ignored].any()


@each_case
@pytest.mark.parametrize("spread", [30.0, 1e3])
def test_sure_and_hopeless_rows_are_finite(spread, case, device):
    p = problem_of(case, 50, 33, 16, device=device, reduction="none")
    p = p.with_(input=p.tensors["input"] * spread)
    for name, x in p.gradients(pair(case)[0], frozen=FROZEN).items():
        assert x.isfinite().all(), name


@each_case
def test_compiles(case, device):
    torch._dynamo.reset()
    p = problem_of(case, 24, 33, 8, device=device)
    ours = pair(case)[0]
    compiled = torch.compile(lambda **a: ours(**a), fullgraph=True, backend="aot_eager")
    eager = p.gradients(ours, frozen=FROZEN)
    for name, x in p.gradients(compiled, frozen=FROZEN).items():
        assert relative_error(x.double(), eager[name].double()) < 1e-6, name


REFUSED = {
    "emo": [dict(mode="emo3"), dict(cost_embedding=torch.randn(32, 4)), dict(tau=0.1)],
    "plackett_luce_distill": [dict(k=0), dict(temperature=0.0), dict(teacher_linear_weight=torch.randn(32, 21))],
    "sigmoid": [dict(bias=torch.randn(2))],
    "hinge": [dict(margin=math.inf)],
    "psl": [dict(temperature=0.0), dict(activation="atan"), dict(temperature=2.0, activation="relu")],
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    p = problem_of(case, 6, 33, 8)
    op = case if case in losses.__all__ and case != "psl" else "linear_pairwise"
    for change in REFUSED[case]:
        with pytest.raises(ValueError, match=rf"{op}: {next(iter(change))} must"):
            pair(case)[0](**p.with_(**change).arguments())
    with pytest.raises(ValueError, match="linear_pairwise: kind must"):
        linear_pairwise(p.tensors["input"], p.tensors["linear_weight"], p.tensors["target"], kind="softmax")
