"""Harmonic losses over elementwise distances: every kind against its reference, values and all gradients."""

import math

import pytest
import torch
from elementwise import CASES, check, each_case, errors, ours, problem_of, right
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lossk._elementwise_ops import KINDS
from problem import FLOAT32_AND_HALVES, each_dtype, wide
from tolerance import assert_identical, relative_error


@each_case
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.float64
def test_float64(smoothing, case, device):
    for size in ((37, 403, 45), (9, 30, 300), (5, 769, 7), (50, 2, 1)):
        for name, error in errors(problem_of(case, *size, torch.float64, device=device, smoothing=smoothing)).items():
            assert error < 1e-10, (size, name)


@each_dtype(only=FLOAT32_AND_HALVES)
@each_case
def test_by_the_rule(case, dtype, device):
    for size in ((60, 203, 300), (100, 403, 24), (1, 1, 1), (3, 2, 5), (1, 129, 16), (9, 33, 1)):
        check(problem_of(case, *size, dtype, device=device))


@each_dtype(only=FLOAT32_AND_HALVES)
@each_case
def test_smoothed_and_masked(case, dtype, device):
    check(problem_of(case, 37, 131, 40, dtype, device=device, masked=True, smoothing=0.1))


@each_case
@pytest.mark.parametrize("exponent", ["1", "2", "sqrt(D)", "D", "2D"])
def test_exponents(exponent, case, device):
    dim = 256
    power = {"1": 0.5, "2": 1.0, "sqrt(D)": dim**0.5 / 2, "D": dim / 2, "2D": dim}[exponent]
    check(problem_of(case, 40, 203, dim, device=device, power=float(power)))


@each_dtype(only=[torch.float32, torch.bfloat16])
@each_case
def test_rows_that_are_sure(case, dtype, device):
    """Half the rows near their target: most pairs are negligible, the rest must not suffer; 1 - p must not cancel."""
    p = problem_of(case, 60, 403, 64, dtype, device=device, power=8.0)
    near = p.tensors["linear_weight"][p.tensors["target"]] + 0.3 * p.tensors["input"]
    sure = torch.arange(60, device=device)[:, None] % 2 == 0
    p = p.with_(input=torch.where(sure, near.to(dtype), p.tensors["input"]))
    check(p)
    only = p.with_(**{k: p.tensors[k][::2] for k in ("input", "target", "row_term") if k in p.tensors})
    limit = 1e-4 if dtype == torch.float32 else 3 * torch.finfo(dtype).eps
    for name, error in errors(only).items():
        assert error < limit, name


def small_integers(*size):
    return torch.randint(-2, 3, size)


@each_dtype()
@each_case
def test_ties(case, dtype, device):
    """Coordinates that are equal have no slope, and of equally far ones the first has it."""
    p = problem_of(case, 20, 67, 24, torch.float64, device=device)
    p = p.with_(input=small_integers(20, 24).to(device, dtype), linear_weight=small_integers(67, 24).to(device, dtype))
    for name in ("row_term", "column_term"):
        if name in p.tensors:
            p = p.with_(**{name: p.tensors[name].to(wide(dtype)).abs() + 3})
    for name, error in errors(p).items():
        assert error < (1e-10 if dtype == torch.float64 else 2e-5 + torch.finfo(dtype).eps), name


@each_dtype(only=[torch.float64, torch.float32, torch.bfloat16])
@each_case
def test_on_a_centre(case, dtype, device):
    """x exactly on its target's, on a wrong one's, and on two at once; a zero row among the weights."""
    p = problem_of(case, 30, 131, 40, dtype, device=device)
    x, w, y = (p.tensors[name] for name in ("input", "linear_weight", "target"))
    w[7], w[9], w[11] = w[3], w[3], 0
    y[:4] = torch.tensor([3, 5, 7, 11], device=device)
    x[0], x[1], x[2], x[3] = w[3], w[4], w[9], w[11]
    got, exact = p.gradients(ours), p.cast(torch.float64).gradients(right)
    for name, value in got.items():
        limit = 1e-9 if dtype == torch.float64 else 2e-4 + torch.finfo(dtype).eps
        assert value.isfinite().all() and relative_error(value.double(), exact[name]) < limit, name


