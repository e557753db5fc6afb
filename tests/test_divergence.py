"""linear_divergence: every kind against its reference, values and all gradients."""

import math

import pytest
import torch
from lossk import linear_divergence, reference
from lossk.divergence import KINDS, WITH_BETA
from problem import FLOAT32_AND_HALVES, Problem, assert_matches, each_dtype, each_reduction, ids, wide
from tolerance import assert_identical, relative_error, rounding_floor

each_kind = pytest.mark.parametrize("kind", KINDS)


def problem_of(
    rows, vocab, dim, dtype=torch.float32, *, teacher_dim=None, teacher_dtype=None, near=None, spread=2.0, lead=None,
    device="cpu", biases=False, temperatures=False, weights=False, masked=False, **options,
) -> Problem:  # fmt: skip
    """near: the teacher is the student, but for that much of its weight."""
    teacher_dim, teacher_dtype = teacher_dim or dim, teacher_dtype or dtype
    t = {
        "input": torch.randn(rows, dim).to(dtype),
        "linear_weight": (torch.randn(vocab, dim) * spread / dim**0.5).to(dtype),
        "teacher_input": torch.randn(rows, teacher_dim).to(teacher_dtype),
        "teacher_linear_weight": (torch.randn(vocab, teacher_dim) * spread / teacher_dim**0.5).to(teacher_dtype),
    }
    if near is not None:
        t["teacher_input"] = t["input"].clone()
        t["teacher_linear_weight"] = t["linear_weight"] + (near * t["teacher_linear_weight"]).to(dtype)
    if biases:
        t |= {name: torch.randn(vocab).to(wide(dtype)) for name in ("linear_bias", "teacher_linear_bias")}
    if temperatures:
        t |= {name: (torch.rand(rows) + 0.5).to(wide(dtype)) for name in ("temperature", "teacher_temperature")}
    if weights:
        t["token_weight"] = (torch.rand(rows) + 0.1).to(wide(dtype))
    if masked:
        t["mask"] = torch.rand(rows) < 0.7
    if lead is not None:
        t = {k: x if "linear" in k else x.reshape((*lead, *x.shape[1:])) for k, x in t.items()}
    return Problem(t, options).map(lambda x: x.to(device))


def everything(*size, **options):
    return problem_of(
        *size, teacher_dim=29, biases=True, temperatures=True, weights=True, masked=True, train_teacher=True, beta=0.3,
        softcap=4.0, teacher_softcap=6.0, **options,
    )  # fmt: skip


def check(problem, **how):
    """A trained teacher's d temperature is a sum of both signs, of which float32 keeps few bits."""
    floor = max(rounding_floor(problem.tensors["input"].dtype), 2.0**-17)
    return assert_matches(problem, linear_divergence, reference.linear_divergence, floor=floor, **how)


@each_kind
@pytest.mark.float64
def test_float64(kind, device):
    for p in (problem_of(37, 259, 300, torch.float64, device=device), everything(37, 259, 300, torch.float64)):
        p = p.with_(kind=kind)
        ours, right = p.gradients(linear_divergence), p.gradients(reference.linear_divergence)
        for name, x in ours.items():
            assert (x is None and right[name] is None) or relative_error(x, right[name]) < 1e-9, name


@each_dtype(only=FLOAT32_AND_HALVES)
@each_kind
def test_ragged_shapes(kind, dtype, device):
    for size in ((1, 1, 1), (60, 203, 300), (200, 1003, 24)):
        check(problem_of(*size, dtype, device=device, kind=kind), frozen=("teacher_input", "teacher_linear_weight"))


@each_dtype(only=FLOAT32_AND_HALVES)
@each_kind
@each_reduction
def test_options(reduction, kind, dtype, device):
    check(everything(37, 131, 40, dtype, device=device, kind=kind, reduction=reduction))


