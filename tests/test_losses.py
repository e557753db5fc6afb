"""Every loss of lossk.losses against its reference: values and all gradients."""

import inspect
import math

import pytest
import torch
from lossk import losses, reference
from problem import (
    FLOAT32_AND_HALVES,
    SURE_FLOOR,
    Problem,
    assert_matches,
    each_dtype,
    each_reduction,
    random_problem,
    upstream_of,
)
from tolerance import assert_identical, relative_error, rounding_floor
from torch import Tensor

CASES = {  # name: the loss's own arguments
    "comp_sum": {},
    "comp_sum 0": dict(order=0),
    "comp_sum 0.5": dict(order=0.5),
    "comp_sum 1.5": dict(order=1.5),
    "comp_sum 2.5": dict(order=2.5),
    "gce": {},
    "gce 0.1": dict(q=0.1),
    "mae": {},
    "sce": {},
    "sce 0.5": dict(alpha=0.5, beta=0.2, log_zero=-9.21),
    "dco": {},
    "dco 1": dict(n=1),
    "dco 256": dict(n=256),
    "focal": {},
    "focal 0.5": dict(gamma=0.5, alpha=0.25),
    "ldr_kl": {},
    "ldr_kl 0.5": dict(lam=0.5, margin=0.7),
    "aldr_kl": {},
    "aldr_kl 2": dict(lam0=2.0, alpha=1.5, margin=0.4),
    "logit_anneal": {},
    "logit_anneal 1": dict(gamma=1.0, margin=0.5, temperature=1.5),
    "dice": {},
    "dice 0.6": dict(alpha=0.6, smooth=0.1),
    "bootstrap": {},
    "bootstrap soft": dict(mode="soft", w=0.4),
    "brier": {},
    "squentropy": {},
    "spherical_z_loss": {},
    "spherical_z_loss 2": dict(a=2.0, b=1.5),
    "taylor_softmax": {},
    "spherical_softmax": {},
    "spherical_softmax 1": dict(eps=1.0),
    "squared_error": {},
}
NO_SOFTCAP = ("squentropy", "spherical_z_loss", "taylor_softmax", "spherical_softmax", "squared_error", "aldr_kl")
SETS = {"decoupled_softmax", "hl_gauss", "ntl_mse", "ntl_was"}  # test_losses_sets.py
# test_losses_contrastive.py, test_losses_two_heads.py
APART = {*losses.batch.__all__, *losses.contrastive.__all__, *losses.margins.__all__, *losses.pairs.__all__}
APART |= {"emo", "plackett_luce_distill", "cosine_linear"}
each_case = pytest.mark.parametrize("case", CASES)


def pair(case):
    name = case.split()[0]
    return getattr(losses, name), reference.losses.of(getattr(reference.losses, name))


def check(case, problem, kind="plain", **how):
    """Beside the 1 that p of a sure row is near, float32 keeps few bits of the rest; |p|^2 has fewer."""
    floor = rounding_floor(problem.tensors["input"].dtype)
    if case == "brier":
        floor = max(floor, SURE_FLOOR if kind == "peaked" else 2.0**-16)
    floor = max(floor, 2.0**-9 if kind == "peaked" else 2.0**-18)
    return assert_matches(problem.with_(**CASES[case]), *pair(case), floor=floor, **how)


def options_of(case):
    name = case.split()[0]
    return {} if name in NO_SOFTCAP else {"softcap": 4.0}


def problem_of(case, *size, **options):
    """With what every loss takes. spherical_z_loss does not depend on scale."""
    p = random_problem(*size, bias=True, token_weight=True, token_scale=True, **options)
    if case.startswith("spherical"):
        del p.tensors["scale"]
    return p.with_(**CASES[case], **options_of(case))


def test_every_loss_has_a_case_and_a_reference():
    assert {case.split()[0] for case in CASES} | SETS | APART == set(losses.__all__)
    assert all(hasattr(reference.losses, name) for name in set(losses.__all__) - APART)


@each_case
@pytest.mark.float64
def test_float64(case, device):
    p = problem_of(case, 37, 259, 300, torch.float64, device=device)
    ours, right = (p.gradients(f) for f in pair(case))
    for name, x in ours.items():
        assert relative_error(x, right[name]) < 1e-9, name


