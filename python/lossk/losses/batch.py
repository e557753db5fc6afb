"""Losses with pairs within the batch, N x N of them, whose similarities are never in memory together."""

import torch

from .. import _arguments, _check
from ._cosine import against_others, log_sum, unit
from ._rows import widened
from .margins import arcface_target, cosface_target, cosine_loss

__all__ = ["opl", "unpg"]

_CHUNK_ELEMENTS = 1 << 22  # similarities at a time


def opl(input, target, *, gamma=0.5, ignore_index=-100):
    """Orthogonal projection loss: features of one class alike, those of different classes orthogonal; added to another.

    (1 - s) + gamma |d|, s and d the mean cosines of the batch's pairs of the same class and of different ones; 0
    where there are none. Both are squared lengths of sums of features: O(N D), no pairs.

    input [..., D], target [...] integers, labels of any kind (ignore_index: a token that is in no pair). Returns a
    scalar, float32 (float64), with a gradient to input.
    Source: Ranasinghe et al. 2021, Orthogonal Projection Loss, arXiv:2103.14021.
    """
    op = "opl"
    _check.number(op, "gamma", gamma)
    _check.tensor(op, "input", input)
    h = _arguments.head(op, input, input.new_empty(0, input.shape[-1] if input.dim() else 0), None, 1.0, None)
    _check.tensor(op, "target", target)
    _check.integers(op, "target", target, h.shape, h.input)
    label = target.reshape(-1).long()
    active = label != ignore_index
    features = unit(widened(h, active), h.acc)

    order = label.sort(stable=True).indices
    ordered, count = label[order].contiguous(), active.sum()
    edges = torch.searchsorted(ordered, ordered, right=True)
    first = torch.searchsorted(ordered, ordered)
    # a class's rows are neighbours now; all of them but the first have an empty segment
    starts = torch.where(first == torch.arange(len(ordered), device=label.device), first, edges)
    starts = torch.cat([starts, starts.new_full((1,), len(ordered))])
    sums = torch.segment_reduce(features[order], "sum", offsets=starts, axis=0, initial=0.0)
    own = (features**2).sum()
    alike = (sums**2).sum()
    size = torch.where(label[order] == ignore_index, 0, edges - first)
    pairs = (size - 1).clamp(min=0).sum()
    others = count * (count - 1) - pairs
    # Where there is no pair the difference is but rounding, whose abs() would have a slope.
    same = torch.where(pairs > 0, alike - own, 0) / pairs.clamp(min=1)
    different = torch.where(others > 0, (features.sum(0) ** 2).sum() - alike, 0) / others.clamp(min=1)
    return (1 - same) + gamma * different.abs()


@cosine_loss
def unpg(rows, margin="cosface", m=0.5, whisker=1.5):
    """Unified negative pairs: the cosines of samples of different classes are further negatives of every sample.

    Cross-entropy over the logits of cosface or arcface (margin, m) and scale s_jk, for all pairs j < k of the batch's
    tokens with different targets, without outliers: those beyond the quartiles by more than `whisker` (>= 0) times the
    distance between these. Quartiles as the authors take them: of n cosines the ones of rank n // 4 and 3 n // 4. scale
    is a number. The products of the batch with itself, N^2 D, are done six times.
    Source: Jung et al. 2022, Unified Negative Pair Generation toward Well-discriminative Feature Space for Face
    Recognition, arXiv:2203.11593, and the authors' code.
    """
    op = rows.op
    _check.number(op, "whisker", whisker, 0, expected="a finite number >= 0")
    if margin not in ("cosface", "arcface"):
        raise ValueError(f"{op}: margin must be 'cosface' or 'arcface', got {margin!r}")
    change = (cosface_target if margin == "cosface" else arcface_target)(op, m)
    if isinstance(rows.given_scale, torch.Tensor):
        raise TypeError(f"{op}: scale must be a number, the pairs being of two tokens, got Tensor")
    features, label = unit(rows.features, rows.head.acc), rows.index[:, 0]
    with torch.no_grad():
        low, high = _quartiles(features, label)
        reach = whisker * (high - low)
    extra = _LogSumOfPairs.apply(features, label, low - reach, high + reach, float(rows.given_scale))
    return against_others(rows, change, extra)


def _chunks(features, label):
    """s [C, N] of consecutive rows, and which entries are pairs: the column comes later and has another label."""
    n = features.shape[0]
    step, place = max(_CHUNK_ELEMENTS // max(n, 1), 1), torch.arange(n, device=label.device)
    for first in range(0, n, step):
        at = slice(first, first + step)
        pair = (place > place[at, None]) & (label != label[at, None]) & (label >= 0) & (label[at, None] >= 0)
        with torch.autocast(features.device.type, enabled=False):  # else the backward would see other pairs
            s = features[at] @ features.mT
        yield at, s, pair


def _quartiles(features, label):
    """Order statistics n // 4 and 3 n // 4 of the n pairs' cosines, to 2^-29, in two sweeps of 15 and 16 bits."""
    counts = torch.zeros(1 << 15, dtype=torch.int64, device=label.device)
    for _, s, pair in _chunks(features, label):
        counts.index_add_(0, (_fixed_point(s) >> 16).flatten(), pair.flatten().long())
    counts = counts.cumsum(0)
    rank = torch.stack([counts[-1] // 4, 3 * counts[-1] // 4])
    high = torch.searchsorted(counts, rank, right=True).clamp(max=(1 << 15) - 1)
    rank = rank - torch.where(high > 0, counts[(high - 1).clamp(min=0)], 0)
    counts = torch.zeros(2, 1 << 16, dtype=torch.int64, device=label.device)
    for _, s, pair in _chunks(features, label):
        key = _fixed_point(s)
        for quartile in range(2):
            among = pair & ((key >> 16) == high[quartile])
            counts[quartile].index_add_(0, (key & 0xFFFF).flatten(), among.flatten().long())
    low = torch.searchsorted(counts.cumsum(1), rank[:, None], right=True)[:, 0].clamp(max=(1 << 16) - 1)
    return (((high << 16) | low).double() / (1 << 29) - 2).to(features.dtype).unbind()


def _fixed_point(s):
    return ((s.double() + 2) * (1 << 29)).long().clamp(0, (1 << 31) - 1)


class _LogSumOfPairs(torch.autograd.Function):
    """log sum e^(scale s) over the pairs with s in [low, high]; where there are none, of a number that is 0."""

    @staticmethod
    def forward(ctx, features, label, low, high, scale):
        parts = [features.new_full((), torch.finfo(features.dtype).min / 4)]
        for _, s, pair in _chunks(features, label):
            parts.append(log_sum((scale * s).flatten(), (pair & (s >= low) & (s <= high)).flatten()))
        total = torch.stack(parts).logsumexp(0)
        ctx.save_for_backward(features, label, low, high, total)
        ctx.scale = scale
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        features, label, low, high, total = ctx.saved_tensors
        of_features = torch.zeros_like(features)
        for at, s, pair in _chunks(features, label):
            share = torch.where(pair & (s >= low) & (s <= high), grad * ctx.scale * torch.exp(ctx.scale * s - total), 0)
            of_features[at] += share @ features
            of_features += share.mT @ features[at]
        return of_features, None, None, None, None
