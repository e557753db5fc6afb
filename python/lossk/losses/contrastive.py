"""Contrastive losses of two sets of vectors, x [N, D] and y [M, D], without the N x M similarities.

s_iv = x_i . y_v, of unit vectors where `normalize` says so: their length is taken in float32 and they are rounded to
their dtype. y_t(i) is row i's positive. Each returns float32 (float64 for float64 inputs): a scalar, or [N] for
reduction 'none'; 'mean' divides by the number of rows not ignored, whatever token_weight [N], a factor of each row's
loss, says. Gradients to x, y, token_weight, and the numbers that may be tensors. Errors: ValueError, TypeError on wrong
shapes, dtypes, devices, options and targets out of range; nothing here has a second derivative.
"""

import math

import torch

from .. import _arguments, _check
from ..head import _cross_entropy
from ._cosine import cosine_rows, log_sum, others_and_logits, positive, softplus, unit_head
from ._rows import reduction_of
from .pairs import sigmoid_of

__all__ = ["dcl", "info_nce", "multi_similarity", "siglip", "soft_info_nce"]


def info_nce(
    x, y, target=None, *, temperature=0.07, normalize=True, symmetric=False, token_weight=None, tau=None,
    ignore_index=-100, reduction="mean",
):  # fmt: skip
    """InfoNCE: which of the rows of y belongs to this row of x, by cross-entropy; symmetric: CLIP's loss.

    log sum_v e^(s_iv / temperature) - s_it(i) / temperature; symmetric: the mean of this and of the same loss with x
    and y exchanged.

    x [N, D], y [M, D], target [N] int64, None: t(i) = i, and the M - N last rows of y are negatives for all;
    ignore_index: no loss. temperature a number > 0, or a tensor [] or [N] with a gradient. symmetric wants N = M and
    no target. tau: a backward over live columns, as in lossk.linear_cross_entropy. One product forward and two
    backward for 'mean' and 'sum' on a CPU, three for 'none' and on a GPU; twice that where symmetric.
    Source: van den Oord et al. 2018, Representation Learning with Contrastive Predictive Coding, arXiv:1807.03748,
    section 2.3; symmetric: Radford et al. 2021, arXiv:2103.00020, section 2.3; the temperature is CLIP's at its start.
    """
    op = "info_nce"
    target = _target(op, x, y, target, symmetric)
    scale = _inverse(op, "temperature", temperature, x)
    rows = cosine_rows(op, x, y, target, None, scale, None, tau, ignore_index, normalize)

    def one_way(a, b):
        return _cross_entropy(
            op, a, b, target, None, None, token_weight, None, ignore_index, reduction, 0.0, 0.0, None, scale, 0.0, 0,
            tau, True,
        )  # fmt: skip

    a, b = rows.head[:2]
    return (one_way(a, b) + one_way(b, a)) / 2 if symmetric else one_way(a, b)


def dcl(
    x, y, target=None, *, temperature=0.1, normalize=True, within=False, symmetric=False, token_weight=None,
    ignore_index=-100, reduction="mean",
):  # fmt: skip
    """Decoupled contrastive loss: InfoNCE without the positive in its denominator, so that easy rows keep a gradient.

    log sum_{v != t(i)} e^(s_iv / temperature) - s_it(i) / temperature; within: the other rows of x are negatives too,
    as in the paper, whose loss is that with symmetric=True (the mean of both directions; the authors add them).

    x [N, D], y [M, D], target [N] int64, None: t(i) = i; ignore_index: no loss. There must be a negative: M > 1, or
    within. temperature as in info_nce. within and symmetric want no target, symmetric N = M.
    Source: Yeh et al. 2021, Decoupled Contrastive Learning, arXiv:2110.06848, section 3.
    """
    op = "dcl"
    target = _target(op, x, y, target, symmetric, within)
    scale = _inverse(op, "temperature", temperature, x)
    rows = cosine_rows(op, x, y, target, None, scale, None, None, ignore_index, normalize)
    if y.shape[0] + (x.shape[0] if within else 0) - bool(within) < 2:
        raise ValueError(f"{op}: y must have 2 rows or more, for a negative, got {y.shape[0]}")

    def one_way(h):
        index = rows.index
        if within:
            own = torch.arange(h.input.shape[0], device=index.device)[:, None] + h.linear_weight.shape[0]
            index = torch.cat([index, own], 1)
            h = h._replace(linear_weight=torch.cat([h.linear_weight, h.input]))
        lse, low, z = others_and_logits(op, h, index, rows.active)
        lse, low, z = rows.or_even(lse, 0.0), rows.or_even(low, 0.0), rows.or_even(z[:, 0], 0.0)
        return (lse - z) + low

    h = rows.head
    loss = one_way(h)
    if symmetric:
        loss = (loss + one_way(h._replace(input=h.linear_weight, linear_weight=h.input))) / 2
    return reduction_of(op, loss, rows.active, h, token_weight, reduction)


