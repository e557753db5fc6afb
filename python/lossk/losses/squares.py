"""Losses with a sum of squared logits, which needs no logits: D x D matrices of the weight give it."""

import torch

from .. import _check
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
