"""keep_logits: a backward that does not multiply for the logits again, on a GPU."""

import math
from functools import partial

import lossk
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from live import Sketches
from lossk import _head_ops, _keep, keep_logits, linear_cross_entropy, linear_logp, linear_stats, reference
from problem import (
    EXTREME_FLOOR,
    OPTIONS,
    SMOOTH_STATS,
    assert_matches,
    each_dtype,
    random_problem,
    random_stats_problem,
    upstream_of,
)
from test_cce_hypothesis import often, options, targets
from tolerance import assert_as_good_as_torch, assert_identical

HALVES = [torch.bfloat16, torch.float16]
# Of those that change what is kept, or what is made of it; a token's scale wants a gradient, and then nothing is.
KEPT_OPTIONS = {name: o for name, o in OPTIONS.items() if not {"softcap", "token_scale"} & o.keys()} | {
    "everything_hard": dict(
        bias=True, class_weight=True, token_weight=True, scale=0.7, label_smoothing=0.1, z_loss=1e-2, margin=0.35
    ),
    "everything_soft": dict(
        bias=True, class_weight=True, token_weight=True, scale=0.7, label_smoothing=0.1, z_loss=1e-2, soft=4
    ),
}
each_share = pytest.mark.parametrize("share", [0.4, 1.0])


@pytest.fixture(autouse=True)
def as_on_a_gpu(request, monkeypatch):
    """In the emulator, whose tensors are a CPU's, choose as for a GPU's."""
    if "device" in request.fixturenames and request.getfixturevalue("gpu_kernels"):
        monkeypatch.setattr(_keep, "_can_keep", lambda input: True)
        monkeypatch.setattr(_head_ops, "gradient_in_forward", lambda input: False)


def kept_by(call):
    """How many numbers a row the forward kept."""
    with Sketches(place=5) as outputs:
        call()
    return [kept.shape[1] for kept in outputs.seen]


def check(problem, head=linear_cross_entropy, of=reference.linear_cross_entropy, *, share=1.0, **how):
    with keep_logits(share):
        if _keep._can_keep(problem.tensors["input"]):
            assert all(kept_by(lambda: head(**problem.leaves(how.get("frozen", ())).arguments())))
        return assert_matches(problem, head, of, **how)


@each_dtype(only=HALVES)
@each_share
@pytest.mark.parametrize("option", KEPT_OPTIONS)
def test_options(option, share, dtype, device):
    check(random_problem(150, 1003, 40, dtype, device=device, reduction="none", **KEPT_OPTIONS[option]), share=share)


@each_dtype(only=HALVES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("rows, vocab, dim", [(1, 1, 8), (130, 257, 70), (64, 512, 64), (90, 700, 70), (33, 4099, 304)])
def test_shapes(rows, vocab, dim, reduction, dtype, device):
    for share in [1.0] + [0.5] * (vocab > 511):
        check(random_problem(rows, vocab, dim, dtype, device=device, reduction=reduction, bias=True), share=share)


@each_dtype(only=HALVES)
@each_share
@pytest.mark.parametrize("kind", ["flat", "peaked", "extreme"])
@pytest.mark.parametrize("option", ["plain", "everything_soft"])
def test_kinds_of_logits(option, kind, share, dtype, device):
    p = random_problem(60, 1003, 64, dtype, kind=kind, device=device, **KEPT_OPTIONS[option])
    check(p, share=share, floor=EXTREME_FLOOR if kind == "extreme" else None)


@each_dtype(only=HALVES)
@pytest.mark.parametrize("size", [1e-2, 1e-3, 1e-4])
def test_logits_near_zero(size, dtype, device):
    p = random_problem(60, 700, 64, dtype, device=device, reduction="none")
    p.tensors["input"] = (p.tensors["input"] * size).to(dtype)
    check(p)
    check(p.with_(z_loss=1e-2, label_smoothing=0.1))


def test_minus_infinity_in_the_bias_has_no_gradient(device):
    p = random_problem(60, 700, 40, torch.bfloat16, device=device, reduction="none", bias=True, ignored=0)
    bias = p.tensors["linear_bias"].clone()
    bias[100:610] = -math.inf
    masked = p.with_(linear_bias=bias, target=p.tensors["target"] % 100)
    results = check(masked)
    assert not any(results[f"grad of {name}"][100:610].any() for name in ("linear_weight", "linear_bias"))


@often
@given(data=st.data(), share=st.floats(0, 1), options=options, target=targets)
def test_any_call(data, share, options, target, device):
    rows, vocab, dim, seed = (data.draw(st.integers(*of)) for of in ((8, 200), (16, 1600), (4, 100), (0, 2**31)))
    torch.manual_seed(seed)
    kept = options | target | {"softcap": None, "token_scale": False}
    p = random_problem(rows, vocab, dim, data.draw(st.sampled_from(HALVES)), device=device, **kept)
    with keep_logits(share):
        assert_matches(p, linear_cross_entropy, reference.linear_cross_entropy)


@each_dtype(only=HALVES)
@pytest.mark.parametrize("kind", ["plain", "flat", "peaked"])
def test_logp_and_entropy(kind, dtype, device):
    p = random_problem(60, 1003, 64, dtype, kind=kind, device=device, bias=True, temperature=0.7)
    check(p, linear_logp, reference.linear_logp)


@each_dtype(only=HALVES)
@each_share
def test_every_statistic(share, dtype, device):
    p = random_stats_problem(60, 1003, 64, dtype, device=device)

    def exact(*args, **options):
        s = reference.linear_stats(*args, **options)
        return s._replace(**{name: None for name in s._fields if name not in SMOOTH_STATS})

    check(p, partial(linear_stats, want=SMOOTH_STATS), exact, share=share)


@pytest.mark.parametrize("frozen", ["input", "linear_weight"])
def test_frozen(frozen, device):
    check(random_problem(40, 700, 40, torch.bfloat16, device=device), frozen=(frozen,))


@pytest.mark.parametrize("name", ["input", "linear_weight"])
def test_strides(name, device):
    p = random_problem(40, 700, 40, torch.bfloat16, device=device)
    p.tensors[name] = p.tensors[name].T.contiguous().T
    check(p)


def test_a_loss_of_statistics(device):
    p = random_problem(40, 700, 40, torch.bfloat16, device=device)

    check(p, lossk.losses.focal, reference.losses.of(reference.losses.focal))


def test_no_rows(device):
    x = torch.randn(0, 8, device=device, dtype=torch.bfloat16, requires_grad=True)
    w = torch.randn(300, 8, device=device, dtype=torch.bfloat16, requires_grad=True)
    with keep_logits():
        linear_cross_entropy(x, w, torch.zeros(0, dtype=torch.int64, device=device), reduction="sum").backward()
    assert x.grad.shape == x.shape and not w.grad.any()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.26, 0.9999, 1])
