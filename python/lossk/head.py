"""Vocabulary heads: losses and statistics of logits that are never written down.

z = softcap(scale (input linear_weight^T + linear_bias)), softcap(x) = cap tanh(x / cap); input [..., D],
linear_weight [V, D] in float32, bfloat16 or float16 (float64 on a CPU), any strides; sums in float32 (float64).
"""

from typing import NamedTuple

import torch

from . import _check, _head_ops


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


# ---- what every head needs -------------------------------------------------------------------------------------------


class _Head(NamedTuple):
    """Checked arguments as the ops take them: rows flattened, float32 (float64) beside the two matrices."""

    input: torch.Tensor
    linear_weight: torch.Tensor
    linear_bias: torch.Tensor | None
    scale: torch.Tensor | None
    softcap: float
    acc: torch.dtype
    shape: torch.Size  # of the rows


def _head(op, input, linear_weight, linear_bias, scale, softcap, scale_name="scale"):
    device = input.device.type if isinstance(input, torch.Tensor) else "meta"
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        cast = lambda x: x.to(dtype) if isinstance(x, torch.Tensor) and x.dtype in _check.FLOATS[:3] else x  # noqa: E731
        input, linear_weight = cast(input), cast(linear_weight)
    _check.head(op, input, linear_weight, linear_bias)
    _check.softcap(op, softcap)
    shape, acc = input.shape[:-1], _head_ops.acc_dtype(input)
    if isinstance(scale, torch.Tensor):
        _check.floats(op, scale_name, scale, shape, input)
        scale = scale.to(acc).reshape(-1)
    else:
        _check.number(op, "scale", scale, expected="a finite number or a Tensor")
        scale = None if scale == 1 else input.new_full((shape.numel(),), scale, dtype=acc)
    bias = None if linear_bias is None else linear_bias.to(acc)
    return _Head(
        input.reshape(shape.numel(), input.shape[-1]), linear_weight, bias, scale, float(softcap or 0), acc, shape
    )


# ---- cross-entropy ---------------------------------------------------------------------------------------------------


def linear_cross_entropy(
    input,
    linear_weight,
    target=None,
    *,
    linear_bias=None,
    weight=None,
    token_weight=None,
    soft_target=None,
    ignore_index=-100,
    reduction="mean",
    label_smoothing=0.0,
    z_loss=0.0,
    softcap=None,
    scale=1.0,
    margin=0.0,
    shift=0,
    tau=None,
    fill=True,
):
    """Cross-entropy of a linear head without its logits.

    loss_i = token_weight_i (cross_entropy(z_i, target_i, weight, label_smoothing) + z_loss lse_i^2), with
    z = softcap(scale (input linear_weight^T + linear_bias)) and `margin` taken off z at the target.

    input [..., D], linear_weight [V, D], target [...] int64 (ignore_index: no loss, no cost), linear_bias [V],
    weight [V] per class, token_weight [...] of any sign, scale a number or [...] (1 / temperature).
    soft_target = (indices [..., K], weights [..., K]) in place of target: -sum_k weights_k log p[indices_k];
    entries at ignore_index are absent. shift = k: row t predicts target t + k along the last dimension (scale goes
    with the row, token_weight with the target; the result of 'none' is k shorter there).

    Returns float32 (float64 for float64 inputs): a scalar, or [...] for reduction 'none'. 'mean' divides by the
    number of tokens not ignored, or by the sum of their class weights where `weight` is given with hard targets,
    whatever token_weight says; nan where all are ignored. Gradients to input, linear_weight, linear_bias, scale,
    token_weight and the soft weights, in the dtype of each, or in float32 where linear_weight.grad_dtype asks.

    tau in (0, 1) asks for a backward over live columns: of each 128 tokens, those columns whose summed probability is
    tau or more, and the targets, are recomputed; the others share, in proportion to that sum, what they would have had
    together (fill=True) or nothing. 2**-12 is the careful setting, 2**-8 the fast one; None is exact. The loss is the
    same; see lossk.live_report for what was done. Not with softcap and label_smoothing together.

    Cost: forward + backward of 'mean' and 'sum' are three matrix products, of 'none' four (backward recomputes), with
    tau 1 + 3 x the live share. On a GPU all of them are four, and the rows that count are copied once; a weight in
    bfloat16 or float16 with contiguous rows of a multiple of 8 features is read in place, other sizes through copies of
    64 MiB at a time, other strides through one copy; float32 takes six products of bfloat16 for each; with tau a column
    is visited for 1024 tokens together, through copies of 256 MiB at a time, and d weight is summed in float32, all of
    it.

    Errors: ValueError, TypeError on wrong shapes, dtypes, devices, options and targets out of range (on a GPU those
    make the row's loss nan, unless LOSSK_CHECK=1 in the environment asks for the error and its synchronisation);
    RuntimeError on a second derivative. The idea: Wijmans et al. 2024, Cut Your Losses, arXiv:2411.09009, section 4;
    live columns and their fill are lossk's own.
    """
    return _cross_entropy("linear_cross_entropy", **locals())


