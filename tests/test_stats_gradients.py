"""Gradients of linear_stats: each statistic by finite differences and by the one rule, alone and together."""

import math
from functools import partial

import pytest
import torch
from live import rows_of_lists
from lossk import linear_stats, reference
from problem import (
    FLOAT32_AND_HALVES,
    SMOOTH_STATS,
    assert_matches,
    each_dtype,
    each_shape,
    random_stats_problem,
)
from tolerance import assert_identical, relative_error

each_stat = pytest.mark.parametrize("name", SMOOTH_STATS)


def only(want):
    """The reference, for the wanted statistics alone."""

    def head(*args, **kwargs):
        s = reference.linear_stats(*args, **kwargs)
        return s._replace(**{name: None for name in s._fields if name not in want})

    return head


def check(problem, want=SMOOTH_STATS, **how):
    return assert_matches(problem, partial(linear_stats, want=want), only(want), **how)


@each_stat
@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.float64
def test_gradcheck(name, softcap, device):
    p = random_stats_problem(
        4, 11, 3, torch.float64, device=device, softcap=softcap, bias=True, token_scale=True
    ).leaves()
    leaves = ["input", "linear_weight", "linear_bias", "scale"]

    def statistic(*values):
        return getattr(linear_stats(**p.with_(**dict(zip(leaves, values))).arguments(), want=(name,)), name)

    assert torch.autograd.gradcheck(statistic, [p.tensors[x] for x in leaves])


@each_dtype(only=FLOAT32_AND_HALVES)
@each_stat
@pytest.mark.parametrize("kind", ["plain", "flat", "peaked"])
def test_each(kind, name, dtype, device):
    p = random_stats_problem(60, 203, 40, dtype, kind=kind, device=device, bias=True, token_scale=True)
    # log p = z - lse has the rounding of lse, where torch takes the maximum off first: entropy of sure rows feels it
    check(p, (name,))


@each_dtype()
@each_shape
def test_shapes(rows, vocab, dim, dtype, device):
    check(random_stats_problem(rows, vocab, dim, dtype, device=device))


@each_dtype(only=FLOAT32_AND_HALVES)
@pytest.mark.parametrize("frozen", ["input", "linear_weight", "linear_bias", "scale"])
def test_frozen_tensors(frozen, dtype, device):
    p = random_stats_problem(60, 203, 40, dtype, device=device, bias=True, token_scale=True, softcap=3.0)
    assert f"grad of {frozen}" not in check(p, frozen=[frozen])


@each_dtype(only=FLOAT32_AND_HALVES)
def test_the_gradient_of_a_certain_complement(dtype, device):
    """d log(1 - p) / dz through lse_excl - lse, at p = 1 - 1e-7 and beyond."""
    p = random_stats_problem(64, 203, 40, dtype, device=device, entries=1, kind="flat", scale=1.0)
    x, index = p.tensors["input"] + 0, p.tensors["index"] * 0
    w = p.tensors["linear_weight"] + 0
    w[0, 0], x[:, 0] = 1, torch.linspace(10, 40, 64).to(dtype)
    check(p.with_(input=x, linear_weight=w, index=index), ("lse_excl", "lse"))


def test_gradients_with_masked_classes_are_finite(device):
    p = random_stats_problem(60, 203, 40, device=device, bias=True)
    bias = p.tensors["linear_bias"].clone()
    bias[:100] = -math.inf
    p = p.with_(linear_bias=bias, index=p.tensors["index"].clamp(min=100))
    check(p, tuple(name for name in SMOOTH_STATS if name != "aux_mean"))


def test_extremes_have_no_gradient(device):
    p = random_stats_problem(20, 33, 8, device=device).leaves()
    s = linear_stats(**p.arguments(), want=("max", "argmax", "min", "lse"))
    assert s.lse.requires_grad and not any(x.requires_grad for x in (s.max, s.argmax, s.min))


def test_unused_statistics_cost_nothing_to_the_others(device):
    p = random_stats_problem(60, 203, 40, device=device)
    alone = p.gradients(partial(linear_stats, want=("entropy",)))
    leaves = p.leaves()
    s = linear_stats(**leaves.arguments(), want=SMOOTH_STATS)
    generator = torch.Generator().manual_seed(60)
    s.entropy.backward(torch.empty(60).uniform_(0.5, 1.5, generator=generator).to(s.entropy))
    assert_identical(leaves.tensors["linear_weight"].grad, alone["grad of linear_weight"])


@pytest.mark.parametrize("want", [("lse", "logits"), SMOOTH_STATS], ids=["few", "all"])
def test_live_columns(want, device):
    p = random_stats_problem(rows_of_lists(device), 1003, 40, device=device, scale=10.0)
    head = partial(linear_stats, want=want)
    exact, live = p.gradients(head), p.with_(tau=2**-8).gradients(head)
    for name, x in exact.items():
        if name.startswith("grad"):
            assert 2e-6 < relative_error(live[name].double(), x.double()) < 0.02, name  # more than rounding
        elif name in ("lse", "logits"):
            assert_identical(live[name], x, name)


def test_double_backward_is_an_error_that_names_the_op(device):
    p = random_stats_problem(20, 33, 8, device=device).leaves()
    x = p.tensors["input"]
    (grad,) = torch.autograd.grad(linear_stats(**p.arguments()).lse.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match=r"lossk|linear_stats"):
        torch.autograd.grad(grad.square().sum(), x)