def soft_info_nce(
    x, y, target=None, *, similar, temperature=0.07, alpha=1.0, beta=1.0, least=0.1, normalize=True, token_weight=None,
    ignore_index=-100, reduction="mean",
):  # fmt: skip
    """InfoNCE whose negatives weigh less the more they resemble the positive, for data with near duplicates.

    log(e^(s_it(i) / temperature) + sum_{v != t(i)} w_iv e^(s_iv / temperature)) - s_it(i) / temperature, with
    w_iv = max((beta - alpha q_iv) / (beta - alpha / (M - 1)), least), q_i a distribution over the row's negatives, of
    sum 1, that another model gives (the paper: a softmax of its similarities). alpha = 0 is info_nce.

    similar = (indices [N, K] int64, q [N, K]): the negatives of which q is known, distinct, -1 absent, t(i) passed
    over; what is left of the sum of 1 is spread evenly over the other negatives (the paper stores all of q; K = M - 1
    is that). q has no gradient. 0 <= alpha < beta (M - 1), least > 0. x, y, target, temperature as in info_nce.
    Source: Li et al. 2023, Rethinking Negative Pairs in Code Search, arXiv:2310.08069; least: the authors' code.
    """
    op = "soft_info_nce"
    target = _target(op, x, y, target, False)
    scale = _inverse(op, "temperature", temperature, x)
    rows = cosine_rows(op, x, y, target, None, scale, None, None, ignore_index, normalize)
    h, others = rows.head, max(y.shape[0] - 1, 1)
    _check.positive(op, "beta", beta)
    _check.positive(op, "least", least)
    _check.number(op, "alpha", alpha, 0, expected="a finite number in [0, beta (M - 1))")
    if alpha >= beta * others and alpha:
        raise ValueError(f"{op}: alpha must be a finite number in [0, beta (M - 1)), got {alpha}")
    if not isinstance(similar, (tuple, list)) or len(similar) != 2:
        raise TypeError(f"{op}: similar must be a pair (indices, q), got {type(similar).__name__}")
    known, q = similar
    _check.tensor(op, "similar indices", known)
    shape = (*h.shape, known.shape[-1] if known.dim() else 1)
    _check.integers(op, "similar indices", known, shape, h.input)
    _check.floats(op, "similar q", q, shape, h.input)
    _check.in_vocab(op, "similar indices", known, y.shape[0], -1)
    known = _arguments.absent_as_minus_one(known.long(), y.shape[0], -1)
    known = torch.where(rows.active[:, None] & (known != rows.index), known, -1)
    present, q = known >= 0, torch.where(known >= 0, q.detach().to(h.acc), 0)

    def log_weight(q):
        return ((beta - alpha * q) / (beta - alpha / others)).clamp(min=least).log()

    rest = (1 - q.sum(-1)).clamp(min=0) / (others - present.sum(-1)).clamp(min=1)
    lse, low, z = others_and_logits(op, h, torch.cat([rows.index, known], 1), rows.active)
    z, lse, low = rows.or_even(z, 0.0), rows.or_even(lse, 0.0), rows.or_even(low, 0.0)
    ahead = torch.cat([(lse - z[:, 0] + low + log_weight(rest))[:, None], z[:, 1:] - z[:, :1] + log_weight(q)], 1)
    some = torch.cat([(lse > -math.inf)[:, None], present], 1)
    return reduction_of(op, softplus(log_sum(ahead, some)), rows.active, h, token_weight, reduction)


def siglip(
    x, y, target=None, *, scale=10.0, bias=-10.0, normalize=True, token_weight=None, ignore_index=-100,
    reduction="mean",
):  # fmt: skip
    """Sigmoid loss of image-text pairs: is y_v the partner of x_i, asked of each pair by itself; no normaliser.

    sum_v log(1 + e^(-m_iv (scale s_iv + bias))), m_iv = 1 where v = t(i), else -1; 'mean' is the paper's, over x's
    rows.

    x [N, D], y [M, D], target [N] int64, None: t(i) = i; ignore_index: no loss. scale and bias numbers or tensors []
    (scale also [N]) with a gradient; the paper learns log scale, from log 10, and bias, from -10. One product forward.
    Source: Zhai et al. 2023, Sigmoid Loss for Language Image Pre-Training, arXiv:2303.15343, section 3.2.
    """
    op = "siglip"
    target = _target(op, x, y, target, False)
    rows = cosine_rows(op, x, y, target, None, positive(op, "scale", scale, x), None, None, ignore_index, normalize)
    return reduction_of(op, sigmoid_of(rows, bias), rows.active, rows.head, token_weight, reduction)


