"""What the rules share: masks, scales and shares of the tokens of a sequence."""

import math

import torch

from .. import _check


def mask_of(op, like, mask, name, **others):
    _check.tensor(op, name, like)
    if like.dim() < 1 or not like.dtype.is_floating_point:
        raise ValueError(f"{op}: {name} must be a float tensor [..., T], got {like.dtype} {list(like.shape)}")
    for other, x in others.items():
        _check.floats(op, other, x, like.shape, like)
    if mask is None:
        return torch.ones_like(like, dtype=torch.bool)
    _check.tensor(op, "mask", mask)
    _check.sized(op, "mask", mask, like.shape, like)
    return mask.bool()


def per_token(op, advantage, logp):
    _check.tensor(op, "advantage", advantage)
    if advantage.shape == logp.shape[:-1]:
        advantage = advantage[..., None].expand_as(logp)
    _check.floats(op, "advantage", advantage, logp.shape, logp)
    return advantage


def to_unit(x, mask):
    """Scaled from the least to the most of a row to [0, 1]; 0 where all are equal."""
    low = torch.where(mask, x, math.inf).amin(-1, keepdim=True)
    high = torch.where(mask, x, -math.inf).amax(-1, keepdim=True)
    return torch.where(mask & (high > low), (x - low) / (high - low), 0)


def cut(x, mask, quantile):
    """No more than the quantile of the row's tokens that count."""
    most = torch.nanquantile(torch.where(mask, x, math.nan).float(), quantile, -1, keepdim=True)
    return torch.minimum(x, torch.where(most.isnan(), x, most.to(x.dtype)))


def highest(op, name, score, share, mask):
    """The ceil(share n) highest of each row's n tokens; among equal ones the earlier."""
    count = mask.sum(-1, keepdim=True)
    keep = torch.ceil(share_of(op, name, share) * count.double() - 1e-9).long()
    order = torch.where(mask, score, -math.inf).argsort(dim=-1, descending=True, stable=True)
    places = torch.arange(order.shape[-1], device=order.device).expand_as(order)
    rank = torch.empty_like(order).scatter_(-1, order, places)
    return mask & (rank < keep)


def share_of(op, name, share):
    _check.number(op, name, share, 0, 1, "a number in (0, 1]")
    _check.positive(op, name, share)
    return share


def count_of(op, name, share, total):
    return math.ceil(share_of(op, name, share) * total - 1e-9)