def _cross_entropy(
    op, input, linear_weight, target, linear_bias, weight, token_weight, soft_target, ignore_index, reduction,
    label_smoothing, z_loss, softcap, scale, margin, shift, tau, fill,
):  # fmt: skip
    h = _head(op, input, linear_weight, linear_bias, scale, softcap)
    vocab = linear_weight.shape[0]
    _check.reduction(op, reduction)
    _check.number(op, "label_smoothing", label_smoothing, 0, 1, "a number in [0, 1]")
    _check.number(op, "z_loss", z_loss)
    _check.number(op, "margin", margin)
    tau = _check.tau(op, tau)
    if tau and softcap and label_smoothing:
        raise ValueError(f"{op}: tau must be None where softcap and label_smoothing are both given, got {tau}")
    if weight is not None:
        _check.floats(op, "weight", weight, (vocab,), h.input)
        if weight.requires_grad:
            raise ValueError(f"{op}: weight must not require grad: the loss has no derivative by class weights")
        weight = weight.to(h.acc)
    if token_weight is not None:
        _check.floats(op, "token_weight", token_weight, h.shape, h.input)
    index, share = _targets(op, h, vocab, target, soft_target, ignore_index, margin)
    if shift:
        index = _shifted(op, index.view(*h.shape, index.shape[-1]), shift, -1).flatten(0, -2)
        share = _shifted(op, share.view(*h.shape, share.shape[-1]), shift, 0).flatten(0, -2)
        token_weight = None if token_weight is None else _shifted(op, token_weight[..., None], shift, 0)[..., 0]

    # loss_i = a lse + b lse^2 - e/V sum_v w_v z_v - sum_k pick_k z_k, so that gradients are linear in what is known now
    present = index >= 0
    active = present.any(-1)
    class_weight = None if weight is None else torch.where(present, weight[index.clamp(0, max(vocab - 1, 0))], 0)
    if class_weight is not None:
        share = share * class_weight
    per_row = active.to(h.acc)
    if reduction == "mean":
        hard_weights = class_weight is not None and soft_target is None
        count = (class_weight if hard_weights else per_row).sum()
        per_row = per_row / count
    if token_weight is not None:
        per_row = per_row * torch.where(active, token_weight.reshape(-1).to(h.acc), 0)
    pick = (1 - label_smoothing) * share * per_row[:, None]
    dense = label_smoothing / max(vocab, 1) * per_row
    smooth_sum = vocab if weight is None else weight.sum()
    aux = weight if label_smoothing else None

    rest = (h.linear_bias, h.scale, index, aux, active, h.softcap, float(margin))
    tensors = (h.input, h.linear_weight, h.linear_bias, h.scale)
    needs = [torch.is_grad_enabled() and x is not None and x.requires_grad for x in tensors]
    live = tau if any(needs) else 0.0
    # On a GPU the backward recomputes: cce_forward would keep d weight in float32, all of it.
    fused = not live and reduction != "none" and not (torch.is_grad_enabled() and pick.requires_grad)
    fused = fused and h.input.device.type == "cpu"
    if fused:
        a = pick.sum(-1) + dense * smooth_sum
        coefs = torch.stack([a, z_loss * per_row] + [-dense] * bool(label_smoothing))
        loss = torch.ops.lossk.cce_forward(*tensors[:2], *rest, coefs, pick, needs)[0]
    else:
        stats, _, logp, *_ = torch.ops.lossk.linear_stats(
            h.input, h.linear_weight, *rest, bool(label_smoothing), live, bool(fill)
        )
        loss = z_loss * per_row * stats[0] ** 2 - torch.where(present, pick * logp, 0).sum(-1)
        if label_smoothing:
            loss = loss - dense * stats[_head_ops.STATS.index("aux_logp")]
    if reduction == "none":
        loss = loss.view(h.shape)
        return loss[..., : h.shape[-1] - shift] if shift else loss
    if not fused:
        loss = loss.sum()
    return loss if reduction == "sum" else torch.where(active.any(), loss, torch.nan)