@each_dtype(only=[torch.float64, torch.float32])
@each_case
def test_a_copy_of_the_target_is_as_likely_whatever_the_exponent(case, dtype, device):
    """Its distance comes out of the same operations: not a bit is multiplied by the exponent."""
    w = torch.randn(1, 300, dtype=dtype, device=device).expand(131, 300)
    p = problem_of(case, 30, 131, 300, dtype, device=device, power=1e4).with_(linear_weight=w.contiguous())
    if "column_term" in p.tensors:
        p = p.with_(column_term=p.tensors["column_term"][:1].expand(131).contiguous())
    assert_identical(p.values(ours)["loss"], torch.full((30,), math.log(131), dtype=dtype, device=device))


@each_case
def test_sgn_of_small_and_large_numbers(case, device):
    """Scaled by 1e-6 and 1e6, ten times below and above what float32 holds near 1."""
    kind, _ = CASES[case]
    for scale in (1e-6, 1e6):
        p = problem_of(case, 20, 67, 24, device=device, eps=1e-4 * scale**2)
        p = p.with_(**{k: x * scale for k, x in p.tensors.items() if x.is_floating_point()})
        if (kind.startswith("canberra") and kind != "canberra_weighted") or kind == "bray_curtis_standard":
            p = p.with_(p=p.options["p"] * scale, eps=1e-4)
        if kind == "smooth_chebyshev":
            p = p.with_(p=p.options["p"] / scale)
        for name, error in errors(p).items():
            assert error < 1e-4, (scale, name)


@pytest.mark.parametrize(("case", "p"), [("smooth_chebyshev", 10.0), ("minkowski_2.7", 30.0)])
def test_no_power_overflows(case, p, device):
    """Of numbers as large as 200: e^2000, 200^30."""
    p = problem_of(case, 20, 67, 12, device=device, p=p)
    p = p.with_(input=p.tensors["input"] * 50, linear_weight=p.tensors["linear_weight"] * 50)
    for name, error in errors(p).items():
        assert error < 1e-4, name


def test_the_slope_of_small_p_stays_finite(device):
    """Infinite at 0, and beyond float32 near it."""
    p = problem_of("minkowski_0.5", 10, 33, 8, device=device, p=0.1)
    p.tensors["input"][:, 5], p.tensors["linear_weight"][3, 5] = 1e-44, 0
    got = p.gradients(ours)
    assert all(x.isfinite().all() for x in got.values()) and got["grad of input"].abs().max() > 1e6


@each_dtype(only=[torch.float32, torch.bfloat16])
@each_case
def test_rows_not_active_cost_nothing_whatever_they_hold(case, dtype, device):
    p = problem_of(case, 60, 33, 16, dtype, device=device, masked=True)
    off = ~p.tensors["active"]
    dirty = p.with_(input=p.tensors["input"].masked_fill(off[:, None], math.nan))
    dirty = dirty.with_(target=p.tensors["target"].masked_fill(off, -100))
    clean, with_nan = p.gradients(ours), dirty.gradients(ours)
    for name, x in clean.items():
        assert_identical(with_nan[name], x, name)
    assert off.any() and not clean["loss"][off].any() and not clean["grad of input"][off].any()
    nothing = p.with_(active=torch.zeros_like(off)).gradients(ours)
    assert not any(x.any() for x in nothing.values())


@each_case
def test_nan_is_not_lost(case, device):
    p = problem_of(case, 10, 33, 16, device=device)
    p.tensors["input"][4, 7] = math.nan
    loss = p.values(ours)["loss"]
    assert loss[4].isnan() and loss[:4].isfinite().all() and loss[5:].isfinite().all()
    two = problem_of(case, 10, 2, 16, device=device)  # of which one is all there is beside the target
    two.tensors["linear_weight"][1, 7] = math.nan
    assert two.values(ours)["loss"].isnan().all()


def of_rows(p, rows):
    return p.with_(**{k: p.tensors[k][rows] for k in ("input", "target", "row_term") if k in p.tensors})


@each_dtype()
@each_case
def test_rows_do_not_depend_on_each_other_or_on_threads(case, dtype, device):
    p = problem_of(case, 130, 777, 40, dtype, device=device, power=8.0)
    whole = p.gradients(ours, upstream=1.0)
    spoiled = p.tensors["input"].clone()
    spoiled[::2] = torch.tensor([math.nan, math.inf, 1e4, 0.0, -1.0], device=device).repeat(13)[:, None].to(dtype)
    after = p.with_(input=spoiled).gradients(ours, upstream=1.0)
    for name in whole.keys() & {"loss", "distance", "grad of input", "grad of row_term"}:
        for rows in ([0], [129], [17, 3, 100], list(range(40, 97))):
            assert_identical(of_rows(p, rows).gradients(ours, upstream=1.0)[name], whole[name][rows], name)
        assert_identical(after[name][1::2], whole[name][1::2], name)
    threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            for name, x in p.gradients(ours, upstream=1.0).items():
                assert_identical(x, whole[name], name)
    finally:
        torch.set_num_threads(threads)


