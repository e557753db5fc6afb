"""Row statistics of logits that are never written down: what losses are composed from.

z, shapes and dtypes as in head.py.
"""

from typing import NamedTuple

import torch

from . import _arguments, _check, _keep, _vocab_parallel
from ._head_ops import STATS, only_wanted, wants_fp32_grad


class LogP(NamedTuple):
    logp: torch.Tensor
    entropy: torch.Tensor
    lse: torch.Tensor


class Metrics(NamedTuple):
    """Scalars over the tokens that are not ignored, nan where there are none; see linear_metrics."""

    loss: torch.Tensor
    perplexity: torch.Tensor
    accuracy: torch.Tensor
    entropy: torch.Tensor
    tokens: torch.Tensor


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
    input,
    linear_weight,
    target,
    *,
    linear_bias=None,
    temperature=1.0,
    softcap=None,
    ignore_index=-100,
    tau=None,
    saved=None,
    group=None,
):
    """Log-probability of the target, entropy and lse of every token: what RL and preference losses are made of.

    logp = z_target - lse, entropy = lse - E_p[z]; z = softcap((input linear_weight^T + linear_bias) / temperature).
    input [..., D], linear_weight [V, D], target [...] int64, temperature a number > 0 or [...].
    Returns LogP(logp, entropy, lse), each [...] float32 (float64), all differentiable (also by temperature); 0 on
    ignored tokens.

    saved: the LogP of these rows, from a call under no_grad with the same arguments. Its values are returned and the
    forward is not repeated; gradients are as without it, except that lse was rounded to float32 (at |lse| = 1e4 that
    is 5e-4 of each probability). So a selection of tokens costs one product for all and three for those it keeps:

        with torch.no_grad():
            all = linear_logp(x, weight, target)
        keep = choose(all)  # bool
        kept = linear_logp(x[keep], weight, target[keep], saved=LogP(*(s[keep] for s in all)))

    tau: a backward over live columns, as in linear_cross_entropy, from 2**-12 at most: entropy's gradient decays
    slowly. Not with softcap, nor with saved. group: the vocabulary is sharded among a process group, as in
    linear_cross_entropy; not with saved. Errors as linear_cross_entropy.
    """
    op = "linear_logp"
    scale = _arguments.one_over(op, "temperature", temperature)
    h = _arguments.head(op, input, linear_weight, linear_bias, scale, softcap, "temperature")
    if group is not None:
        _vocab_parallel.check_group(op, group)
        if saved is not None:
            raise ValueError(f"{op}: group must be None with saved, which has no values of the shards")
    shard = None if group is None else _vocab_parallel.Shard(op, group, h)
    vocab = linear_weight.shape[0] if shard is None else shard.vocab
    index, _ = _arguments.targets(op, h, vocab, target, None, ignore_index, 0.0)
    active = index[:, 0] >= 0
    if saved is not None:
        if tau is not None:
            raise ValueError(f"{op}: tau must be None with saved, whose call has left no sketch, got {tau}")
        logp, entropy, lse = _saved_rows(op, h, saved)
        lse = torch.stack([lse, torch.zeros_like(lse)])
        logp, entropy, lse = saved_statistics(h, index, active, logp[:, None], entropy, lse)
    elif shard is None:
        stats, _, logp, *_ = statistics(op, h, index, None, active, full=True, tau=tau)
        entropy, lse = stats[STATS.index("entropy")], stats[0]
    else:
        logp, entropy, lse = _logp_of_shards(op, shard, h, index, active, tau)
    return LogP(*(x.view(h.shape) for x in (logp[:, 0], entropy, lse)))


def _logp_of_shards(op, shard, h, index, active, tau):
    stats, logits, *_ = statistics(op, shard.tokens(h), shard.local(index), None, active, full=True, tau=tau)
    lse, logp, shards = shard.gather(index, stats, logits, stats[STATS.index("entropy")].double())
    lses, entropies = shards.unbind(1)
    # lse - sum_r w_r E_r[z], as numbers that do not cancel; a shard may have no columns
    entropy = (torch.exp(lses - lse) * torch.where(lses == -torch.inf, 0, entropies + (lse - lses))).sum(0)
    some = lambda x: torch.where(active, x, 0).to(h.acc)  # noqa: E731
    return some(logp[:, 0])[:, None], some(entropy), some(lse)


def _saved_rows(op, h, saved):
    if not isinstance(saved, (tuple, list)) or len(saved) != 3:
        raise TypeError(f"{op}: saved must be a LogP (logp, entropy, lse), got {type(saved).__name__}")
    for name, x in zip(LogP._fields, saved):
        _check.floats(op, f"saved {name}", x, h.shape, h.input)
    return [x.detach().to(h.acc).reshape(-1) for x in saved]


