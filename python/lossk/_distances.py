"""Distances as the ops of a harmonic head take them: points moved to where the distance is one of theirs."""

from typing import NamedTuple

import torch
import torch.nn.functional as F

from . import _check
from ._head_ops import acc_dtype
from .reference import elementwise

BY_PRODUCT = ("euclidean", "hamming", "cosine")  # kinds of cpp/head/distance.h
_CHUNK_ELEMENTS = 1 << 22  # of a matrix, widened at a time
_CACHED_ELEMENTS = 1 << 17  # the same on a CPU, where what the cache holds costs no new pages


class Points(NamedTuple):
    """What an op compares: its kind, both sets of points, flattened rows and [V, D'], and what elementwise kinds
    take."""

    kind: str
    input: torch.Tensor
    weight: torch.Tensor
    p: float = 1.0
    row_term: torch.Tensor | None = None  # [N]
    column_term: torch.Tensor | None = None  # [V]

    @property
    def by_product(self):
        return self.kind in BY_PRODUCT


def _rows_at_a_time(x, elements=_CHUNK_ELEMENTS):
    """Slices of a few rows that are widened together; all at once while a graph is traced, which fuses what follows."""
    if torch.compiler.is_compiling():
        yield slice(None)
        return
    step = max(elements // max(x.shape[1], 1), 1)
    for first in range(0, max(x.shape[0], 1), step):
        yield slice(first, first + step)


def _each_row(function, *matrices):
    """function of a few rows of each, widened -> [rows]: [N]. Contiguous, so that sums have one order."""
    widened = lambda x, at: x[at].to(acc_dtype(x)).contiguous()  # noqa: E731
    elements = _CACHED_ELEMENTS if matrices[0].device.type == "cpu" else _CHUNK_ELEMENTS
    return torch.cat([function(*(widened(x, at) for x in matrices)) for at in _rows_at_a_time(matrices[0], elements)])


def _row_sums(x):
    """[rows, D] -> [rows]. Trap: on a GPU the order of torch's own depends on how many rows there are, but not of 32
    numbers, one for each thread of a warp."""
    while x.is_cuda and x.shape[1] > 32:
        x = F.pad(x, (0, -x.shape[1] % 32)).unflatten(1, (-1, 32)).sum(2)
    return x.sum(1)


def _squared_norms(x):
    return _each_row(lambda rows: _row_sums(rows.square()), x)


def _unit(rows):
    """Rows of length 1; a zero vector stays, and its gradient is finite: the root is never taken of its 0."""
    return rows / torch.where(rows == 0, 1, _row_sums(rows.square())[:, None]).sqrt()


@torch.no_grad()
def product_terms(points, index, eps):
    """rows [4, N] and columns [V] of the harmonic ops: norms of the values that the product reads, and the target's
    distance by differences. index [N, 1]: the target, -1 for none."""
    kind, input, weight = points[:3]
    acc, vocab = acc_dtype(input), weight.shape[0]
    y = index[:, 0]
    target = weight[y.clamp(0, max(vocab - 1, 0))] if vocab else torch.zeros_like(input)
    x2, w2 = _squared_norms(input), _squared_norms(weight)
    if kind == "cosine":
        x, w = x2.sqrt(), w2.sqrt()
        apart = _each_row(lambda a, b: _row_sums((_unit(a) - _unit(b)).square()) / 2, input, target)
        zero = (x == 0) | (_squared_norms(target) == 0)
        apart = torch.where(zero, 1, apart)  # a vector without direction has cosine 0 with all
        offset, columns = torch.where(x == 0, 1, x), torch.where(w == 0, 0, 1 / w)
        by = 1 / offset
    else:
        apart = _each_row(lambda a, b: _row_sums((a - b).square()), input, target)
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


# ---- points that are moved first -------------------------------------------------------------------------------------


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


class _Mapped(torch.autograd.Function):
    """function of each point, in float32 (float64); made again for the gradient, a few rows at a time."""

    @staticmethod
    def forward(ctx, points, function):
        ctx.save_for_backward(points)
        ctx.function = function
        return torch.cat([function(points[at].to(acc_dtype(points)), at) for at in _rows_at_a_time(points)])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        (points,) = ctx.saved_tensors
        grads = []
        for at in _rows_at_a_time(points):
            with torch.enable_grad():
                x = points[at].to(acc_dtype(points)).detach().requires_grad_()
                (g,) = torch.autograd.grad(ctx.function(x, at), x, grad[at])
            grads.append(g.to(points.dtype))
        return torch.cat(grads), None


def _mapped(points, function):
    if torch.compiler.is_compiling():
        return function(points.to(acc_dtype(points)), slice(None))
    return _Mapped.apply(points, function)


# ---- what a distance's name and options make of the points -----------------------------------------------------------

VARIANTS = {
    "canberra": ("standard", "robust", "weighted"),
    "bray_curtis": ("abs", "standard", "normalized"),
    "hamming": ("soft", "gumbel", "hard"),
}
LEAST = {"canberra": 1e-4, "bray_curtis": 1e-3}  # of denominators
DISTANCES = (
    "euclidean", "cosine", "mahalanobis", "manhattan", "chebyshev", "smooth_chebyshev", "minkowski", "canberra",
    "bray_curtis", "hamming",
)  # fmt: skip


def points_of(
    op, h, distance, *, p=2.0, variant=None, sharpness=10.0, least=None, weight_power=1.0, precision=None,
    precision_factor=None, threshold=0.5, temperature=None, generator=None,
):  # fmt: skip
    """The points of a checked _arguments.Head; options as harmonic_loss has them."""
    if distance not in DISTANCES:
        raise ValueError(f"{op}: distance must be one of {list(DISTANCES)}, got {distance!r}")
    _allow(op, distance, variant, precision, precision_factor, least)
    both = (h.input, h.linear_weight)
    if distance == "mahalanobis":
        factor = _factor_of(op, h, precision, precision_factor)
        return Points("euclidean", *(_Transformed.apply(x, factor) for x in both))
    if distance == "minkowski":
        _check.positive(op, "p", p)
        kind = {1: "manhattan", 2: "euclidean"}.get(p, "minkowski")
        return Points(kind, *both, p=float(p))
    if distance == "smooth_chebyshev":
        _check.positive(op, "sharpness", sharpness)
        return Points(distance, *both, p=float(sharpness))
    if distance == "canberra":
        _check.number(op, "weight_power", weight_power)
        kind = {"standard": "canberra"}.get(variant or "standard", f"canberra_{variant}")
        return Points(kind, *both, p=float(weight_power if variant == "weighted" else _least(op, distance, least)))
    if distance == "bray_curtis":
        return _bray_curtis(variant or "abs", both, _least(op, distance, least))
    if distance == "hamming":
        variant = variant or "soft"
        temperature = (0.1 if variant == "hard" else 1.0) if temperature is None else temperature
        _check.positive(op, "temperature", temperature)
        _check.number(op, "threshold", threshold)
        if variant == "hard":
            return Points("hamming", *(_Bits.apply(x, threshold, temperature) for x in both))
        return Points("manhattan", *(_soft_bits(x, temperature, variant == "gumbel", generator) for x in both))
    return Points(distance, *both)


def _allow(op, distance, variant, precision, precision_factor, least):
    if variant is not None and variant not in VARIANTS.get(distance, ()):
        allowed = [None, *VARIANTS.get(distance, ())]
        raise ValueError(f"{op}: variant must be one of {allowed} for {distance}, got {variant!r}")
    for name, x, of in (
        ("precision", precision, ("mahalanobis",)),
        ("precision_factor", precision_factor, ("mahalanobis",)),
        ("least", least, tuple(LEAST)),
    ):
        if x is not None and distance not in of:
            raise ValueError(f"{op}: {name} must be None but for {' and '.join(of)}, got it with {distance}")


def _least(op, distance, least):
    least = LEAST[distance] if least is None else least
    _check.positive(op, "least", least)
    return least


def _bray_curtis(variant, both, least):
    if variant == "normalized":  # sums of both are 1: their denominator is 2 + least

        def normalized(x, _):
            x = x.abs() + least
            return x / _row_sums(x)[:, None] / (2 + least)

        return Points("manhattan", *(_mapped(x, normalized) for x in both))
    if variant == "abs":
        sums = [_mapped(x, lambda rows, _: _row_sums(rows.abs())) for x in both]
        return Points("bray_curtis", *both, row_term=sums[0] + least, column_term=sums[1])
    row_term, column_term = (_mapped(x, lambda rows, _: _row_sums(rows)) for x in both)
    return Points("bray_curtis_standard", *both, float(least), row_term, column_term)


def _soft_bits(x, temperature, noisy, generator):
    if not noisy:
        return _mapped(x, lambda rows, _: torch.sigmoid(rows / temperature))
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device if generator else "cpu"))

    def noisy_bits(rows, at):  # the same noise for the gradient
        own = torch.Generator(rows.device).manual_seed(seed + (at.start or 0))
        u = torch.rand(rows.shape, generator=own, device=rows.device, dtype=rows.dtype).clamp(1e-7, 1 - 1e-7)
        return torch.sigmoid((rows + torch.logit(u)) / temperature)  # the difference of two Gumbels

    return _mapped(x, noisy_bits)


# ---- in memory -------------------------------------------------------------------------------------------------------


def squared(points, acc):
    """d^2, [N, V] in float32 (float64), a few pairs at a time where all differences are made."""
    x, per_pair = points.input.to(acc), 1 if points.by_product else max(points.input.shape[0], 1)
    step = max(_CHUNK_ELEMENTS // max(points.weight.shape[1] * per_pair, 1), 1)
    columns = [slice(first, first + step) for first in range(0, max(points.weight.shape[0], 1), step)]
    of = _squared if points.by_product else _squared_elementwise
    return torch.cat([of(points, x, points.weight[at].to(acc), at) for at in columns], 1)


def _squared(points, x, w, _):
    if points.kind == "cosine":
        return (1 - _unit(x) @ _unit(w).mT).clamp(min=0).square()
    d = (x.square().sum(1)[:, None] + w.square().sum(1) - 2 * (x @ w.mT)).clamp(min=0)
    return d if points.kind == "euclidean" else d.square()


def _squared_elementwise(points, x, w, at):
    columns = None if points.column_term is None else points.column_term[at]
    return elementwise.distance(x, w, points.kind, points.p, points.row_term, columns).square()