@each_dtype(only=FLOAT32_AND_HALVES)
@each_case
@pytest.mark.parametrize("kind", ["plain", "flat", "peaked"])
def test_each(kind, case, dtype, device):
    p = random_problem(60, 203, 300, dtype, kind=kind, device=device, bias=True)
    check(case, p, kind)


@each_dtype(only=FLOAT32_AND_HALVES)
@each_case
@each_reduction
def test_options(reduction, case, dtype, device):
    check(case, problem_of(case, 37, 131, 40, dtype, device=device, reduction=reduction, ignore_index=5))


@each_dtype(only=FLOAT32_AND_HALVES)
@each_case
def test_targets_that_come_often(case, dtype, device):
    """Hundreds of rows share a target: their gradients are summed wide, not rounded one by one."""
    p = random_problem(2048, 33, 24, dtype, device=device)
    check(case, p.with_(target=p.tensors["target"] % 3))


@pytest.mark.parametrize("name", ["squared_error", "cosine_linear"])
@each_dtype(only=FLOAT32_AND_HALVES[1:])
def test_float32_gradients_where_no_product_is(dtype, name, device):
    p = random_problem(60, 203, 40, dtype, device=device).leaves()
    weight, loss = p.tensors["linear_weight"], getattr(losses, name)
    weight.grad_dtype = torch.float32
    value = loss(**p.arguments())
    value.backward(upstream_of(value))
    exact = p.map(Tensor.cpu).cast(torch.float64).gradients(loss)["grad of linear_weight"]
    assert weight.grad.dtype == torch.float32
    assert relative_error(weight.grad.double().cpu(), exact) < 1e-5


@each_case
@pytest.mark.float64
def test_gradcheck(case, device):
    p = problem_of(case, 5, 7, 3, torch.float64, device=device, reduction="none")
    names = [name for name in p.tensors if name != "target"]
    if case.split()[0] == "aldr_kl":  # its lam has no gradient, which differences do not know
        p = p.with_(alpha=1e9)

    def f(*leaves):
        return pair(case)[0](**p.with_(**dict(zip(names, leaves, strict=True))).arguments())

    assert torch.autograd.gradcheck(f, [p.tensors[name].requires_grad_() for name in names])


@each_case
@pytest.mark.parametrize("spread", [30.0, 1e3, 1e4])
def test_sure_and_hopeless_rows_are_finite(spread, case, device):
    p = random_problem(50, 33, 16, device=device, ignored=0.1)
    p = p.with_(input=p.tensors["input"] * spread, reduction="none", **CASES[case])
    for name, x in p.gradients(pair(case)[0]).items():
        if case in ("comp_sum 0", "comp_sum 0.5"):  # 1 / p of a hopeless row
            assert not x.isnan().any() or not x[x.isnan()].isinf().any()
            continue
        assert x.isfinite().all(), name


def test_what_sure_rows_leave_is_exact_row_by_row(device):
    """1 - p of 1e-2 to 3e-8, of which a difference of 1 and p has few digits or none."""
    lead = torch.linspace(5, 18, 27, device=device)
    p = Problem(
        dict(
            input=lead[:, None] * torch.tensor([1.0, 0.0], device=device),
            linear_weight=torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]], device=device),
            target=torch.zeros(27, dtype=torch.int64, device=device),
        ),
        dict(reduction="none", gamma=1.0),
    )
    got, rest = losses.focal(**p.arguments()).double().cpu(), 2 * torch.exp(-lead.double().cpu())
    right = torch.log1p(rest) * rest / (1 + rest)
    assert (got / right - 1).abs().max() < 1e-5


@each_case
def test_ignored_tokens_cost_nothing_whatever_they_hold(case, device):
    p = random_problem(40, 33, 16, device=device, reduction="none").with_(**CASES[case])
    ignored = p.tensors["target"] == -100
    x = p.tensors["input"].clone()
    x[ignored] = math.nan
    with_nan, without = p.with_(input=x).gradients(pair(case)[0]), p.gradients(pair(case)[0])
    for name, value in without.items():
        assert_identical(with_nan[name], value, name)
    assert ignored.any() and not without["loss"][ignored].any() and not without["grad of input"][ignored].any()


@each_case
def test_no_token_counts(case, device):
    p = random_problem(6, 33, 8, device=device, ignored=1.1).with_(**CASES[case])
    assert p.values(pair(case)[0])["loss"].isnan()
    for reduction in ("sum", "none"):
        for name, x in p.with_(reduction=reduction).gradients(pair(case)[0]).items():
            assert not x.any(), name


