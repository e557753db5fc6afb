"""Margins: a target that has to be ahead by some angle, of heads whose logits are cosines."""

import math

import torch

from .. import _check
from ._cosine import against_others, cosine_rows, positive
from ._rows import loss_of_formula, reduction_of

__all__ = ["adaface", "arcface", "cosface"]

COMMON = """
    Logits are scale c_v, c_v the cosine of the input and row v of the weight; both are divided by their length, taken
    in float32, and rounded to their dtype. There is no bias.
    input [..., D], linear_weight [V, D], target [...] int64 (ignore_index: no loss, no cost), token_weight [...] (a
    factor of each token's loss), scale a number > 0 or a tensor [] or [...] with a gradient, tau as in
    lossk.linear_stats. Returns float32 (float64 for float64 inputs): a scalar, or [...] for reduction 'none'; 'mean'
    divides by the number of tokens not ignored, and is nan where all are. Gradients to input, linear_weight, scale and
    token_weight. Errors as lossk.linear_cross_entropy. One product forward, three backward.
    """

LEAST_SINE = 1e-3  # of the target's angle: the derivative of an angle by its cosine has no bound


def cosine_loss(formula):
    """formula(rows, **own) -> [N] as a loss of (input, linear_weight, target, **own, and what all of them take)."""
    op = formula.__name__

    def loss(
        input, linear_weight, target, *, token_weight=None, scale=64.0, tau=None, ignore_index=-100, reduction="mean",
        **own,
    ):  # fmt: skip
        scale = positive(op, "scale", scale, input)
        rows = cosine_rows(op, input, linear_weight, target, None, scale, None, tau, ignore_index)
        return reduction_of(op, formula(rows, **own), rows.active, rows.head, token_weight, reduction)

    return loss_of_formula(loss, formula, COMMON)


@cosine_loss
def cosface(rows, m=0.4):
    """CosFace: cross-entropy whose target has the logit scale (c_y - m).

    Source: Wang et al. 2018, CosFace: Large Margin Cosine Loss for Deep Face Recognition, arXiv:1801.09414, section
    3.1.
    """
    return against_others(rows, cosface_target(rows.op, m))


@cosine_loss
def arcface(rows, m=0.5):
    """ArcFace: cross-entropy whose target has the logit scale cos(theta + m), theta = arccos c_y.

    Past theta + m = pi, where that would rise again, c_y - m sin m, as the authors' code. m in [0, pi], in radians. The
    derivative by c_y is exact, sin(theta + m) / sin(theta), and cos m where sin(theta) < 1e-3.
    Source: Deng et al. 2018, ArcFace: Additive Angular Margin Loss for Deep Face Recognition, arXiv:1801.07698,
    section 3.1.
    """
    return against_others(rows, arcface_target(rows.op, m))


def cosface_target(op, m):
    _check.number(op, "m", m)
    return lambda c: c - m


def arcface_target(op, m):
    _check.number(op, "m", m, 0, math.pi, "a number in [0, pi]")

    def change(c):
        sine = ((1 - c) * (1 + c)).clamp(min=LEAST_SINE**2).sqrt()
        return torch.where(c > -math.cos(m), c * math.cos(m) - sine * math.sin(m), c - m * math.sin(m))

    return change


@cosine_loss
def adaface(rows, m=0.4, h=0.333, norm_mean=None, norm_std=None):
    """AdaFace: a margin that asks more of samples whose features are long, which are those of good images.

    The target's logit is scale (cos(theta - m q) - m - m q), q = h (|x| - norm_mean) / (norm_std + 1e-3) clipped to
    [-1, 1], |x| the input's length, clipped to [1e-3, 100]; q has no gradient. theta = arccos c_y, and theta - m q are
    clipped to [1e-3, pi - 1e-3], where they have no gradient beyond (the authors clip the other cosines to 1 - 1e-3
    too).

    norm_mean, norm_std: numbers, or tensors [], such as running averages, which are the caller's to keep; None: of
    this batch's tokens that are not ignored.
    Source: Kim et al. 2022, AdaFace: Quality Adaptive Margin for Face Recognition, arXiv:2204.00964, section 3.3.
    """
    op = rows.op
    for name, x in (("m", m), ("h", h)):
        _check.number(op, name, x)
    for name, x in (("norm_mean", norm_mean), ("norm_std", norm_std)):
        if isinstance(x, torch.Tensor):
            _check.floats(op, name, x, (), rows.head.input)
        elif x is not None:
            _check.number(op, name, x, expected="None, a finite number or a Tensor")
    with torch.no_grad():
        length = torch.linalg.vector_norm(rows.features.to(rows.head.acc), dim=-1).clamp(1e-3, 100)
        count = rows.active.sum()
        if norm_mean is None:
            norm_mean = rows.or_even(length, 0.0).sum() / count
        if norm_std is None:
            mean = rows.or_even(length, 0.0).sum() / count
            norm_std = (rows.or_even(length - mean, 0.0).square().sum() / (count - 1).clamp(min=1)).sqrt()
        angle = -m * rows.or_even(h * (length - norm_mean) / (norm_std + 1e-3), 0.0).clamp(-1, 1)

    def change(c):
        theta = c.clamp(LEAST_SINE - 1, 1 - LEAST_SINE).acos()
        return (theta + angle).clamp(LEAST_SINE, math.pi - LEAST_SINE).cos() - (m - angle)

    return against_others(rows, change)