@each_dtype(only=[torch.float32, torch.float16])
@each_case
def test_many_rows(case, dtype, device):
    """Over a chunk of rows, and over a segment of them and of the vocabulary, by one."""
    check(problem_of(case, 1057, 385, 5, dtype, device=device))


@each_case
def test_no_rows_no_features_one_class(case, device):
    none = problem_of(case, 0, 33, 8, device=device).gradients(ours)
    assert none["loss"].shape == (0,) and none["grad of input"].shape == (0, 8)
    assert not none["grad of linear_weight"].any()
    one = problem_of(case, 5, 1, 7, device=device).gradients(ours)
    assert not one["loss"].any() and not one["grad of input"].any() and not one["grad of linear_weight"].any()
    if case == "manhattan":
        flat = problem_of(case, 5, 9, 0, device=device).gradients(ours)
        assert (flat["loss"] - math.log(9)).abs().max() < 1e-6 and flat["grad of input"].shape == (5, 0)


@each_dtype(only=[torch.float32, torch.bfloat16])
@each_case
def test_strides(case, dtype, device):
    p = problem_of(case, 60, 203, 33, dtype, device=device, masked=True)
    x, w, y = (p.tensors[name] for name in ("input", "linear_weight", "target"))
    strided = dict(input=x.T.contiguous().T, linear_weight=torch.stack([w] * 2, -1)[..., 0])
    strided["target"] = torch.stack([y, -y], -1)[:, 0]
    for active in (p.tensors["active"], torch.ones_like(p.tensors["active"])):
        q = p.with_(active=active)
        plain = q.gradients(ours)
        for changed in (strided, dict(input=x.flip(1).contiguous().flip(1), linear_weight=w.T.contiguous().T)):
            for name, value in q.with_(**changed).gradients(ours).items():
                assert_identical(value, plain[name], name)


def backward(p, needs, fp32=False):
    t, o = p.tensors, p.options
    call = (
        t["input"], t["linear_weight"], t["target"], None, t.get("row_term"), t.get("column_term"), o["kind"], o["p"],
        o["power"], 1e-4,
    )  # fmt: skip
    stats = torch.ops.lossk.elementwise_stats(*call)
    coef = torch.stack([torch.ones_like(stats[0]), torch.full_like(stats[0], -1e-3)])
    return torch.ops.lossk.elementwise_backward(*call, stats, coef, needs, fp32)


@each_case
def test_only_wanted_gradients(case, device):
    p = problem_of(case, 60, 403, 20, torch.bfloat16, device=device)
    every = backward(p, [True] * 4)
    for k in range(4):
        needs = [i == k for i in range(4)]
        for i, grad in enumerate(backward(p, needs)):
            assert_identical(grad, every[i]) if needs[i] else None
            assert needs[i] or grad.numel() == 0
    weight = backward(p, [True] * 4, fp32=True)[1]
    assert weight.dtype == torch.float32 and torch.equal(weight.bfloat16(), every[1])
    assert not torch.equal(weight, every[1].float())


@each_case
@pytest.mark.float64
def test_gradcheck(case, device):
    p = problem_of(case, 4, 7, 3, torch.float64, device=device, smoothing=0.1)
    names = [name for name, x in p.tensors.items() if x.is_floating_point()]
    f = lambda *leaves: ours(**p.with_(**dict(zip(names, leaves))).arguments()).loss  # noqa: E731
    assert torch.autograd.gradcheck(f, [p.tensors[name].requires_grad_() for name in names])


@each_case
def test_compiles(case, device):
    torch._dynamo.reset()
    p = problem_of(case, 24, 33, 8, device=device, masked=True, smoothing=0.1)
    compiled = torch.compile(lambda **a: ours(**a), fullgraph=True, backend="aot_eager")
    eager = p.gradients(ours)
    for name, x in p.gradients(compiled).items():
        assert_identical(x, eager[name], name)