@each_case
def test_of_a_single_class(case, device):
    p = random_problem(5, 1, 7, device=device, reduction="none", ignored=0).with_(**CASES[case])
    results = p.gradients(pair(case)[0])
    assert all(x.isfinite().all() for x in results.values())
    if case.split()[0] not in ("dice", *NO_SOFTCAP):
        assert not results["loss"].any()


@each_case
def test_leading_dimensions(case, device):
    p = random_problem(24, 33, 8, device=device, lead=(4, 6), token_weight=True, token_scale=True, reduction="none")
    assert check(case, p)["loss"].shape == (4, 6)


@each_case
def test_compiles(case, device):
    torch._dynamo.reset()
    p = random_problem(24, 33, 8, device=device, bias=True).with_(**CASES[case])
    loss = pair(case)[0]
    compiled = torch.compile(lambda **arguments: loss(**arguments), fullgraph=True, backend="aot_eager")
    eager = p.gradients(loss)
    for name, x in p.gradients(compiled).items():
        assert relative_error(x.double(), eager[name].double()) < 1e-6, name


@pytest.mark.parametrize("name", ["comp_sum", "gce", "sce", "mae", "ldr_kl"])
def test_live_columns(name, device):
    p = random_problem(300, 1003, 40, device=device, scale=10.0)
    loss = getattr(losses, name)
    exact, live = p.gradients(loss), p.with_(tau=2**-8).gradients(loss)
    assert_identical(live["loss"], exact["loss"])
    for of in ("grad of input", "grad of linear_weight"):
        assert 0 < relative_error(live[of].double(), exact[of].double()) < 0.05, of


def test_weights_per_token_and_per_class(device):
    p = random_problem(60, 203, 40, device=device)
    assert_matches(p.with_(w=torch.rand(60, device=device)), *pair("bootstrap"), frozen=("w",))
    assert_matches(p.with_(alpha=torch.rand(203, device=device)), *pair("focal"), frozen=("alpha",))


def test_no_logits_for_sums_of_squares(device):
    """spherical_z_loss calls no op of the head."""
    p = random_problem(60, 203, 40, device=device).leaves()
    with torch.profiler.profile() as profile:
        losses.spherical_z_loss(**p.arguments()).backward()
    assert not [e.name for e in profile.events() if e.name.startswith("lossk::")]


def test_signatures():
    for name in set(losses.__all__) - APART:
        loss = getattr(losses, name)
        assert loss.__name__ == name and "Source:" in loss.__doc__, name
        parameters = inspect.signature(loss).parameters
        assert {"linear_bias", "token_weight", "reduction"} <= parameters.keys(), name
        if name not in SETS:
            assert list(parameters)[:3] == ["input", "linear_weight", "target"], name
            assert "ignore_index" in parameters and "linear_weight [V, D]" in loss.__doc__, name


REFUSED = {
    "comp_sum": dict(order=-0.1),
    "gce": dict(q=0.0),
    "sce": dict(alpha=math.nan),
    "dco": dict(n=0),
    "focal": dict(gamma=-1.0),
    "ldr_kl": dict(lam=0.0),
    "aldr_kl": dict(alpha=1.0),
    "logit_anneal": dict(temperature=-1.0),
    "dice": dict(smooth=-1.0),
    "bootstrap": dict(mode="medium"),
    "bootstrap ": dict(tau=0.1),
    "squentropy": dict(softcap=3.0),
    "spherical_z_loss": dict(a=0.0),
    "taylor_softmax": dict(softcap=3.0),
    "spherical_softmax": dict(eps=0.0),
    "squared_error": dict(softcap=3.0),
    "cosine_linear": dict(scale=2.0),
    "mae": dict(reduction="average"),
    "brier": dict(tau=2.0),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    p, name = random_problem(6, 33, 8), case.strip()
    with pytest.raises(ValueError, match=rf"{name}: {next(iter(REFUSED[case]))} must"):
        getattr(losses, name)(**p.with_(**REFUSED[case]).arguments())
    with pytest.raises(TypeError, match=name):
        getattr(losses, name)(**p.arguments(), temprature=1.0)
    with pytest.raises(ValueError, match=rf"{name}: target must be in"):
        getattr(losses, name)(**p.with_(target=p.tensors["target"].clamp(min=0) + 33).arguments())
