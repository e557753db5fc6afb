"""Row statistics of logits that are never written down: what losses are composed from.

z, shapes and dtypes as in head.py.
"""

from typing import NamedTuple

import torch

from . import _arguments, _check
from ._head_ops import STATS


class LogP(NamedTuple):
    logp: torch.Tensor
    entropy: torch.Tensor
    lse: torch.Tensor


class Stats(NamedTuple):
    """Row statistics, None where not wanted; see linear_stats."""

    lse: torch.Tensor | None = None
    lse_excl: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    mean_logit: torch.Tensor | None = None
    entropy: torch.Tensor | None = None
    lse2: torch.Tensor | None = None
    aux_mean: torch.Tensor | None = None
    max: torch.Tensor | None = None
    argmax: torch.Tensor | None = None
    min: torch.Tensor | None = None


def linear_logp(
    input, linear_weight, target, *, linear_bias=None, temperature=1.0, softcap=None, ignore_index=-100
):  # fmt: skip
    """Log-probability of the target, entropy and lse of every token: what RL and preference losses are made of.

    logp = z_target - lse, entropy = lse - E_p[z]; z = softcap((input linear_weight^T + linear_bias) / temperature).
    input [..., D], linear_weight [V, D], target [...] int64, temperature a number > 0 or [...].
    Returns LogP(logp, entropy, lse), each [...] float32 (float64), all differentiable (also by temperature); 0 on
    ignored tokens. Errors as linear_cross_entropy.
    """
    op = "linear_logp"
    if isinstance(temperature, torch.Tensor):
        scale = temperature.reciprocal()
    else:
        _check.number(op, "temperature", temperature, expected="a number > 0 or a Tensor")
        if temperature <= 0:
            raise ValueError(f"{op}: temperature must be a number > 0 or a Tensor, got {temperature}")
        scale = 1.0 / temperature
    h = _arguments.head(op, input, linear_weight, linear_bias, scale, softcap, "temperature")
    index, _ = _arguments.targets(op, h, linear_weight.shape[0], target, None, ignore_index, 0.0)
    stats, _, logp, *_ = torch.ops.lossk.linear_stats(
        h.input, h.linear_weight, h.linear_bias, h.scale, index, None, index[:, 0] >= 0, h.softcap, 0.0, True, 0.0, True
    )
    entropy = stats[STATS.index("entropy")]
    return LogP(logp[:, 0].view(h.shape), entropy.view(h.shape), stats[0].view(h.shape))


def linear_stats(
    input, linear_weight, index=None, *, linear_bias=None, scale=1.0, softcap=None, want=("lse",), aux=None
):  # fmt: skip
    """Row statistics of the logits, each [...] float32 (float64): the base that losses are composed from.

    lse = log sum_v e^z; lse_excl = the same without index's columns; logits = z at index, [..., K]; mean_logit = E_p z;
    entropy = lse - E_p z; lse2 = log sum_v e^(2z); aux_mean = E_p aux; max, argmax, min of z.
    input [..., D], linear_weight [V, D], index [..., K] int64 (-1: none), scale a number or [...], aux [V].
    want: the names to return, in a Stats named tuple; lse, lse_excl, logits, mean_logit, entropy, lse2 and aux_mean
    are differentiable by input, linear_weight, linear_bias and scale. Errors as linear_cross_entropy.
    """
    op = "linear_stats"
    if isinstance(want, str) or not set(want) <= set(Stats._fields):
        raise ValueError(f"{op}: want must be names among {list(Stats._fields)}, got {want!r}")
    h = _arguments.head(op, input, linear_weight, linear_bias, scale, softcap)
    vocab = linear_weight.shape[0]
    if index is None:
        if {"lse_excl", "logits"} & set(want):
            raise ValueError(f"{op}: index must be given where lse_excl or logits is wanted, got None")
    else:
        _check.tensor(op, "index", index)
        _check.integers(op, "index", index, (*h.shape, index.shape[-1] if index.dim() else 1), h.input)
        _check.in_vocab(op, "index", index, vocab, -1)
        index = index.reshape(h.shape.numel(), index.shape[-1]).long()
    if "aux_mean" in want and aux is None:
        raise ValueError(f"{op}: aux must be given where aux_mean is wanted, got None")
    if aux is not None:
        _check.floats(op, "aux", aux, (vocab,), h.input)
        if aux.requires_grad:
            raise ValueError(f"{op}: aux must not require grad")
        aux = aux.to(h.acc)
    full = not set(want) <= {"lse", "logits"}
    stats, logits, _, argmax, _ = torch.ops.lossk.linear_stats(
        h.input, h.linear_weight, h.linear_bias, h.scale, index, aux, None, h.softcap, 0.0, full, 0.0, True
    )
    rows = dict(zip(STATS, stats.unbind()))
    found = {name: rows[name].view(h.shape) for name in Stats._fields if name in rows and name in want}
    for name in {"max", "min"} & found.keys():
        found[name] = found[name].detach()
    if "logits" in want:
        found["logits"] = logits.view(*h.shape, logits.shape[-1])
    if "argmax" in want:
        found["argmax"] = argmax.view(h.shape)
    return Stats(**found)