def test_how_much_is_kept(share, device, gpu_kernels):
    p = random_problem(20, 1003, 40, torch.bfloat16, device=device).leaves()
    with keep_logits(share):
        kept = kept_by(lambda: linear_cross_entropy(**p.arguments(), reduction="none"))
    columns = 1003 if share == 1 else int(share * 1003) // 256 * 256
    assert kept == [_keep.line(columns) if gpu_kernels else 0]
    assert kept_by(lambda: linear_cross_entropy(**p.arguments(), reduction="none")) == [0]


NOT_KEPT = [dict(softcap=3.0), dict(token_scale=True), dict(dtype=torch.float32), dict(tau=0.1)]


@pytest.mark.parametrize("why", [{}, *NOT_KEPT], ids=str)
def test_where_nothing_is_kept(why, device):
    p = random_problem(20, 300, 40, **{"dtype": torch.bfloat16, "device": device} | why).leaves()
    with keep_logits(), torch.set_grad_enabled(bool(why)):
        assert kept_by(lambda: linear_cross_entropy(**p.arguments(), reduction="none")) == [0]


def test_a_scale_that_is_no_leaf_is_no_hindrance(device, gpu_kernels):
    p = random_problem(20, 300, 40, torch.bfloat16, device=device, token_scale=True).leaves(frozen=("scale",))
    with keep_logits():
        kept = kept_by(lambda: linear_cross_entropy(**p.arguments(), reduction="none"))
    assert kept == [_keep.line(300) if gpu_kernels else 0]


def test_the_loss_has_the_same_bits_and_a_cpu_the_same_gradients(device, gpu_kernels):
    p = random_problem(150, 1003, 40, torch.bfloat16, device=device, reduction="none")
    plain = p.gradients(linear_cross_entropy, upstream=1.0)
    for share in (0.3, 1.0):
        with keep_logits(share):
            kept = p.gradients(linear_cross_entropy, upstream=1.0)
        for name, x in plain.items():
            if not gpu_kernels or not name.startswith("grad of"):
                assert_identical(kept[name], x, name)


def test_a_row_does_not_depend_on_the_others(device):
    p = random_problem(300, 700, 40, torch.float16, device=device, reduction="none", ignored=0)
    some = p.with_(input=p.tensors["input"][7:150].clone(), target=p.tensors["target"][7:150].clone())
    with keep_logits(0.8):
        all, part = (x.gradients(linear_cross_entropy, upstream=1.0) for x in (p, some))
    assert_identical(part["grad of input"], all["grad of input"][7:150])


def test_a_checkpoint_with_the_block_inside(device):
    p = random_problem(40, 700, 40, torch.bfloat16, device=device)

    def kept(*tensors):
        with keep_logits():
            return linear_cross_entropy(**dict(zip(p.tensors, tensors)))

    def again(**tensors):
        return torch.utils.checkpoint.checkpoint(kept, *tensors.values(), use_reentrant=False)

    right = p.gradients(lambda **tensors: kept(*tensors.values()))
    for of, x in p.gradients(again).items():
        assert_identical(x, right[of], of)


