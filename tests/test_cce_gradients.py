"""Gradients of linear_cross_entropy: by finite differences in float64, by the one rule in the other dtypes."""

import math

import pytest
import torch
from lossk import _head_ops, linear_cross_entropy, reference
from problem import (
    EXTREME_FLOOR,
    FLOAT32_AND_HALVES,
    OPTIONS,
    assert_matches,
    each_dtype,
    each_option,
    each_reduction,
    each_shape,
    random_problem,
    upstream_of,
)
from tolerance import assert_as_good_as_torch, assert_identical

LEAVES = ["input", "linear_weight", "linear_bias", "token_weight", "scale", "soft_weights"]


def check(problem, **how):
    return assert_matches(problem, linear_cross_entropy, reference.linear_cross_entropy, **how)


@each_reduction
@each_option
@pytest.mark.float64
def test_gradcheck(option, reduction, device):
    p = random_problem(4, 11, 3, torch.float64, device=device, reduction=reduction, **OPTIONS[option]).leaves()
    names = [name for name in LEAVES if name in p.tensors]

    def loss(*leaves):
        return linear_cross_entropy(**p.with_(**dict(zip(names, leaves))).arguments())

    assert torch.autograd.gradcheck(loss, [p.tensors[name] for name in names])


@each_dtype()
@each_reduction
@each_shape
def test_shapes(rows, vocab, dim, reduction, dtype, device):
    check(random_problem(rows, vocab, dim, dtype, device=device, reduction=reduction))


@each_dtype(only=FLOAT32_AND_HALVES)
@each_reduction
@each_option
def test_options(option, reduction, dtype, device):
    check(random_problem(50, 203, 40, dtype, device=device, reduction=reduction, **OPTIONS[option]))


@each_dtype(only=FLOAT32_AND_HALVES)
@each_reduction
@pytest.mark.parametrize("rows", [9, 30])
@pytest.mark.parametrize("option", ["plain", "everything_hard"])
def test_a_vocabulary_so_long_that_a_gpu_cuts_it_for_the_gradient_of_input(option, rows, reduction, dtype, device):
    check(random_problem(rows, 4099, 40, dtype, device=device, reduction=reduction, **OPTIONS[option]))


@each_dtype(only=FLOAT32_AND_HALVES)
@pytest.mark.parametrize(("rows", "vocab", "dim"), [(30, 2003, 304), (100, 2003, 304), (30, 4099, 8)])
@pytest.mark.parametrize("option", ["plain", "everything_hard"])
def test_dlogits_where_a_gpu_will_write_the_gradient_of_the_weight(option, rows, vocab, dim, dtype, device):
    check(random_problem(rows, vocab, dim, dtype, device=device, reduction="none", **OPTIONS[option]))


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", FLOAT32_AND_HALVES, ids=str)
def test_dlogits_of_more_than_the_workspace(dtype, device):
    check(random_problem(4096, 32003, 4096, dtype, device=device, reduction="none"))


@each_dtype(only=FLOAT32_AND_HALVES)
@pytest.mark.parametrize("vocab", [203, 4099])
@pytest.mark.parametrize("option", ["plain", "everything_hard", "everything_soft"])
def test_gradients_made_in_the_forward(option, vocab, dtype, device, monkeypatch):
    monkeypatch.setattr(_head_ops, "gradient_in_forward", lambda input: True)
    check(random_problem(150, vocab, 40, dtype, device=device, reduction="mean", **OPTIONS[option]))


@each_dtype()
@pytest.mark.parametrize("kind", ["flat", "peaked", "extreme"])
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("option", ["plain", "everything_hard", "everything_soft"])
def test_kinds_of_logits(kind, option, reduction, dtype, device):
    p = random_problem(60, 1003, 64, dtype, kind=kind, device=device, reduction=reduction, **OPTIONS[option])
    check(p, floor=EXTREME_FLOOR if kind == "extreme" else None)


@each_dtype(only=FLOAT32_AND_HALVES)
@pytest.mark.parametrize("upstream", [-1.0, 1e-3, 65536.0])
def test_a_scaled_mean(upstream, dtype, device):
    check(random_problem(50, 203, 40, dtype, device=device), upstream=upstream)


@each_dtype(only=FLOAT32_AND_HALVES)
def test_a_mean_over_many_rows(dtype, device):
    check(random_problem(8192, 33, 8, dtype, device=device))


@each_dtype(only=FLOAT32_AND_HALVES[1:])
def test_the_many_rows_of_a_mean_do_not_underflow(dtype, device):
    p = random_problem(8192, 33, 8, dtype, device=device)
    exact = p.cast(torch.float64).gradients(reference.linear_cross_entropy)["grad of linear_weight"]
    actual = p.gradients(linear_cross_entropy)["grad of linear_weight"]
    assert_as_good_as_torch(actual, exact, exact.to(dtype))


@each_reduction
@pytest.mark.parametrize("frozen", ["input", "linear_weight", "linear_bias", "token_weight", "scale", "soft_weights"])
def test_frozen_tensors(frozen, reduction, device):
    option = OPTIONS["everything_soft" if frozen == "soft_weights" else "everything_hard"]
    results = check(random_problem(50, 203, 40, device=device, reduction=reduction, **option), frozen=[frozen])
    assert f"grad of {frozen}" not in results