@each_kind
@pytest.mark.parametrize("near", [1e-1, 1e-2, 1e-3])
def test_a_teacher_that_has_been_learned(near, kind, device):
    """Small divergences: differences of probabilities that are nearly the same."""
    p = problem_of(40, 203, 64, device=device, near=near, kind=kind, reduction="none")
    got, exact = p.values(linear_divergence)["loss"], p.cast(torch.float64).values(reference.linear_divergence)["loss"]
    same = p.values(reference.linear_divergence)["loss"]
    assert (got >= -1e-6).all()
    assert (got - exact).norm() <= 1.5 * (same - exact).norm() + 2.0**-22 * math.sqrt(40)


@pytest.mark.parametrize("teacher_dtype", FLOAT32_AND_HALVES, ids=ids(FLOAT32_AND_HALVES))
def test_teachers_of_another_dtype(teacher_dtype, device):
    p = problem_of(40, 203, 64, torch.float32, teacher_dtype=teacher_dtype, teacher_dim=48, device=device)
    p = p.with_(kind="jsd", train_teacher=True)
    ours, right = p.gradients(linear_divergence), p.cast(torch.float64).gradients(reference.linear_divergence)
    assert ours["grad of teacher_linear_weight"].dtype == teacher_dtype
    for name, x in ours.items():
        assert relative_error(x.double(), right[name]) < 1e-5 + torch.finfo(x.dtype).eps, name


@each_kind
@pytest.mark.float64
def test_gradcheck(kind, device):
    p = problem_of(
        4, 7, 3, torch.float64, device=device, biases=True, temperatures=True, weights=True, kind=kind,
        reduction="none", train_teacher=True,
    )  # fmt: skip
    names = list(p.tensors)

    def f(*leaves):
        return linear_divergence(**p.with_(**dict(zip(names, leaves, strict=True))).arguments())

    assert torch.autograd.gradcheck(f, [p.tensors[name].requires_grad_() for name in names])


@pytest.mark.parametrize("temperatures", [(2.0, None), (0.7, 1.5)], ids=str)
def test_temperatures_that_are_numbers(temperatures, device):
    """The teacher's is the student's where it has none of its own."""
    p = problem_of(30, 131, 40, device=device, kind="jsd")
    p = p.with_(**dict(zip(("temperature", "teacher_temperature"), temperatures)))
    check(p, frozen=("teacher_input", "teacher_linear_weight"))


@each_kind
def test_a_frozen_teacher_has_no_gradient_and_costs_none(kind, device):
    p = problem_of(20, 33, 8, device=device, kind=kind).leaves()
    linear_divergence(**p.arguments()).backward()
    assert p.tensors["teacher_input"].grad is None and p.tensors["teacher_linear_weight"].grad is None
    assert p.tensors["input"].grad.any() and p.tensors["linear_weight"].grad.any()


@each_kind
def test_masked_tokens_cost_nothing_whatever_they_hold(kind, device):
    p = problem_of(40, 33, 16, device=device, masked=True, kind=kind, train_teacher=True)
    off = ~p.tensors["mask"]
    dirty = {}
    for name in ("input", "teacher_input"):
        dirty[name] = p.tensors[name].clone()
        dirty[name][off] = math.nan
    with_nan, without = p.with_(**dirty).gradients(linear_divergence), p.gradients(linear_divergence)
    for name, x in without.items():
        assert_identical(with_nan[name], x, name)
    assert off.any() and not without["grad of input"][off].any()


@each_kind
@pytest.mark.parametrize("spread", [30.0, 1e3])
def test_far_apart(spread, kind, device):
    """Rows that are sure of different columns: probabilities that are 0 in float32."""
    p = problem_of(30, 65, 16, device=device, spread=spread, kind=kind, train_teacher=True, reduction="none")
    results = p.gradients(linear_divergence)
    assert all(x.isfinite().all() for x in results.values())
    right = p.cast(torch.float64).gradients(reference.linear_divergence)
    assert relative_error(results["loss"].double(), right["loss"]) < 1e-4


