"""Harmonic heads: probabilities from distances between a token's features and each class's centre.

p_v is proportional to (d_v^2 + eps)^(-exponent / 2), d_v = distance(input, weight_v); input [..., D], weight [V, D] in
float32, bfloat16 or float16 (float64 on a CPU), any strides; sums in float32 (float64).
"""

import math

import torch

from . import _arguments, _check, _distances
from ._harmonic_ops import LSE, SUM_Z
from .losses._rows import reduction_of

DISTANCES = ("euclidean", "cosine", "mahalanobis", "hamming")


def harmonic_loss(
    input,
    weight,
    target,
    *,
    distance="euclidean",
    exponent=None,
    eps=1e-6,
    floor=0.0,
    precision=None,
    precision_factor=None,
    threshold=0.5,
    temperature=0.1,
    label_smoothing=0.0,
    token_weight=None,
    ignore_index=-100,
    reduction="mean",
    tau=None,
    fill=True,
):
    """Harmonic loss, -log p_target, without the N x V distances.

    p_v = (d_v^2 + eps)^(-exponent / 2) / sum_u (d_u^2 + eps)^(-exponent / 2). The exponent is on the distance, and
    sqrt(D) where None; code published with the paper raises the squared distance to -n, which is exponent = 2 n here.
    With features as long as a final LayerNorm makes them, about sqrt(D), and centres much shorter, p is nearly uniform
    unless the exponent is of the order of D.

    distance           d(x, w)
    euclidean          |x - w|
    cosine             1 - x.w / (|x| |w|); a zero vector is at distance 1 from all, and has no gradient
    mahalanobis        |F^T (x - w)|: P = F F^T is precision [D, D], or its diagonal is exp(precision) for precision
                       [D], or F is precision_factor [D, R]; each may have a gradient
    hamming            in how many features bits differ, x > threshold; the gradient of a bit is that of
                       sigmoid((x - threshold) / temperature), straight through

    floor in [0, 1): the loss is -log((p_target + floor / V) / (1 + floor)), at most log((1 + floor) V / floor).
    label_smoothing e: -(1 - e) log p_target - e / V sum_v log p_v; not with a floor, nor with tau.
    target [...] int64 (ignore_index: no loss, no cost), token_weight [...]. Returns float32 (float64): a scalar, or
    [...] for reduction 'none'; 'mean' divides by the number of tokens not ignored, and is nan where all are. Gradients
    to input, weight, precision, precision_factor and token_weight.

    The target's distance is by differences, and other logits relative to it: near a centre nothing cancels that the
    loss is made of. Other distances come from a product, d^2 = |x|^2 + |w|^2 - 2 x.w: what cancels there is of the
    order of float32's rounding of |x|^2, and bfloat16 inputs themselves move log p by about exponent / 2 times the
    relative error of d^2. mahalanobis and hamming make points of the inputs' dtype, [N, R] and [V, R].

    tau, fill: a backward over live columns, as in linear_cross_entropy. Cost as linear_cross_entropy's. Errors:
    ValueError, TypeError on wrong shapes, dtypes, devices, options, a precision that is not positive definite and
    targets out of range (on a GPU those make nan, as there); RuntimeError on a second derivative.

    Sources: Baek, Liu, Tyagi, Tegmark 2025, Harmonic Loss Trains Interpretable AI Models, arXiv:2502.01628; other
    distances: Rethinking the Harmonic Loss via Non-Euclidean Distance Layers, arXiv:2603.10225.
    """
    op = "harmonic_loss"
    h = _arguments.head(op, input, weight, weight_name="weight")
    power = _power(op, h, exponent)
    _check.positive(op, "eps", eps)
    _check.number(op, "floor", floor, 0, 1, "a number in [0, 1)")
    _check.number(op, "label_smoothing", label_smoothing, 0, 1, "a number in [0, 1]")
    _check.reduction(op, reduction)
    tau = _check.tau(op, tau)
    for name, x in (("floor", floor), ("tau", tau)):
        if label_smoothing and x:
            raise ValueError(f"{op}: label_smoothing must be 0 with {name}, got {label_smoothing}")
    index, _ = _arguments.targets(op, h, weight.shape[0], target, None, ignore_index, 0.0)
    points = _points(op, h, distance, precision, precision_factor, threshold, temperature)
    active = index[:, 0] >= 0
    head = (*points[1:], *_distances.product_terms(points, index, eps), index, active, points.kind, power)
    needs = [torch.is_grad_enabled() and x.requires_grad for x in points[1:]]
    per_token = token_weight is not None and torch.is_grad_enabled() and token_weight.requires_grad
    if h.input.device.type == "cpu" and reduction != "none" and not (floor or (tau and any(needs)) or per_token):
        by_row = active.to(h.acc)
        if reduction == "mean":
            by_row = by_row / by_row.sum()
        if token_weight is not None:
            _check.floats(op, "token_weight", token_weight, h.shape, h.input)
            by_row = by_row * torch.where(active, token_weight.reshape(-1).to(h.acc), 0)
        dense = [-label_smoothing / max(weight.shape[0], 1) * by_row] * bool(label_smoothing)
        coefs = torch.stack([by_row, torch.zeros_like(by_row), *dense])
        pick = (1 - label_smoothing) * by_row[:, None]
        loss = torch.ops.lossk.harmonic_forward(*head, coefs, pick, needs)[0]
        return torch.where(active.any(), loss, torch.nan) if reduction == "mean" else loss
    stats, _ = torch.ops.lossk.harmonic_stats(*head, bool(label_smoothing), tau if any(needs) else 0.0, bool(fill))
    loss = stats[LSE]
    if label_smoothing:
        loss = loss - label_smoothing / max(weight.shape[0], 1) * stats[SUM_Z]
    if floor:
        p = torch.exp(-loss)
        loss = math.log1p(floor) - torch.log(p + floor / weight.shape[0])
    return reduction_of(op, loss, active, h, token_weight, reduction)