def _targets(op, h, vocab, target, soft_target, ignore_index, margin):
    """Picked columns [N, K] (-1: none) and their shares of the target distribution."""
    if (target is None) == (soft_target is None):
        raise ValueError(f"{op}: exactly one of target and soft_target must be given")
    if soft_target is None:
        _check.integers(op, "target", target, h.shape, h.input)
        _check.in_vocab(op, "target", target, vocab, ignore_index)
        index = target.reshape(-1, 1).long()
        share = index.new_ones(index.shape, dtype=h.acc)
    else:
        if margin:
            raise ValueError(f"{op}: margin must be 0 with soft_target, which has no single target, got {margin}")
        if not isinstance(soft_target, (tuple, list)) or len(soft_target) != 2:
            raise TypeError(f"{op}: soft_target must be a pair (indices, weights), got {type(soft_target).__name__}")
        indices, weights = soft_target
        _check.tensor(op, "soft_target indices", indices)
        shape = (*h.shape, indices.shape[-1] if indices.dim() else 1)
        _check.integers(op, "soft_target indices", indices, shape, h.input)
        _check.floats(op, "soft_target weights", weights, shape, h.input)
        _check.in_vocab(op, "soft_target indices", indices, vocab, ignore_index)
        flat = (h.shape.numel(), shape[-1])
        index, share = indices.reshape(flat).long(), weights.reshape(flat).to(h.acc)
    ignored = index == ignore_index
    if index.device.type != "cpu":  # in_vocab has not looked: what is below 0 must not pass for absent
        index = torch.where(index < 0, vocab, index)
    return torch.where(ignored, -1, index), torch.where(ignored, 0, share)


def _shifted(op, x, shift, fill):
    """x [..., T, K] moved `shift` steps towards the front of T."""
    if isinstance(shift, bool) or not isinstance(shift, int):
        raise TypeError(f"{op}: shift must be an int >= 0, got {type(shift).__name__}")
    length = x.shape[-2] if x.dim() > 1 else 0
    if not 0 <= shift < length:
        raise ValueError(f"{op}: shift must be in [0, {length}), the length of the last dimension, got {shift}")
    return torch.cat([x[..., shift:, :], x.new_full((*x.shape[:-2], shift, x.shape[-1]), fill)], -2)


def _cce(
    input, linear_weight, target, linear_bias=None, *, ignore_index=-100, reduction="mean", softcap=0.0,
    label_smoothing=0.0, z_loss=0.0, shift=0, tau=0.0,
):  # fmt: skip
    return _cross_entropy(
        "cce", input, linear_weight, target, linear_bias, None, None, None, ignore_index, reduction,
        label_smoothing, z_loss, softcap if softcap != 0 else None, 1.0, 0.0, shift, tau if tau != 0 else None, True,
    )  # fmt: skip


torch.library.impl("lossk::cce", "CompositeImplicitAutograd", _cce)


# ---- statistics ------------------------------------------------------------------------------------------------------


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
    h = _head(op, input, linear_weight, linear_bias, scale, softcap, "temperature")
    index, _ = _targets(op, h, linear_weight.shape[0], target, None, ignore_index, 0.0)
    stats, _, logp, *_ = torch.ops.lossk.linear_stats(
        h.input, h.linear_weight, h.linear_bias, h.scale, index, None, index[:, 0] >= 0, h.softcap, 0.0, True, 0.0, True
    )
    entropy = stats[_head_ops.STATS.index("entropy")]
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
    h = _head(op, input, linear_weight, linear_bias, scale, softcap)
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
    rows = dict(zip(_head_ops.STATS, stats.unbind()))
    found = {name: rows[name].view(h.shape) for name in Stats._fields if name in rows and name in want}
    for name in {"max", "min"} & found.keys():
        found[name] = found[name].detach()
    if "logits" in want:
        found["logits"] = logits.view(*h.shape, logits.shape[-1])
    if "argmax" in want:
        found["argmax"] = argmax.view(h.shape)
    return Stats(**found)