@each_kind
def test_probabilities_among_the_subnormals(kind, device):
    """Down to the least float beside one that is 0, on either side: their mixture may be 0 where neither is."""
    gaps = torch.linspace(-104, -86, 300, device=device)[:, None]
    weight = torch.tensor([[1.0], [0.0]], device=device)
    for input, taught in ((gaps, torch.full_like(gaps, -200)), (torch.full_like(gaps, -200), gaps)):
        loss = linear_divergence(input.requires_grad_(), weight, taught, weight, kind=kind, reduction="none")
        (grad,) = torch.autograd.grad(loss.sum(), input)
        assert loss.isfinite().all() and grad.isfinite().all()


@pytest.mark.parametrize("beta", [1e-6, 1e-3, 0.02, 0.98, 1 - 1e-3])
@pytest.mark.parametrize("spread", [2.0, 16.0])
def test_alpha_near_its_ends(spread, beta, device):
    """Where one probability is 0 by underflow the other's power of it is not; and beta so small that terms cancel."""
    p = problem_of(64, 1003, 40, device=device, spread=spread, kind="alpha", beta=beta, train_teacher=True)
    ours, right = p.gradients(linear_divergence), p.cast(torch.float64).gradients(reference.linear_divergence)
    for name, x in ours.items():
        assert relative_error(x.double(), right[name]) < 1e-4, name


@each_kind
def test_columns_that_both_have_masked_out(kind, device):
    p = problem_of(30, 65, 16, device=device, kind=kind)
    bias = torch.zeros(65, device=device)
    bias[5:9] = -math.inf
    masked = p.with_(linear_bias=bias, teacher_linear_bias=bias.clone())
    rest = [v for v in range(65) if not 5 <= v < 9]
    small = p.with_(**{k: p.tensors[k][rest] for k in ("linear_weight", "teacher_linear_weight")})
    frozen = ("linear_bias", "teacher_linear_bias", "teacher_input", "teacher_linear_weight")
    ours, right = masked.gradients(linear_divergence, frozen=frozen), small.gradients(linear_divergence, frozen=frozen)
    assert relative_error(ours["loss"].double(), right["loss"].double()) < 1e-6
    assert relative_error(ours["grad of input"].double(), right["grad of input"].double()) < 1e-5
    assert not ours["grad of linear_weight"][5:9].any()


def test_what_the_student_rules_out_is_infinitely_far(device):
    p = problem_of(5, 9, 4, device=device, reduction="none")
    bias = torch.zeros(9, device=device)
    bias[3] = -math.inf
    assert p.with_(linear_bias=bias).values(linear_divergence)["loss"].isposinf().all()
    assert p.with_(linear_bias=bias, kind="reverse_kl").values(linear_divergence)["loss"].isfinite().all()


@each_kind
def test_rows_do_not_depend_on_each_other_or_on_threads(kind, device):
    p = problem_of(130, 777, 24, device=device, kind=kind, reduction="none")
    whole = p.gradients(linear_divergence, upstream=1.0)
    part = p.with_(**{k: p.tensors[k][7:12] for k in ("input", "teacher_input")})
    some = part.gradients(linear_divergence, upstream=1.0)
    for name in ("loss", "grad of input"):
        assert_identical(some[name], whole[name][7:12], name)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = p.gradients(linear_divergence, upstream=1.0)
    finally:
        torch.set_num_threads(threads)
    for name, x in whole.items():
        assert_identical(alone[name], x, name)


def test_leading_dimensions_strides_and_no_rows(device):
    p = problem_of(24, 33, 8, device=device, lead=(4, 6), masked=True, temperatures=True, kind="jsd", reduction="none")
    assert check(p, frozen=("teacher_input", "teacher_linear_weight", "teacher_temperature"))["loss"].shape == (4, 6)
    t = p.tensors
    strided = p.with_(
        input=t["input"].mT.contiguous().mT, linear_weight=t["linear_weight"].T.contiguous().T,
        teacher_linear_weight=torch.stack([t["teacher_linear_weight"]] * 2, -1)[..., 0],
    )  # fmt: skip
    assert_identical(strided.values(linear_divergence)["loss"], p.values(linear_divergence)["loss"])
    none = problem_of(0, 33, 8, device=device, train_teacher=True)
    assert none.values(linear_divergence)["loss"].isnan()
    assert not none.with_(reduction="sum").gradients(linear_divergence)["grad of linear_weight"].any()


