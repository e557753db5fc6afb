"""Every head, loss and divergence of the package in one list: value and all gradients against its reference.

What is particular to each is in its own file; here nothing may be missing.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import lossk
import pytest
import test_divergence
import test_logp
import test_losses
import test_losses_contrastive
import test_losses_sets
import test_losses_two_heads
import torch
import torch.utils.checkpoint
from lossk import losses, reference
from lossk.divergence import KINDS
from problem import (
    FLOAT32_AND_HALVES,
    SMOOTH_STATS,
    Problem,
    assert_matches,
    each_dtype,
    random_problem,
    random_stats_problem,
)
from tolerance import assert_identical, relative_error, rounding_floor

ROWS, VOCAB, DIM = 45, 331, 300  # ragged: V % 128 != 0, D > 256


class Entry(NamedTuple):
    """One of them, and how to ask for it: problem(rows, vocab, dim, dtype, device=)."""

    problem: Callable[..., Problem]
    ours: Callable
    reference: Callable
    frozen: tuple = ()
    rounded: bool = False  # vectors of unit length, or costs, are rounded to the dtype on the way


def _of_target(case):
    return Entry(
        lambda *size, **how: test_losses.problem_of(case, *size, **how), *test_losses.pair(case)
    )  # fmt: skip


def _apart(module, case):
    def problem(rows, vocab, dim, dtype, device):
        return module.problem_of(case, rows, vocab, dim, dtype=dtype, device=device)

    rounded = module is test_losses_contrastive or case.startswith("emo")
    return Entry(problem, *module.pair(case), module.FROZEN, rounded)


def _divergence(kind):
    def problem(*size, device):
        return test_divergence.everything(*size, device=device, kind=kind)

    return Entry(problem, lossk.linear_divergence, reference.linear_divergence)


def _head(make, ours, right, frozen=(), **options):
    return Entry(lambda *size, device: make(*size, device=device, **options), ours, right, frozen)


def _smooth_stats(f):
    """Those that are differentiable, of all that f gives."""
    return lambda *a, **k: lossk.Stats(**{name: getattr(f(*a, **k), name) for name in SMOOTH_STATS})


def _of_cosines(input, linear_weight, *args, **how):
    unit = torch.nn.functional.normalize
    wide = torch.float64 if input.dtype == torch.float64 else torch.float32
    formula = reference.losses.of(reference.losses.cosine_linear)
    return formula(unit(input.to(wide), dim=-1), unit(linear_weight.to(wide), dim=-1), *args, **how)


SETS = test_losses_sets
ENTRIES = {
    "linear_cross_entropy": _head(
        random_problem, lossk.linear_cross_entropy, reference.linear_cross_entropy, bias=True, class_weight=True,
        token_weight=True, token_scale=True, label_smoothing=0.1, z_loss=1e-2, softcap=3.0, margin=0.35,
    ),
    "linear_logp": _head(test_logp.logp_problem, lossk.linear_logp, reference.linear_logp, temperature="per token"),
    "linear_stats": _head(
        random_stats_problem, _smooth_stats(partial(lossk.linear_stats, want=SMOOTH_STATS)),
        _smooth_stats(reference.linear_stats), bias=True, token_scale=True,
    ),
    "decoupled_softmax": _head(SETS.positives_problem, losses.decoupled_softmax, SETS.reference_decoupled),
    "ntl_mse": _head(SETS.numbers_problem, losses.ntl_mse, SETS.reference_numbers("ntl_mse"), ("number_values",)),
    "ntl_was": _head(SETS.numbers_problem, losses.ntl_was, SETS.reference_numbers("ntl_was"), ("number_values",)),
    "hl_gauss": _head(SETS.values_problem, losses.hl_gauss, SETS.reference_hl_gauss, ("value_target", "edges")),
    "cosine_linear": _head(random_problem, losses.cosine_linear, _of_cosines, token_weight=True),
    **{kind: _divergence(kind) for kind in KINDS},
    **{case: _of_target(case) for case in test_losses.CASES},
    **{case: _apart(test_losses_contrastive, case) for case in test_losses_contrastive.CASES},
    **{
        f"linear_pairwise {case}" if case.split()[0] not in ("emo", "plackett_luce_distill") else case: _apart(
            test_losses_two_heads, case
        )
        for case in test_losses_two_heads.CASES
    },
}  # fmt: skip
each_entry = pytest.mark.parametrize("name", ENTRIES)


def test_nothing_is_missing():
    here = {name.split()[0] for name in ENTRIES}
    assert set(losses.__all__) <= here and set(KINDS) <= here
    without_gradient = {"linear_metrics", "linear_range", "linear_rank", "linear_sample", "linear_topk"}
    heads = {name for name in lossk.__all__ if name.startswith("linear_")}
    assert heads - without_gradient - {"linear_divergence"} <= here


@each_entry
@pytest.mark.float64
def test_float64(name, device):
    entry = ENTRIES[name]
    p = entry.problem(ROWS, VOCAB, DIM, torch.float64, device=device)
    ours, right = (p.gradients(f, frozen=entry.frozen) for f in (entry.ours, entry.reference))
    compared = [k for k, x in ours.items() if x.is_floating_point() and right[k] is not None]
    assert any(k.startswith("grad of") for k in compared)
    for k in compared:
        assert relative_error(ours[k], right[k]) < 1e-9, k


@each_dtype(only=FLOAT32_AND_HALVES)
@each_entry
def test_by_the_rule(name, dtype, device):
    """The floor is a few roundings of a sum that cancels, in every dtype; the files of each say where."""
    entry = ENTRIES[name]
    p = entry.problem(ROWS, VOCAB, DIM, dtype, device=device)
    floor = max(rounding_floor(dtype), 2.0**-17)
    if entry.rounded and dtype != torch.float32:
        floor = torch.finfo(dtype).eps
    assert_matches(p, entry.ours, entry.reference, frozen=entry.frozen, floor=floor)


@each_entry
def test_checkpoint(name, device):
    """What was saved for the backward is made again, and asked for once."""
    entry = ENTRIES[name]
    p = entry.problem(ROWS, VOCAB, 16, torch.float32, device=device)

    def again(**arguments):
        call = lambda *tensors: entry.ours(**dict(zip(arguments, tensors)))  # noqa: E731
        return torch.utils.checkpoint.checkpoint(call, *arguments.values(), use_reentrant=False)

    right = p.gradients(entry.ours, frozen=entry.frozen)
    for of, x in p.gradients(again, frozen=entry.frozen).items():
        assert_identical(x, right[of], of)


@each_entry
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # jvp's own
def test_no_forward_mode(name, device):
    """torch.func.jvp would be told that nothing depends on the input."""
    entry = ENTRIES[name]
    p = entry.problem(ROWS, VOCAB, 16, torch.float32, device=device)
    x = p.tensors["input"]
    with pytest.raises(RuntimeError, match="input must have no forward-mode tangent"):
        torch.func.jvp(lambda x: entry.ours(**p.with_(input=x).arguments()), (x,), (torch.ones_like(x),))
