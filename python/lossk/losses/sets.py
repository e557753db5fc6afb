"""Losses with a set of classes: several positives, numbers, the bins of a histogram."""

import math

import torch

from .. import _arguments, _check
from .._head_ops import STATS
from ..stats import statistics
from ._rows import dense_logits, excl_low, head_loss, reduction_of, widened


def decoupled_softmax(
    input, linear_weight, positives, *, linear_bias=None, token_weight=None, softcap=None, scale=1.0, tau=None,
    ignore_index=-100, reduction="mean",
):  # fmt: skip
    """Softmax for several right answers, none of which is another's wrong one.

    -sum_k log(e^z_k / (e^z_k + sum_{v not in positives} e^z_v)), k over the row's positives.

    positives [..., K] int64, ignore_index: absent, repeated ones count as often; a token without positives has no loss
    and no cost. The rest as the losses of lossk.losses.target, tokens with positives being those that are not ignored.
    Source: Gupta et al. 2023, Dual-Encoders for Extreme Multi-Label Classification, arXiv:2310.10636.
    """
    op = "decoupled_softmax"
    h = _arguments.head(op, input, linear_weight, linear_bias, scale, softcap)
    _check.column_sets(op, "positives", positives, h.shape, h.input)
    _check.in_vocab(op, "positives", positives, linear_weight.shape[0], ignore_index)
    index = positives.reshape(h.shape.numel(), positives.shape[-1]).long()
    index = _arguments.absent_as_minus_one(index, linear_weight.shape[0], ignore_index)
    active = (index >= 0).any(-1)
    stats, z, *_ = statistics(op, h, index, None, active, full=True, tau=tau)
    rows = dict(zip(STATS, stats.unbind()))
    others = (rows["lse_excl"][:, None] - z) + excl_low(rows)[:, None]
    loss = torch.where(index >= 0, torch.nn.functional.softplus(others), 0).sum(-1)
    return reduction_of(op, loss, active, h, token_weight, reduction)


@head_loss
def ntl_mse(rows, number_ids, number_values):
    """Number token loss, squared: (E[value] - value_y)^2 under the softmax over the number tokens alone.

    number_ids [C] int64, number_values [C]: the tokens that are numbers, and which; tokens whose target is none of them
    count as ignored. A product with C columns, none with the vocabulary. Add it to the cross-entropy, times 0.3.
    Source: Zausinger et al. 2024, Regress, Don't Guess, arXiv:2411.02083.
    """
    p, values, at_target = _numbers(rows, number_ids, number_values)
    return ((p * values).sum(-1) - at_target) ** 2


@head_loss
def ntl_was(rows, number_ids, number_values):
    """Number token loss, Wasserstein: E |value - value_y| under the softmax over the number tokens alone.

    As ntl_mse.
    Source: Zausinger et al. 2024, Regress, Don't Guess, arXiv:2411.02083.
    """
    p, values, at_target = _numbers(rows, number_ids, number_values)
    return (p * (values - at_target[:, None]).abs()).sum(-1)


def _numbers(rows, ids, values):
    op = rows.op
    _check.some(op, "number_ids", ids)
    _check.integers(op, "number_ids", ids, (ids.numel(),), rows.head.input)
    _check.in_vocab(op, "number_ids", ids, rows.vocab, rows.vocab)
    _check.floats(op, "number_values", values, ids.shape, rows.head.input)
    values = values.to(rows.head.acc)
    is_target = rows.index == ids
    rows.keep(is_target.any(-1))
    at_target = torch.where(is_target, values, 0).sum(-1) / is_target.sum(-1).clamp(min=1)
    return rows.logits(ids).softmax(-1), values, at_target


def hl_gauss(
    input, linear_weight, value_target, *, edges, sigma, linear_bias=None, token_weight=None, softcap=None, scale=1.0,
    reduction="mean",
):  # fmt: skip
    """Regression as classification: cross-entropy with a Gaussian around the value, cut into the bins of a histogram.

    -sum_v q_v log p_v, q_v the mass in [edges_v, edges_{v+1}] of a normal distribution of mean value_target and
    deviation sigma, of all that lies within the edges; values beyond the edges count as these.

    linear_weight [V, D], a row for each bin; value_target [...] float, nan: no loss; edges [V + 1], ascending; sigma
    > 0, the authors take 0.75 bins. The logits are made: there are as many as bins. The rest as the losses of
    lossk.losses.target.
    Source: Farebrother et al. 2024, Stop Regressing, arXiv:2403.03950, section 3.
    """
    op = "hl_gauss"
    h = _arguments.head(op, input, linear_weight, linear_bias, scale, softcap)
    _check.floats(op, "value_target", value_target, h.shape, h.input)
    _check.floats(op, "edges", edges, (linear_weight.shape[0] + 1,), h.input)
    _check.positive(op, "sigma", sigma)
    value = value_target.detach().reshape(-1).to(h.acc)
    active = ~value.isnan()
    edges = edges.to(h.acc)
    value = torch.where(active, value, edges[0]).clamp(edges[0], edges[-1])
    below = torch.erf((edges - value[:, None]) / (math.sqrt(2) * sigma))
    q = below.diff(dim=-1) / (below[:, -1:] - below[:, :1])
    z = dense_logits(h, widened(h, active))
    return reduction_of(op, -(q * z.log_softmax(-1)).sum(-1), active, h, token_weight, reduction)