@each_kind
def test_compiles(kind, device):
    torch._dynamo.reset()
    p = problem_of(24, 33, 8, device=device, biases=True, masked=True, kind=kind)
    compiled = torch.compile(lambda **a: linear_divergence(**a), fullgraph=True, backend="aot_eager")
    frozen = ("teacher_input", "teacher_linear_weight", "teacher_linear_bias")
    eager = p.gradients(linear_divergence, frozen=frozen)
    for name, x in p.gradients(compiled, frozen=frozen).items():
        assert relative_error(x.double(), eager[name].double()) < 1e-6, name


def test_autocast_and_wide_weight_gradients(device):
    p = problem_of(24, 33, 8, device=device, kind="jsd").leaves()
    with torch.autocast(device, torch.bfloat16):
        loss = linear_divergence(**p.arguments())
    assert_identical(loss, p.cast(torch.bfloat16).values(linear_divergence)["loss"])
    if hasattr(torch.Tensor, "grad_dtype"):
        weight = p.tensors["linear_weight"].detach().bfloat16().requires_grad_()
        weight.grad_dtype = torch.float32
        linear_divergence(**p.cast(torch.bfloat16).with_(linear_weight=weight).arguments()).backward()
        assert weight.grad.dtype == torch.float32 and not torch.equal(weight.grad.bfloat16().float(), weight.grad)


def test_no_second_derivative(device):
    p = problem_of(6, 9, 4, device=device).leaves()
    x = p.tensors["input"]
    (grad,) = torch.autograd.grad(linear_divergence(**p.arguments()), x, create_graph=True)
    with pytest.raises(RuntimeError, match="cannot be differentiated again"):
        grad.sum().backward()


REFUSED = {
    "kind": dict(kind="kl"),
    "beta": dict(kind="jsd", beta=1 - 1e-9),
    "temperature": dict(temperature=0.0),
    "teacher_temperature": dict(teacher_temperature=-1.0),
    "softcap": dict(softcap=-2.0),
    "teacher_softcap": dict(teacher_softcap=0.0),
    "reduction": dict(reduction="average"),
    "teacher_input": dict(teacher_input=torch.randn(5, 4)),
    "teacher_linear_weight": dict(teacher_linear_weight=torch.randn(8, 4)),
    "mask": dict(mask=torch.ones(5, dtype=torch.bool)),
    "token_weight": dict(token_weight=torch.ones(6, 1)),
    "teacher_linear_bias": dict(teacher_linear_bias=torch.ones(8)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    p = problem_of(6, 9, 4)
    with pytest.raises(ValueError, match=rf"linear_divergence: {name} must"):
        linear_divergence(**p.with_(**REFUSED[name]).arguments())


def test_refused_types():
    p = problem_of(6, 9, 4)
    half = p.tensors["teacher_input"].double()
    for name, change in {
        "teacher_linear_weight": dict(teacher_input=half),
        "teacher_input": dict(teacher_input=half, teacher_linear_weight=p.tensors["teacher_linear_weight"].double()),
        "mask": dict(mask=torch.ones(6)),
        "temperature": dict(temperature="hot"),
    }.items():
        with pytest.raises(TypeError, match=rf"linear_divergence: {name} must"):
            linear_divergence(**p.with_(**change).arguments() | {k: v for k, v in change.items() if k == "temperature"})


def test_the_temperature_that_is_wrong_is_named():
    p = problem_of(6, 9, 4)
    with pytest.raises(ValueError, match=r"linear_divergence: teacher_input must have input's tokens"):
        linear_divergence(**p.with_(teacher_input=torch.randn(5, 4), temperature=torch.ones(6)).arguments())
    with pytest.raises(ValueError, match=r"linear_divergence: teacher_temperature must have shape \[6\]"):
        linear_divergence(**p.with_(teacher_temperature=torch.ones(5)).arguments())


def test_beta_is_looked_at_where_it_counts():
    p = problem_of(6, 9, 4).with_(beta=7.0)
    for kind in set(KINDS) - set(WITH_BETA):
        linear_divergence(**p.with_(kind=kind).arguments())