def multi_similarity(
    x, y=None, positives=None, *, labels=None, alpha=2.0, beta=50.0, base=0.5, normalize=True, token_weight=None,
    reduction="mean",
):  # fmt: skip
    """Multi-similarity loss, of all pairs: soft maxima over the positives and over the negatives of each row.

    log(1 + sum_{v in P_i} e^(-alpha (s_iv - base))) / alpha
    + log(1 + sum_{v not in P_i} e^(beta (s_iv - base))) / beta.

    x [N, D]; y [M, D], None: x itself, of which a row's own is neither positive nor negative. positives [N, K] int64:
    the rows of y in P_i, distinct, -1 absent; or, for y None, labels [N] of any integers: the rows of the same label
    (the largest class is then looked up, which waits for a GPU and cannot be compiled). A row without positives has
    its second term. alpha, beta > 0. The pairs are not mined, as the paper's are before it weighs them.
    Source: Wang et al. 2019, Multi-Similarity Loss with General Pair Weighting, arXiv:1904.06627; alpha,
    beta and base as pytorch-metric-learning's.
    """
    op = "multi_similarity"
    _check.positive(op, "alpha", alpha)
    _check.positive(op, "beta", beta)
    _check.number(op, "base", base)
    itself = y is None
    y = x if itself else y
    _pair(op, x, y)
    h = _arguments.head(op, x, y, None, float(beta), None)
    if normalize:
        h = unit_head(h)
    if (positives is None) == (labels is None):
        raise ValueError(f"{op}: exactly one of positives and labels must be given")
    if labels is not None:
        if not itself:
            raise ValueError(f"{op}: labels must be None where y is given, got a {type(labels).__name__}")
        _check.tensor(op, "labels", labels)
        _check.integers(op, "labels", labels, h.shape, h.input)
        positives = _same_label(labels)
    _check.tensor(op, "positives", positives)
    entries = positives.shape[-1] if positives.dim() else 1
    _check.integers(op, "positives", positives, (*h.shape, entries), h.input)
    _check.in_vocab(op, "positives", positives, y.shape[0], -1)
    own = torch.arange(x.shape[0], device=x.device)[:, None]
    own = own if itself else torch.full_like(own, -1)
    positives = _arguments.absent_as_minus_one(positives.long(), y.shape[0], -1)
    positives = torch.where(positives == own, -1, positives)
    lse, low, z = others_and_logits(op, h, torch.cat([positives, own], 1), None)
    far = log_sum(alpha * (base - z[:, :-1] / beta), positives >= 0)
    loss = softplus(far) / alpha + softplus((lse - beta * base) + low) / beta
    return reduction_of(op, loss, torch.ones_like(lse, dtype=torch.bool), h, token_weight, reduction)


# ---- arguments -------------------------------------------------------------------------------------------------------


def _pair(op, x, y):
    """x [N, D] and y [M, D], named as here; that their dtypes go together is for _check.head to say."""
    for name, tensor in (("x", x), ("y", y)):
        _check.tensor(op, name, tensor)
        if tensor.dtype not in _check.FLOATS:
            raise TypeError(f"{op}: {name} must be float32, bfloat16, float16 or float64, got {tensor.dtype}")
        if tensor.dim() != 2:
            raise ValueError(f"{op}: {name} must be [{'N' if name == 'x' else 'M'}, D], got {list(tensor.shape)}")
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"{op}: y must be [M, {x.shape[1]}], got {list(y.shape)}")
    _check.device(op, "y", y, x)


def _target(op, x, y, target, symmetric, within=False):
    _pair(op, x, y)
    if target is not None:
        for name, given in (("symmetric", symmetric), ("within", within)):
            if given:
                raise ValueError(f"{op}: target must be None with {name}, got a {type(target).__name__}")
        _check.tensor(op, "target", target)
        return target
    if x.shape[0] > y.shape[0] or (symmetric and x.shape[0] != y.shape[0]):
        rows = f"{x.shape[0]} rows" if symmetric else f"{x.shape[0]} rows or more where target is None"
        raise ValueError(f"{op}: y must have {rows}, got {list(y.shape)}")
    return torch.arange(x.shape[0], device=x.device)


def _inverse(op, name, x, like):
    x = positive(op, name, x, like)
    return x.reciprocal() if isinstance(x, torch.Tensor) else 1.0 / x


def _same_label(labels):
    """Of each row the others with its label, -1 absent: [N, size of the largest class]."""
    order = labels.sort(stable=True).indices
    ordered = labels[order].contiguous()
    first = torch.searchsorted(ordered, labels.contiguous())
    size = torch.searchsorted(ordered, labels.contiguous(), right=True) - first
    place = torch.arange(int(size.max()) if labels.numel() else 0, device=labels.device)
    at = (first[:, None] + place).clamp(max=max(labels.numel() - 1, 0))
    return torch.where(place < size[:, None], order[at], -1)