def linear_stats(
    input, linear_weight, index=None, *, linear_bias=None, scale=1.0, softcap=None, want=("lse",), aux=None, tau=None
):  # fmt: skip
    """Row statistics of the logits, each [...] float32 (float64): the base that losses are composed from.

    lse = log sum_v e^z; lse_excl = the same without index's columns; logits = z at index, [..., K]; mean_logit = E_p z;
    entropy = lse - E_p z; lse2 = log sum_v e^(2z); aux_mean = E_p aux; max, argmax, min of z.
    input [..., D], linear_weight [V, D], index [..., K] int64 (-1: none), scale a number or [...], aux [V].
    want: the names to return, in a Stats named tuple; lse, lse_excl, logits, mean_logit, entropy, lse2 and aux_mean
    are differentiable by input, linear_weight, linear_bias and scale. tau: a backward over live columns, as in
    linear_cross_entropy; from 2**-12 at most, and not with softcap, where more is wanted than lse and logits, whose
    gradients decay slowly. Errors as linear_cross_entropy.
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
        _check.column_sets(op, "index", index, h.shape, h.input)
        _check.in_vocab(op, "index", index, vocab, -1)
        index = index.reshape(h.shape.numel(), index.shape[-1]).long()
    if "aux_mean" in want and aux is None:
        raise ValueError(f"{op}: aux must be given where aux_mean is wanted, got None")
    if aux is not None:
        _check.floats(op, "aux", aux, (vocab,), h.input)
        if aux.requires_grad:
            raise ValueError(f"{op}: aux must not require grad")
        aux = aux.to(h.acc)
    stats, logits, _, argmax, *_ = statistics(op, h, index, aux, None, full=not set(want) <= {"lse", "logits"}, tau=tau)
    rows = dict(zip(STATS, stats.unbind()))
    found = {name: rows[name].view(h.shape) for name in Stats._fields if name in rows and name in want}
    for name in {"max", "min"} & found.keys():
        found[name] = found[name].detach()
    if "logits" in want:
        found["logits"] = logits.view(*h.shape, logits.shape[-1])
    if "argmax" in want:
        found["argmax"] = argmax.view(h.shape)
    return Stats(**found)


@torch.no_grad()
def linear_metrics(input, linear_weight, target, *, linear_bias=None, scale=1.0, softcap=None, ignore_index=-100):
    """What an evaluation reports, in one forward without logits or gradients.

    loss: mean cross-entropy in nats; perplexity e^loss; accuracy: share of tokens whose target has the largest logit;
    entropy: mean of the model's, in nats; tokens: how many are not ignored. In training linear_stats gives the argmax
    beside the loss's own statistics. Arguments and errors as linear_cross_entropy.
    """
    op = "linear_metrics"
    h = _arguments.head(op, input, linear_weight, linear_bias, scale, softcap)
    index, _ = _arguments.targets(op, h, linear_weight.shape[0], target, None, ignore_index, 0.0)
    active = index[:, 0] >= 0
    stats, _, logp, argmax, *_ = statistics(op, h, index, None, active, full=True)
    tokens = active.sum()
    mean = lambda x: torch.where(active, x, 0).sum() / tokens  # noqa: E731
    loss = -mean(logp[:, 0])
    right = (argmax == index[:, 0]).to(h.acc)
    return Metrics(loss, loss.exp(), mean(right), mean(stats[STATS.index("entropy")]), tokens)


# ---- for losses too: checked arguments, rows flattened ---------------------------------------------------------------


def statistics(op, h, index, aux, active, *, full, tau=None, fill=True, margin=0.0):
    """What the op linear_stats gives for an _arguments.Head; its stats [12, N] are named in _head_ops.STATS."""
    tau = _check.tau(op, tau)
    if tau and full and h.softcap:
        raise ValueError(f"{op}: tau must be None with softcap where more than lse and logits is wanted, got {tau}")
    differentiable = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in h[:4])
    tau, keep = (tau, _keep.columns(h, tau)) if differentiable else (0.0, 0)
    return torch.ops.lossk.linear_stats(*h[:4], index, aux, active, h.softcap, float(margin), full, tau, fill, keep)


def saved_statistics(h, index, active, logp, entropy, lse):
    """logp [N, K] at index, entropy [N] and lse [N] of the active rows, as a call without gradient has found them, with
    the gradients that they would have had. lse [2, N]: and what its rounding left off.
    """
    return _Saved.apply(*h[:4], index, active, h.softcap, logp, entropy, lse)


class _Saved(torch.autograd.Function):
    @staticmethod
    def forward(ctx, input, linear_weight, linear_bias, scale, index, active, softcap, logp, entropy, lse):
        ctx.softcap, ctx.weight_grad_fp32 = softcap, wants_fp32_grad(linear_weight)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(input, linear_weight, linear_bias, scale, index, active, entropy, lse)
        return torch.where(active[:, None], logp, 0), torch.where(active, entropy, 0), torch.where(active, lse[0], 0)

    @staticmethod
    def backward(ctx, g_logp, g_entropy, g_lse):
        *head, index, active, entropy, lse = ctx.saved_tensors
        zero = torch.zeros_like(entropy)
        a0 = zero if g_lse is None else g_lse
        if g_logp is not None:
            a0 = a0 - g_logp.sum(1)
        rows = [a0] if g_entropy is None else [a0 - g_entropy * entropy, -g_entropy, zero, zero, zero, zero]
        grads = torch.ops.lossk.linear_stats_backward(
            *head, index, None, active, ctx.softcap, 0.0, lse, lse,  # lse_excl has no gradient here, but its place
            torch.stack(rows), None if g_logp is None else -g_logp, None, None, 0, list(ctx.needs_input_grad[:4]),
            ctx.weight_grad_fp32,
        )  # fmt: skip
        return *only_wanted(ctx.needs_input_grad, grads), *[None] * 6