def test_no_second_derivative(device):
    p = problem_of("manhattan", 6, 9, 4, device=device).leaves()
    (grad,) = torch.autograd.grad(ours(**p.arguments()).loss.sum(), p.tensors["input"], create_graph=True)
    with pytest.raises(RuntimeError, match="cannot be differentiated again"):
        grad.sum().backward()


@each_dtype(only=[torch.float64, torch.float32])
def test_terms_that_clamp(dtype, device):
    """bray_curtis_standard: where |S0| + p is below 10 p no gradient goes through it, on either side of 0 else."""
    p = problem_of("bray_curtis_standard", 20, 67, 12, dtype, device=device)
    p = p.with_(p=0.5, row_term=torch.randn(20, dtype=dtype, device=device) * 3)
    p = p.with_(column_term=torch.randn(67, dtype=dtype, device=device) * 3)
    total = p.tensors["row_term"][:, None] + p.tensors["column_term"]
    assert (total > 4.5).any() and (total < -4.5).any() and (total.abs() < 4.5).any()
    for name, error in errors(p).items():
        assert error < (1e-10 if dtype == torch.float64 else 2e-5), name


REFUSED = {
    "kind": (dict(kind="taxi"), "kind must be one of manhattan, .*, got taxi"),
    "p": (dict(kind="minkowski", p=0.0), "p must be a finite number > 0, got 0"),
    "sharpness": (dict(kind="smooth_chebyshev", p=-1.0), "p must be a finite number > 0, got -1"),
    "weights": (dict(kind="canberra_weighted", p=math.inf), "p must be finite, got inf"),
    "power": (dict(power=0.0), "power must be a finite number > 0, got 0"),
    "eps": (dict(eps=0.0), "eps must be a finite number > 0, got 0"),
    "eps that vanishes": (dict(eps=1e-60), "eps must be > 0 in float32, got 1e-60"),
    "target": (dict(target=torch.tensor([0, 9, 1])), r"target must be in \[0, 9\), got 9 at \[1\]"),
    "negative target": (dict(target=torch.tensor([0, 1, -100])), r"target must be in \[0, 9\), got -100 at \[2\]"),
    "target dtype": (dict(target=torch.zeros(3)), "target must be int64, got float32"),
    "target shape": (dict(target=torch.zeros(4).long()), r"target must have shape \[3\], got \[4\]"),
    "weight": (dict(linear_weight=torch.zeros(9, 5)), r"linear_weight must be \[V, 4\], got \[9, 5\]"),
    "weight dtype": (dict(linear_weight=torch.zeros(9, 4).half()), "linear_weight must be float32, got float16"),
    "active": (dict(active=torch.ones(3)), "active must be bool, got float32"),
    "no terms": (dict(kind="bray_curtis"), "row_term must be given for bray_curtis"),
    "a term": (dict(column_term=torch.ones(9)), "column_term must be absent for manhattan"),
    "term": (
        dict(kind="bray_curtis", row_term=torch.ones(3), column_term=torch.ones(8)),
        r"column_term must have shape \[9\], got \[8\]",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    changes, message = REFUSED[name]
    given = dict(input=torch.zeros(3, 4), linear_weight=torch.zeros(9, 4), target=torch.zeros(3).long())
    given |= dict(kind="manhattan", p=1.0, power=1.0) | changes
    with pytest.raises(RuntimeError, match=f"elementwise_stats: {message}"):
        ours(**given)


def test_refused_backward():
    p = problem_of("manhattan", 3, 9, 4)
    with pytest.raises(RuntimeError, match=r"elementwise_backward: needs_grad must have 4 entries .*, got 2"):
        backward(p, [True, True])


@settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    case=st.sampled_from(list(CASES)), rows=st.integers(1, 70), vocab=st.integers(2, 420), dim=st.integers(2, 140),
    dtype=st.sampled_from(FLOAT32_AND_HALVES), power=st.sampled_from([0.5, 1.0, 3.0, 8.0]), masked=st.booleans(),
    smoothing=st.sampled_from([0.0, 0.1]), seed=st.integers(0, 2**31),
)  # fmt: skip
def test_any_call(case, rows, vocab, dim, dtype, power, masked, smoothing, seed, device):
    torch.manual_seed(seed)
    options = dict(device=device, power=power, masked=masked, smoothing=smoothing)
    check(problem_of(case, rows, vocab, dim, dtype, **options))


def test_every_kind_is_here():
    assert {kind for kind, _ in CASES.values()} == set(KINDS)
