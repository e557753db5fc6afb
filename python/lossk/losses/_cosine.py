"""Heads whose logits are scaled cosines: rows of unit length, and the target's logit apart from the others'."""

import torch
import torch.nn.functional as F

from .. import _check
from .._head_ops import STATS
from ..stats import statistics
from ._rows import Rows, excl_low


def unit(x, acc):
    """x / |x| for each row, in acc."""
    return F.normalize(x.to(acc), dim=-1)


def cosine_rows(op, input, linear_weight, target, linear_bias, scale, softcap, tau, ignore_index, normalize=True):
    """Rows whose head holds unit vectors, rounded to the inputs' dtype; features: the input, given_scale: as it was."""
    rows = Rows(op, input, linear_weight, target, linear_bias, scale, softcap, tau, ignore_index)
    h = rows.head
    rows.given_scale = scale
    rows.features = torch.where(rows.active[:, None], h.input, 0)  # a row that is not active may hold anything
    if normalize:
        rows.head = unit_head(h._replace(input=rows.features))
    return rows


def unit_head(h):
    return h._replace(
        input=unit(h.input, h.acc).to(h.input.dtype), linear_weight=unit(h.linear_weight, h.acc).to(h.input.dtype)
    )


def positive(op, name, x, like):
    """A finite number > 0, or a tensor [] or [...] of the rows of `like`, as _arguments.head takes a scale."""
    if isinstance(x, torch.Tensor) and isinstance(like, torch.Tensor):
        x = x.expand(like.shape[:-1]) if x.dim() == 0 else x
        _check.floats(op, name, x, like.shape[:-1], like)
        return x
    _check.number(op, name, x, expected="a finite number > 0 or a Tensor")
    if x <= 0:
        raise ValueError(f"{op}: {name} must be a finite number > 0 or a Tensor, got {x}")
    return x


def others_and_logits(op, h, index, active, tau=None):
    """The two halves of lse over the columns not in index, [N] each (their sum is it), and the logits at index."""
    stats, logits, *_ = statistics(op, h, index, None, active, full=True, tau=tau)
    rows = dict(zip(STATS, stats.unbind()))
    return rows["lse_excl"], excl_low(rows), logits


def against_others(rows, change, extra=None):
    """Cross-entropy [N] whose target has the logit scale change(cosine); extra: a log-sum that joins the others'."""
    lse, low, z = others_and_logits(rows.op, rows.head, rows.index, rows.active, rows.tau)
    lse, low, z = rows.or_even(lse, 0.0), rows.or_even(low, 0.0), rows.or_even(z[:, 0], 0.0)
    scale = rows.head.scale
    if scale is not None:
        scale = rows.or_even(scale, 1.0)
    changed = change(z) if scale is None else scale * change(z / scale)
    ahead = (lse - changed) + low
    return softplus(ahead if extra is None else torch.logaddexp(ahead, extra - changed))


def softplus(x):
    """log(1 + e^x); torch's own leaves out e^-x from 20 on, which float64 still sees."""
    return F.softplus(x, threshold=40.0)


def log_sum(x, present):
    """log of the sum of e^x over the last dimension's present entries; where there are none, a number that is finite,
    so that it has no gradient rather than nan, and is 0 as an exponential."""
    return torch.where(present, x, torch.finfo(x.dtype).min / 4).logsumexp(-1)
