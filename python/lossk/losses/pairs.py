"""Losses of pairs of logits, which have no normaliser: each other class against the target."""

import inspect
import math

import torch
import torch.nn.functional as F

from .. import _check
from .._compare_ops import pairwise_sums
from .._head_ops import STATS
from ..stats import statistics
from ._cosine import cosine_rows, positive, softplus
from ._rows import reduction_of

__all__ = ["mw", "psl"]

COMMON = """
    z = softcap(scale (x . w_v + linear_bias)), x and w_v divided by their length where `normalize` says so, as in
    lossk.losses.margins. input [..., D], linear_weight [V, D], target [...] int64 (ignore_index: no loss, no cost),
    linear_bias [V], token_weight [...], scale a number > 0 or a tensor [] or [...]. Returns, gradients and errors as
    lossk.losses.cosface; for logits as they are see lossk.linear_pairwise.
"""


def mw(
    input, linear_weight, target, *, normalize=True, linear_bias=None, token_weight=None, softcap=None, scale=20.0,
    ignore_index=-100, reduction="mean",
):  # fmt: skip
    """Mann-Whitney loss, an upper bound of 1 - AUC: is the target ahead of this class, asked for each of the others.

    sum_{v != y} log(1 + e^(z_v - z_y)) / (V - 1): a token's positive against its own negatives (the paper also sets it
    against the other queries' negatives). 0 for a single class. One product forward.
    Source: Sheikholeslami et al. 2025, Optimizing What Matters: AUC-Driven Learning for Robust Neural Retrieval,
    arXiv:2510.00137.
    """
    op = "mw"
    scale = positive(op, "scale", scale, input)
    rows = cosine_rows(op, input, linear_weight, target, linear_bias, scale, softcap, None, ignore_index, normalize)
    return reduction_of(op, mw_of(rows), rows.active, rows.head, token_weight, reduction)


def psl(
    input, linear_weight, target, *, activation="tanh", temperature=0.2, normalize=True, linear_bias=None,
    token_weight=None, softcap=None, scale=0.5, ignore_index=-100, reduction="mean",
):  # fmt: skip
    """Pairwise softmax loss: softmax whose exponential gives way to an activation that grows less, so that a false
    negative does not rule the loss.

    log sum_{v != y} f(z_v - z_y)^(1 / temperature), f(d) = 1 + tanh d ('tanh') or max(0, 1 + d) ('relu'; where all
    are 0 the loss is the logarithm of the smallest normal number, without a gradient). V > 1. The default scale 0.5
    keeps d in [-1, 1], where f bounds DCG. Two products forward, the first without a gradient.
    Source: Yang et al. 2024, PSL: Rethinking and Improving Softmax Loss from Pairwise Perspective for Recommendation,
    arXiv:2411.00163.
    """
    op = "psl"
    scale = positive(op, "scale", scale, input)
    rows = cosine_rows(op, input, linear_weight, target, linear_bias, scale, softcap, None, ignore_index, normalize)
    loss = psl_of(rows, activation, temperature)
    return reduction_of(op, loss, rows.active, rows.head, token_weight, reduction)


for _loss in (mw, psl):
    _loss.__doc__ = f"{inspect.cleandoc(_loss.__doc__)}\n\n{inspect.cleandoc(COMMON)}"


# ---- the formulas, of rows: [N] --------------------------------------------------------------------------------------


def sigmoid_of(rows, bias):
    """sum_v log(1 + e^(-s_v (z_v + bias))), s_v = 1 at the target, else -1."""
    if isinstance(bias, torch.Tensor):
        _check.floats(rows.op, "bias", bias, (), rows.head.input)
    else:
        _check.number(rows.op, "bias", bias, expected="a finite number or a Tensor")
    offset = rows.head.input.new_zeros(rows.index.shape[0], dtype=rows.head.acc) - bias
    return _of_others(rows, offset, "softplus") + softplus(offset - rows.logit())


def mw_of(rows):
    """sum_{v != y} log(1 + e^(z_v - z_y)) / (V - 1)."""
    return _of_others(rows, rows.logit(), "softplus") / max(rows.vocab - 1, 1)


def hinge_of(rows, margin):
    """sum_{v != y} max(0, margin + z_v - z_y) / V."""
    _check.number(rows.op, "margin", margin)
    return _of_others(rows, rows.logit(), "hinge", beta=margin) / max(rows.vocab, 1)


def psl_of(rows, activation, temperature):
    """log sum_{v != y} f(z_v - z_y)^(1 / temperature)."""
    op = rows.op
    _check.positive(op, "temperature", temperature)
    if activation not in ("tanh", "relu"):
        raise ValueError(f"{op}: activation must be 'tanh' or 'relu', got {activation!r}")
    if activation == "relu" and temperature > 1:
        raise ValueError(f"{op}: temperature must be at most 1 for 'relu', whose slope has no bound, got {temperature}")
    if rows.vocab < 2:
        raise ValueError(f"{op}: linear_weight must have 2 rows or more, for a negative, got {rows.vocab}")
    z = rows.logit()
    with torch.no_grad():
        ahead = rows.or_even(_largest_other(rows) - z, 0.0)
        if activation == "tanh":
            shift = math.log(2) - F.softplus(-2 * ahead, threshold=40.0)
        else:
            shift = torch.where(ahead > -1, 1 + ahead, 1).log()
    sums = _of_others(rows, z, f"psl_{activation}", beta=temperature, shift=shift)
    sums = rows.or_even(sums, 1.0).clamp(min=torch.finfo(sums.dtype).tiny)
    return sums.log() + shift / temperature


def _of_others(rows, offset, kind, **how):
    """The sum over v != y of a kind's function of z_v - offset."""
    sums = pairwise_sums(rows.head, offset, rows.index[:, 0].contiguous(), rows.active, kind=kind, **how)
    return rows.or_even(sums, 0.0)


def _largest_other(rows):
    """max_{v != y} z_v: the largest logit of a head whose target has been pushed out of the way."""
    stats = statistics(rows.op, rows.head, rows.index, None, rows.active, full=True, margin=1e30)[0]
    return stats[STATS.index("max")]
