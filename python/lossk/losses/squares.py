"""Losses with a sum of squared logits, which needs no logits: D x D matrices of the weight give it."""

import torch

from .. import _check
from ._gather import rows_of_weight
from ._gram import sum_of_units
from ._rows import head_loss


@head_loss
def squentropy(rows):
    """Cross-entropy plus the mean squared logit of the other classes: CE + sum_{v != y} z_v^2 / (V - 1).

    Not with softcap. Source: Hui, Belkin, Wright 2023, Cut your Losses with Squentropy, arXiv:2302.03952.
    """
    others = max(rows.vocab - 1, 1)
    mean, variance = rows.moments()
    return -rows.logp() + (rows.vocab * (variance + mean**2) - rows.logit() ** 2) / others


@head_loss
def spherical_z_loss(rows, a=1.0, b=0.0):
    """The Z-loss: softplus(a (b - (z_y - mean) / deviation)) / a, mean and deviation those of the row's logits; a > 0.

    Neither products with the vocabulary nor a normaliser: its cost does not grow with N V. Not with softcap.
    Source: de Brebisson, Vincent 2016, The Z-loss: a shift and scale invariant classification loss, arXiv:1604.08859.
    """
    _check.number(rows.op, "b", b)
    _check.positive(rows.op, "a", a)
    mean, variance = rows.moments()
    z = (rows.logit() - mean) / variance.clamp(min=torch.finfo(variance.dtype).tiny).sqrt()
    return torch.nn.functional.softplus(a * (b - z)) / a


@head_loss
def taylor_softmax(rows):
    """Cross-entropy of the Taylor softmax: log sum_v f(z_v) - log f(z_y), f(z) = 1 + z + z^2 / 2.

    Not with softcap. Source: de Brebisson, Vincent 2016, An Exploration of Softmax Alternatives Belonging to the
    Spherical Loss Family, arXiv:1511.05042, section 3.
    """
    mean, variance = rows.moments()
    z = rows.logit()
    # f(z) = ((1 + z)^2 + 1) / 2: no cancellation
    total = rows.vocab * ((1 + mean) ** 2 + variance + 1) / 2
    return torch.log(total) - torch.log(((1 + z) ** 2 + 1) / 2)


@head_loss
def spherical_softmax(rows, eps=1e-2):
    """Cross-entropy of the spherical softmax: log sum_v (z_v^2 + eps) - log(z_y^2 + eps), eps > 0.

    No product with the vocabulary. Not with softcap. Source: de Brebisson, Vincent 2016, An Exploration of Softmax
    Alternatives Belonging to the Spherical Loss Family, arXiv:1511.05042, section 3.
    """
    _check.positive(rows.op, "eps", eps)
    mean, variance = rows.moments()
    return torch.log(rows.vocab * (variance + mean**2 + eps)) - torch.log(rows.logit() ** 2 + eps)


@head_loss
def squared_error(rows):
    """Squared error of the logits against a one-hot target: sum_v (z_v - [v = y])^2.

    No product with the vocabulary. Not with softcap. Source: Vincent, de Brebisson, Bouthillier 2015, Efficient Exact
    Gradient Update for Training Deep Networks with Very Large Sparse Targets, arXiv:1412.7091.
    """
    mean, variance = rows.moments()
    return rows.vocab * (variance + mean**2) - 2 * rows.logit() + 1


@head_loss
def cosine_linear(rows):
    """Cross-entropy of probabilities linear in the cosine: log(V + x.sum_v w_v) - log(1 + x.w_y), of unit vectors.

    p_v = (1 + cos_v) / sum_u (1 + cos_u): no product with the vocabulary, O((N + V) D). It cannot be sure: p_v is at
    most 2 / V where the other weights point everywhere alike. Not with linear_bias, scale or softcap. Source:
    cosine_simple of the code of Rethinking the Harmonic Loss via Non-Euclidean Distance Layers, arXiv:2603.10225.
    """
    h = rows.head
    for name, given in (("linear_bias", h.linear_bias), ("scale", h.scale), ("softcap", h.softcap or None)):
        if given is not None:
            raise ValueError(f"{rows.op}: {name} must be left out, a cosine is what it is, got {given}")
    x = torch.nn.functional.normalize(rows.widened_input(), dim=1)
    target = rows_of_weight(h.linear_weight, rows.target_column())
    cosine = (x * torch.nn.functional.normalize(target, dim=1)).sum(1)
    everywhere = x @ sum_of_units(h.linear_weight)
    # Opposite to all, or to the target: finite.
    least = torch.finfo(h.acc).eps
    loss = torch.log((rows.vocab + everywhere).clamp(min=least)) - torch.log((1 + cosine).clamp(min=least))
    return rows.or_even(torch.where(rows.index[:, 0] < rows.vocab, loss, torch.nan), 0.0)
