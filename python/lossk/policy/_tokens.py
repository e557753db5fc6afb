"""Which tokens count, and how their losses come together."""

import torch

from .. import _check

_REDUCTIONS = ("mean", "sequence", "sum", "none")


def tokens(op, logp, mask, advantage, name="logp", mask_name="mask", **like_logp):
    """logp, 0 where it does not count (it may be nan there), the mask as bools, advantage as [..., T] or [..., 1]."""
    _check.tensor(op, name, logp)
    if logp.dim() < 1 or not logp.dtype.is_floating_point:
        raise ValueError(f"{op}: {name} must be a float tensor [..., T], got {logp.dtype} {list(logp.shape)}")
    for other, x in like_logp.items():
        if x is not None:
            _check.floats(op, other, x, logp.shape, logp)
    if mask is None:
        mask = torch.ones_like(logp, dtype=torch.bool)
    else:
        _check.tensor(op, mask_name, mask)
        _check.sized(op, mask_name, mask, logp.shape, logp)
        mask = mask.bool()
    if advantage is not None:
        _check.tensor(op, "advantage", advantage)
        if advantage.shape == logp.shape[:-1]:
            advantage = advantage[..., None]
        elif advantage.shape != logp.shape:
            expected = f"{list(logp.shape)} or {list(logp.shape[:-1])}"
            raise ValueError(f"{op}: advantage must have shape {expected}, got {list(advantage.shape)}")
        advantage = advantage.detach().to(logp.dtype)
    return torch.where(mask, logp, 0), mask, advantage


def reduce(op, loss, mask, reduction):
    """mask None: no token dimension; 'sequence' is then 'mean'."""
    if reduction not in _REDUCTIONS:
        raise ValueError(f"{op}: reduction must be one of {_REDUCTIONS}, got {reduction!r}")
    if mask is None:
        return loss if reduction == "none" else loss.sum() if reduction == "sum" else loss.mean()
    loss = torch.where(mask, loss, 0)
    if reduction == "none":
        return loss
    if reduction == "sequence":
        lengths = mask.sum(-1)
        return (loss.sum(-1) / lengths.clamp(min=1)).sum() / (lengths > 0).sum()
    return loss.sum() if reduction == "sum" else loss.sum() / mask.sum()