def harmonic_logits(
    input, weight, *, distance="euclidean", exponent=None, eps=1e-6, precision=None, precision_factor=None,
    threshold=0.5, temperature=0.1,
):  # fmt: skip
    """z_v = -exponent / 2 log(d_v^2 + eps), [..., V] in float32 (float64): their softmax is the p of harmonic_loss.

    For inference and generation: all of them are in memory, and differentiable by torch.
    """
    op = "harmonic_logits"
    h = _arguments.head(op, input, weight, weight_name="weight")
    power = _power(op, h, exponent)
    _check.positive(op, "eps", eps)
    points = _points(op, h, distance, precision, precision_factor, threshold, temperature)
    return (-power * torch.log(_distances.squared(points, h.acc) + eps)).view(*h.shape, weight.shape[0])


def _power(op, h, exponent):
    if exponent is None:
        exponent = math.sqrt(max(h.input.shape[1], 1))
    _check.positive(op, "exponent", exponent)
    return exponent / 2


def _points(op, h, distance, precision, precision_factor, threshold, temperature):
    if distance not in DISTANCES:
        raise ValueError(f"{op}: distance must be one of {list(DISTANCES)}, got {distance!r}")
    if distance != "mahalanobis":
        for name, x in (("precision", precision), ("precision_factor", precision_factor)):
            if x is not None:
                raise ValueError(f"{op}: {name} must be None but for mahalanobis, got it with {distance}")
    if distance == "mahalanobis":
        return _distances.mahalanobis(op, h, precision, precision_factor)
    if distance == "hamming":
        _check.number(op, "threshold", threshold)
        _check.positive(op, "temperature", temperature)
        return _distances.hamming(h, threshold, temperature)
    return _distances.Points(distance, h.input, h.linear_weight)