def test_a_gradient_in_float32(device):
    p = random_problem(30, 700, 40, torch.bfloat16, device=device)
    exact = p.cast(torch.float64).gradients(reference.linear_cross_entropy)["grad of linear_weight"]
    leaves = p.leaves()
    weight = leaves.tensors["linear_weight"]
    weight.grad_dtype = torch.float32
    with keep_logits():
        rounded = p.gradients(linear_cross_entropy)["grad of linear_weight"]
        loss = linear_cross_entropy(**leaves.arguments())
    loss.backward(upstream_of(loss))
    assert weight.grad.dtype == torch.float32
    assert_as_good_as_torch(weight.grad, exact, rounded, factor=1.0)


def test_a_graph_that_is_kept_and_a_backward_outside(device):
    p = random_problem(40, 700, 40, torch.bfloat16, device=device).leaves()
    with keep_logits():
        loss = linear_cross_entropy(**p.arguments())
    leaves = [p.tensors["input"], p.tensors["linear_weight"]]
    first = torch.autograd.grad(loss, leaves, retain_graph=True)
    for x, y in zip(first, torch.autograd.grad(loss, leaves), strict=True):
        assert_identical(x, y)


def test_compiles(device):
    torch.compiler.reset()
    p = random_problem(40, 700, 40, torch.bfloat16, device=device)
    compiled = torch.compile(linear_cross_entropy, fullgraph=True, backend="aot_eager")
    for share in (0.0, 0.5, 0.9, 1.0):  # guards see that it changes
        with keep_logits(share):
            ours, eager = p.gradients(compiled), p.gradients(linear_cross_entropy)
        for name, x in eager.items():
            assert_identical(ours[name], x, name)


def test_opcheck(device, gpu_kernels):
    keep = 256 if gpu_kernels else 0
    leaves = dict(device=device, dtype=torch.bfloat16, requires_grad=True)
    x, w = torch.randn(9, 16, **leaves), torch.randn(300, 16, **leaves)
    index = torch.randint(300, (9, 1), device=device)
    torch.library.opcheck(
        torch.ops.lossk.linear_stats.default, (x, w, None, None, index, None, None, 0.0, 0.0, True, 0.0, True, keep)
    )


def test_nesting_and_errors():
    assert _keep._share == 0
    with keep_logits(0.5):
        with pytest.raises(RuntimeError, match="inside"), keep_logits(0.25):
            assert _keep._share == 0.25
            raise RuntimeError("inside")
        assert _keep._share == 0.5
    assert _keep._share == 0
    wrong = {ValueError: (1.5, -0.1, float("nan")), TypeError: ("1", True)}
    for error, share in [(error, share) for error, shares in wrong.items() for share in shares]:
        with pytest.raises(error, match=r"keep_logits: share must be a number in \[0, 1\]"), keep_logits(share):
            pass


def test_the_op_refuses(device, gpu_kernels):
    x, w = (torch.randn(n, 16, device=device, dtype=torch.bfloat16) for n in (9, 700))
    index = torch.randint(700, (9, 1), device=device)
    coef = torch.ones(1, 9, device=device)

    def forward(keep, x=x, w=w, softcap=0.0, tau=0.0):
        return torch.ops.lossk.linear_stats(x, w, None, None, index, None, None, softcap, 0.0, False, tau, True, keep)

    def backward(stats, logits, kept, keep):
        args = (x, w, None, None, index, None, None, 0.0, 0.0, stats[:2], None, coef, coef.T.contiguous())
        return torch.ops.lossk.linear_stats_backward(*args, logits, kept, keep, [True, True, False, False], False)

    stats, logits, *_ = forward(0)
    if not gpu_kernels:
        with pytest.raises(RuntimeError, match="linear_stats: keep must be 0 on a CPU, got 256"):
            forward(256)
        with pytest.raises(RuntimeError, match="linear_stats_backward: keep must be 0 on a CPU, got 256"):
            backward(stats, logits, stats, 256)
        return
    for keep in (-256, 100, 699, 768):
        with pytest.raises(RuntimeError, match=rf"keep must be 0, 700 or a multiple of 256 less than that, got {keep}"):
            forward(keep)
    for how in (dict(softcap=3.0), dict(tau=0.1), dict(x=x.float(), w=w.float())):
        with pytest.raises(RuntimeError, match="keep must be 0 with float32, with softcap and with tau, got 256"):
            forward(256, **how)
    kept = forward(256)[5]
    for wrong, keep in ((kept, 512), (kept[:8], 256), (kept.float(), 256), (None, 256)):
        with pytest.raises(RuntimeError, match=r"linear_stats_backward: kept"):
            backward(stats, logits, wrong, keep)
    with pytest.raises(RuntimeError, match=r"linear_stats_backward: kept and logits must be given with keep"):
        backward(stats, None, kept, 256)
