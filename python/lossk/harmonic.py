"""Harmonic heads: probabilities from distances between a token's features and each class's centre.

p_v is proportional to (d_v^2 + eps)^(-exponent / 2), d_v = distance(input, weight_v); input [..., D], weight [V, D] in
float32, bfloat16 or float16 (float64 on a CPU), any strides; sums in float32 (float64).
"""

import math

import torch

from . import _arguments, _check, _distances, _harmonic_ops
from .losses._rows import reduction_of

DISTANCES = _distances.DISTANCES


def harmonic_loss(
    input,
    weight,
    target,
    *,
    distance="euclidean",
    exponent=None,
    eps=1e-6,
    floor=0.0,
    p=2.0,
    variant=None,
    sharpness=10.0,
    least=None,
    weight_power=1.0,
    precision=None,
    precision_factor=None,
    threshold=0.5,
    temperature=None,
    generator=None,
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

    distance           d(x, w), delta = x - w, and its options
    euclidean          |delta|
    cosine             1 - x.w / (|x| |w|); a zero vector is at distance 1 from all, and has no gradient
    mahalanobis        |F^T delta|: P = F F^T is precision [D, D], or its diagonal is exp(precision) for precision [D],
                       or F is precision_factor [D, R]; each may have a gradient
    manhattan          sum |delta|
    chebyshev          max |delta|, with its gradient to the first that is
    smooth_chebyshev   log(sum exp(s |delta|)) / s, s = sharpness = 10
    minkowski          (sum |delta|^p)^(1/p), p > 0; where p < 1 an infinite slope counts as 0
    canberra           sum |delta| / (|x| + |w| + e), e = least = 1e-4; variant "robust": / max(|x| + |w|, e);
                       "weighted": sum |delta| s^(q-1) / sum s^q, s = |x| + |w| + 1e-4, q = weight_power = 1
    bray_curtis        sum |delta| / (sum |x| + sum |w| + e), e = least = 1e-3; variant "standard": / max(|sum x +
                       sum w| + e, 10 e), unsafe for features of both signs; "normalized": x, w -> (|x| + e) / sum first
    hamming            manhattan of sigmoid(x / T), T = temperature = 1; variant "gumbel": with logistic noise on x and
                       w, from generator, not under torch.compile; "hard": in how many features bits differ, x >
                       threshold = 0.5, with the gradient of sigmoid((x - threshold) / T), T = 0.1, straight through

    floor in [0, 1]: the loss is -log((p_target + floor / V) / (1 + floor)), at most log((1 + floor) V / floor).
    label_smoothing e: -(1 - e) log p_target - e / V sum_v log p_v; not with a floor, nor with tau.
    target [...] int64 (ignore_index: no loss, no cost), token_weight [...]. Returns float32 (float64): a scalar, or
    [...] for reduction 'none'; 'mean' divides by the number of tokens not ignored, and is nan where all are. Gradients
    to input, weight, precision, precision_factor and token_weight.

    The target's distance is by differences, and other logits relative to it: near a centre nothing cancels that the
    loss is made of. Other distances come from a product, d^2 = |x|^2 + |w|^2 - 2 x.w: what cancels there is of the
    order of float32's rounding of |x|^2, and bfloat16 inputs themselves move log p by about exponent / 2 times the
    relative error of d^2. mahalanobis and hard hamming make points of the inputs' dtype, [N, R] and [V, R]; soft
    hamming and normalized bray_curtis of float32.

    Cost as linear_cross_entropy's for euclidean, cosine, mahalanobis and hard hamming, with tau and fill as there: a
    backward over live columns. No product gives the others: N V D elements are compared one by one, 10 operations each
    for manhattan, forward and backward, and more for the rest; no tau. Memory is O(N + V) beside those points. Errors:
    ValueError, TypeError on wrong shapes, dtypes, devices, options, a precision that is not positive definite and
    targets out of range (on a GPU those make nan, as there); RuntimeError on a second derivative.

    Sources: Baek, Liu, Tyagi, Tegmark 2025, Harmonic Loss Trains Interpretable AI Models, arXiv:2502.01628; other
    distances: Rethinking the Harmonic Loss via Non-Euclidean Distance Layers, arXiv:2603.10225.
    """
    op = "harmonic_loss"
    metric = dict(
        p=p, variant=variant, sharpness=sharpness, least=least, weight_power=weight_power, precision=precision,
        precision_factor=precision_factor, threshold=threshold, temperature=temperature, generator=generator,
    )  # fmt: skip
    h = _arguments.head(op, input, weight, weight_name="weight")
    power = _power(op, h, exponent)
    _check.positive(op, "eps", eps)
    _check.number(op, "floor", floor, 0, 1, "a number in [0, 1]")
    _check.number(op, "label_smoothing", label_smoothing, 0, 1, "a number in [0, 1]")
    _check.reduction(op, reduction)
    tau = _check.tau(op, tau)
    for name, x in (("floor", floor), ("tau", tau)):
        if label_smoothing and x:
            raise ValueError(f"{op}: label_smoothing must be 0 with {name}, got {label_smoothing}")
    index, _ = _arguments.targets(op, h, weight.shape[0], target, None, ignore_index, 0.0)
    points = _distances.points_of(op, h, distance, **metric)
    if tau and not points.by_product:
        raise ValueError(f"{op}: tau must be None for {distance}, which no product gives, got {tau}")
    active = index[:, 0] >= 0
    if points.by_product:
        head = (*points[1:3], *_distances.product_terms(points, index, eps), index, active, points.kind, power)
        needs = [torch.is_grad_enabled() and x.requires_grad for x in points[1:3]]
        per_token = token_weight is not None and torch.is_grad_enabled() and token_weight.requires_grad
        if h.input.device.type == "cpu" and reduction != "none" and not (floor or (tau and any(needs)) or per_token):
            return _fused(op, h, head, active, needs, token_weight, label_smoothing, reduction)
        stats, _ = torch.ops.lossk.harmonic_stats(*head, bool(label_smoothing), tau if any(needs) else 0.0, bool(fill))
        lse, sum_z = stats[_harmonic_ops.LSE], stats[_harmonic_ops.SUM_Z]
    else:
        lse, sum_z, *_ = torch.ops.lossk.elementwise_stats(
            *points[1:3], index[:, 0], active, *points[4:], points.kind, points.p, power, float(eps)
        )
    loss = lse
    if label_smoothing:
        loss = loss - label_smoothing / max(weight.shape[0], 1) * sum_z
    if floor:
        loss = math.log1p(floor) - torch.log(torch.exp(-loss) + floor / weight.shape[0])
    return reduction_of(op, loss, active, h, token_weight, reduction)


def _fused(op, h, head, active, needs, token_weight, label_smoothing, reduction):
    """The loss and its gradients in one call."""
    by_row = active.to(h.acc)
    if reduction == "mean":
        by_row = by_row / by_row.sum()
    if token_weight is not None:
        _check.floats(op, "token_weight", token_weight, h.shape, h.input)
        by_row = by_row * torch.where(active, token_weight.reshape(-1).to(h.acc), 0)
    dense = [-label_smoothing / max(head[1].shape[0], 1) * by_row] if label_smoothing else []
    coefs = torch.stack([by_row, torch.zeros_like(by_row), *dense])
    pick = (1 - label_smoothing) * by_row[:, None]
    loss = torch.ops.lossk.harmonic_forward(*head, coefs, pick, needs)[0]
    return torch.where(active.any(), loss, torch.nan) if reduction == "mean" else loss


def harmonic_logits(
    input, weight, *, distance="euclidean", exponent=None, eps=1e-6, p=2.0, variant=None, sharpness=10.0, least=None,
    weight_power=1.0, precision=None, precision_factor=None, threshold=0.5, temperature=None, generator=None,
):  # fmt: skip
    """z_v = -exponent / 2 log(d_v^2 + eps), [..., V] in float32 (float64): their softmax is the p of harmonic_loss.

    For inference and generation: all of them are in memory, and differentiable by torch. Arguments as harmonic_loss.
    """
    op = "harmonic_logits"
    metric = dict(
        p=p, variant=variant, sharpness=sharpness, least=least, weight_power=weight_power, precision=precision,
        precision_factor=precision_factor, threshold=threshold, temperature=temperature, generator=generator,
    )  # fmt: skip
    h = _arguments.head(op, input, weight, weight_name="weight")
    power = _power(op, h, exponent)
    _check.positive(op, "eps", eps)
    points = _distances.points_of(op, h, distance, **metric)
    return (-power * torch.log(_distances.squared(points, h.acc) + eps)).view(*h.shape, weight.shape[0])


def _power(op, h, exponent):
    if exponent is None:
        exponent = math.sqrt(max(h.input.shape[1], 1))
    _check.positive(op, "exponent", exponent)
    return exponent / 2
