"""Distances as the ops of a harmonic head take them: points moved to where the distance is one of theirs."""

from typing import NamedTuple

import torch

from . import _check
from ._head_ops import acc_dtype

BY_PRODUCT = ("euclidean", "hamming", "cosine")  # kinds of cpp/head/distance.h
_CHUNK_ELEMENTS = 1 << 22  # of a matrix, widened at a time


class Points(NamedTuple):
    """What an op compares: its kind, and both sets of points, flattened rows and [V, D']."""

    kind: str
    input: torch.Tensor
    weight: torch.Tensor


def _rows_at_a_time(x):
    """Slices of a few rows that are widened together; all at once while a graph is traced, which fuses what follows."""
    if torch.compiler.is_compiling():
        yield slice(None)
        return
    step = max(_CHUNK_ELEMENTS // max(x.shape[1], 1), 1)
    for first in range(0, max(x.shape[0], 1), step):
        yield slice(first, first + step)


def _each_row(function, *matrices):
    """function of a few rows of each, widened -> [rows]: [N]. Contiguous, so that sums have one order."""
    widened = lambda x, at: x[at].to(acc_dtype(x)).contiguous()  # noqa: E731
    return torch.cat([function(*(widened(x, at) for x in matrices)) for at in _rows_at_a_time(matrices[0])])


def squared_norms(x):
    return _each_row(lambda rows: rows.square().sum(1), x)


@torch.no_grad()
def product_terms(points, index, eps):
    """rows [4, N] and columns [V] of the harmonic ops: norms of the values that the product reads, and the target's
    distance by differences. index [N, 1]: the target, -1 for none."""
    kind, input, weight = points
    acc, vocab = acc_dtype(input), weight.shape[0]
    y = index[:, 0]
    target = weight[y.clamp(0, max(vocab - 1, 0))] if vocab else torch.zeros_like(input)
    x2, w2 = squared_norms(input), squared_norms(weight)
    if kind == "cosine":
        x, w = x2.sqrt(), w2.sqrt()
        unit = lambda a: a / torch.where(a == 0, 1, a.square().sum(1, keepdim=True).sqrt())  # noqa: E731
        apart = _each_row(lambda a, b: (unit(a) - unit(b)).square().sum(1) / 2, input, target)
        zero = (x == 0) | (_each_row(lambda b: b.square().sum(1), target) == 0)
        apart = torch.where(zero, 1, apart)  # a vector without direction has cosine 0 with all
        offset, columns = torch.where(x == 0, 1, x), torch.where(w == 0, 0, 1 / w)
        by = 1 / offset
    else:
        apart = _each_row(lambda a, b: (a - b).square().sum(1), input, target)
        offset, columns, by = x2 / 2, w2 / 2, torch.full_like(x2, 2.0)
    if kind == "euclidean":
        reference = apart + eps
        scale, at_target = by / reference, apart / reference
    else:
        reference = apart.square() + eps
        scale, at_target = by / reference.sqrt(), apart / reference.sqrt()
    least = torch.finfo(acc).tiny
    rows = torch.stack([scale, offset, (eps / reference).clamp(min=least), at_target])
    # A target outside the vocabulary, which a GPU does not look for, must show.
    return torch.where(y < vocab, torch.where(y >= 0, rows, 1), torch.nan), columns


# ---- Mahalanobis -----------------------------------------------------------------------------------------------------


class _Transformed(torch.autograd.Function):
    """points factor (a matrix, or a diagonal), in the points' dtype with sums in float32 (float64), a few rows at a
    time."""

    @staticmethod
    def forward(ctx, points, factor):
        ctx.save_for_backward(points, factor)
        by = torch.matmul if factor.dim() == 2 else torch.mul
        return torch.cat([by(points[at].to(factor.dtype), factor).to(points.dtype) for at in _rows_at_a_time(points)])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        points, factor = ctx.saved_tensors
        wanted, grad_points, grad_factor = ctx.needs_input_grad, [], torch.zeros_like(factor)
        for at in _rows_at_a_time(points):
            g = grad[at].to(factor.dtype)
            if wanted[0]:
                grad_points.append((g @ factor.mT if factor.dim() == 2 else g * factor).to(points.dtype))
            if wanted[1]:
                x = points[at].to(factor.dtype)
                grad_factor += x.mT @ g if factor.dim() == 2 else (x * g).sum(0)
        return torch.cat(grad_points) if wanted[0] else None, grad_factor if wanted[1] else None


def _factor_of(op, h, precision, precision_factor):
    """F with P = F F^T, [D, R], or its diagonal [D]."""
    dim = h.input.shape[1]
    if (precision is None) == (precision_factor is None):
        raise ValueError(f"{op}: exactly one of precision and precision_factor must be given for mahalanobis")
    if precision_factor is not None:
        _check.tensor(op, "precision_factor", precision_factor)
        width = precision_factor.shape[-1] if precision_factor.dim() else 0
        _check.floats(op, "precision_factor", precision_factor, (dim, width), h.input)
        return precision_factor.to(h.acc)
    _check.tensor(op, "precision", precision)
    if precision.dim() == 1:
        _check.floats(op, "precision", precision, (dim,), h.input)
        return (precision.to(h.acc) / 2).exp()
    _check.floats(op, "precision", precision, (dim, dim), h.input)
    whole = precision.to(h.acc)
    factor, failed = torch.linalg.cholesky_ex((whole + whole.mT) / 2)
    _check.none_failed(op, "precision", "a positive definite matrix", failed)
    return torch.where(failed == 0, factor, torch.nan)  # on a GPU nobody has looked


def mahalanobis(op, h, precision, precision_factor):
    factor = _factor_of(op, h, precision, precision_factor)
    return Points("euclidean", *(_Transformed.apply(x, factor) for x in (h.input, h.linear_weight)))


# ---- hard Hamming ----------------------------------------------------------------------------------------------------


class _Bits(torch.autograd.Function):
    """1 where x > threshold, else 0; the gradient is that of sigmoid((x - threshold) / temperature).

    Halved: of a - b = +-1 between bits |a - b| has the derivative a - b, the op's (a - b)^2 twice that.
    """

    @staticmethod
    def forward(ctx, x, threshold, temperature):
        ctx.save_for_backward(x)
        ctx.threshold, ctx.temperature = threshold, temperature
        return (x > threshold).to(x.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        s = torch.sigmoid((x.to(acc_dtype(x)) - ctx.threshold) / ctx.temperature)
        return (grad * (s * (1 - s) / (2 * ctx.temperature))).to(x.dtype), None, None


def hamming(h, threshold, temperature):
    return Points("hamming", *(_Bits.apply(x, threshold, temperature) for x in (h.input, h.linear_weight)))


# ---- in memory -------------------------------------------------------------------------------------------------------


def squared(points, acc):
    """d^2, [N, V] in float32 (float64), a few columns at a time."""
    x = points.input.to(acc)
    return torch.cat([_squared(points.kind, x, points.weight[at].to(acc)) for at in _rows_at_a_time(points.weight)], 1)


def _squared(kind, x, w):
    if kind == "cosine":
        unit = lambda a: a / torch.where(a == 0, 1, a.square().sum(1, keepdim=True)).sqrt()  # noqa: E731
        return (1 - unit(x) @ unit(w).mT).clamp(min=0).square()
    d = (x.square().sum(1)[:, None] + w.square().sum(1) - 2 * (x @ w.mT)).clamp(min=0)
    return d if kind == "euclidean" else d.square()