def test_nothing_to_differentiate(device):
    p = random_problem(50, 203, 40, device=device)
    assert not linear_cross_entropy(**p.arguments()).requires_grad


@each_reduction
def test_minus_infinity_in_the_bias_has_no_gradient(reduction, device):
    p = random_problem(60, 203, 40, device=device, reduction=reduction, bias=True, ignored=0)
    bias = p.tensors["linear_bias"].clone()
    bias[100:] = -math.inf
    results = check(p.with_(linear_bias=bias, target=p.tensors["target"] % 100))
    assert not results["grad of linear_weight"][100:].any() and not results["grad of linear_bias"][100:].any()


@each_dtype()
@each_reduction
def test_ignored_rows_give_nothing_whatever_they_hold(reduction, dtype, device):
    p = random_problem(50, 203, 40, dtype, device=device, reduction=reduction)
    ignored = p.tensors["target"] == -100
    spoiled = p.tensors["input"].clone()
    spoiled[ignored] = math.nan
    clean, dirty = check(p), p.with_(input=spoiled).gradients(linear_cross_entropy)
    for name, x in clean.items():
        assert_identical(dirty[name], x, name)
    assert ignored.any() and not clean["grad of input"][ignored].any()


@each_reduction
def test_all_rows_ignored_give_zeros(reduction, device):
    p = random_problem(6, 33, 8, device=device, reduction=reduction, ignored=1.1, bias=True)
    results = p.gradients(linear_cross_entropy)
    assert not any(x.any() for name, x in results.items() if name.startswith("grad"))


@each_reduction
def test_retain_graph(reduction, device):
    p = random_problem(60, 203, 40, device=device, reduction=reduction, **OPTIONS["everything_hard"]).leaves()
    loss = linear_cross_entropy(**p.arguments())
    leaves = [x for x in p.tensors.values() if x.requires_grad]
    upstream = torch.rand_like(loss)
    first, second, doubled = (
        torch.autograd.grad(loss, leaves, factor * upstream, retain_graph=True) for factor in (1, 1, 2)
    )
    for a, b, c in zip(first, second, doubled):
        assert_identical(a, b)
        torch.testing.assert_close(2 * a, c)


@each_reduction
def test_gradients_accumulate(reduction, device):
    p = random_problem(60, 203, 40, device=device, reduction=reduction).leaves()
    for _ in range(2):
        linear_cross_entropy(**p.arguments()).sum().backward()
    fresh = p.leaves()
    linear_cross_entropy(**fresh.arguments()).sum().backward()
    for name in ("input", "linear_weight"):
        assert_identical(p.tensors[name].grad, 2 * fresh.tensors[name].grad)


@each_reduction
@each_dtype(only=FLOAT32_AND_HALVES[1:])
@pytest.mark.parametrize(("rows", "vocab", "dim"), [(400, 203, 40), (30, 2003, 304)])
def test_float32_gradients_of_a_half_precision_weight(rows, vocab, dim, reduction, dtype, device):
    p = random_problem(rows, vocab, dim, dtype, device=device, reduction=reduction)
    exact = p.cast(torch.float64).gradients(reference.linear_cross_entropy)["grad of linear_weight"]
    rounded = p.gradients(linear_cross_entropy)["grad of linear_weight"]
    leaves = p.leaves()
    weight = leaves.tensors["linear_weight"]
    weight.grad_dtype = torch.float32
    loss = linear_cross_entropy(**leaves.arguments())
    loss.backward(upstream_of(loss))
    assert weight.grad.dtype == torch.float32
    assert (weight.grad != weight.grad.to(dtype)).any()
    assert_as_good_as_torch(weight.grad, exact, rounded, factor=1.0)


@each_reduction
@pytest.mark.parametrize("wrt", ["input", "linear_weight"])
def test_double_backward_is_an_error_that_names_the_op(wrt, reduction, device):
    p = random_problem(10, 33, 8, device=device, reduction=reduction).leaves()
    x = p.tensors[wrt]
    (grad,) = torch.autograd.grad(linear_cross_entropy(**p.arguments()).sum(), x, create_graph=True)
    expected = p.with_(reduction=reduction).leaves()
    linear_cross_entropy(**expected.arguments()).sum().backward()
    assert_identical(grad, expected.tensors[wrt].grad)
    with pytest.raises(RuntimeError, match=r"lossk|linear_cross_entropy|cce"):
        torch.autograd.grad(grad.square().sum(), x)


def test_a_shared_tensor_gets_the_sum_of_its_gradients(device):
    p = random_problem(33, 33, 8, device=device)
    x, y = p.tensors["input"], p.tensors["target"]
    tied = x.clone().requires_grad_()
    linear_cross_entropy(tied, tied, y).backward()
    left, right = x.clone().requires_grad_(), x.clone().requires_grad_()
    linear_cross_entropy(left, right, y).backward()
    torch.testing.assert_close(tied.grad, left.grad + right.grad)
