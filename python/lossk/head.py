"""Vocabulary heads: losses and statistics of logits that are never written down.

z = softcap(scale (input linear_weight^T + linear_bias)), softcap(x) = cap tanh(x / cap); input [..., D],
linear_weight [V, D] in float32, bfloat16 or float16 (float64 on a CPU), any strides; sums in float32 (float64).
"""

import torch

from . import _arguments, _check, _head_ops, _vocab_parallel
from .stats import statistics


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
    group=None,
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

    group: a torch.distributed.ProcessGroup that the vocabulary is sharded among (tensor parallelism). linear_weight and
    linear_bias are then this rank's shard of it, in the order of the group's ranks, of any size; everything else, class
    weights too, is of the whole vocabulary and the same on all ranks. So is the loss, and so must be the gradient that
    comes back and the tensors that want one; those of input and scale are summed over the ranks. Forward gathers each
    rank's sizes, and 1 + K float64 numbers of each token, one more with label_smoothing; backward all-reduces the
    gradients of input and scale in float32. An error on one rank alone leaves the others waiting. tau looks at a
    shard's own softmax. A token whose logits are all -inf in some shard, though not in all, has gradients of nan.

    Cost: forward + backward of 'mean' and 'sum' are three matrix products, of 'none' four (backward recomputes), with
    tau 1 + 3 x the live share; in bfloat16 on a CPU with AMX all of them are four. On a GPU they are too, or three in
    a block of lossk.keep_logits(), and the rows that count are copied once; a weight in bfloat16 or float16 with
    contiguous rows of a multiple of 8 features is read in place, other sizes through copies of 64 MiB at a time, other
    strides through one copy; float32 takes six products of bfloat16 for each; with tau a column is visited for 1024
    tokens together, through copies of 256 MiB at a time, and d weight is summed in float32, all of it.

    Errors: ValueError, TypeError on wrong shapes, dtypes, devices, options and targets out of range (on a GPU those
    make the row's loss nan, unless LOSSK_CHECK=1 in the environment asks for the error and its synchronisation);
    RuntimeError on a second derivative. The idea: Wijmans et al. 2024, Cut Your Losses, arXiv:2411.09009, section 4;
    live columns and their fill are lossk's own.
    """
    return _cross_entropy(
        "linear_cross_entropy", input, linear_weight, target, linear_bias, weight, token_weight, soft_target,
        ignore_index, reduction, label_smoothing, z_loss, softcap, scale, margin, shift, tau, fill, group,
    )  # fmt: skip


def _cross_entropy(
    op, input, linear_weight, target, linear_bias, weight, token_weight, soft_target, ignore_index, reduction,
    label_smoothing, z_loss, softcap, scale, margin, shift, tau, fill, group=None,
):  # fmt: skip
    h = _arguments.head(op, input, linear_weight, linear_bias, scale, softcap)
    if group is not None:
        _vocab_parallel.check_group(op, group)
    _check.reduction(op, reduction)
    _check.number(op, "label_smoothing", label_smoothing, 0, 1, "a number in [0, 1]")
    _check.number(op, "z_loss", z_loss)
    _check.number(op, "margin", margin)
    tau = _check.tau(op, tau)
    if tau and softcap and label_smoothing:
        raise ValueError(f"{op}: tau must be None where softcap and label_smoothing are both given, got {tau}")
    if token_weight is not None:
        _check.floats(op, "token_weight", token_weight, h.shape, h.input)
    shard = None if group is None else _vocab_parallel.Shard(op, group, h)
    vocab = linear_weight.shape[0] if shard is None else shard.vocab
    if weight is not None:
        if shard is None:
            _check.floats(op, "weight", weight, (vocab,), h.input)
        else:
            weight = shard.class_weights(op, weight, h)
        if weight.requires_grad:
            raise ValueError(f"{op}: weight must not require grad: the loss has no derivative by class weights")
        weight = weight.to(h.acc)
    index, share = _arguments.targets(op, h, vocab, target, soft_target, ignore_index, margin)
    if shift:
        index = _shifted(op, index.view(*h.shape, index.shape[-1]), shift, -1).flatten(0, -2)
        share = _shifted(op, share.view(*h.shape, share.shape[-1]), shift, 0).flatten(0, -2)
        token_weight = None if token_weight is None else _shifted(op, token_weight[..., None], shift, 0)[..., 0]

    # loss_i = a lse + b lse^2 - e/V sum_v w_v z_v - sum_k pick_k z_k, so that gradients are linear in what is known now
    present = index >= 0
    active = present.any(-1)
    class_weight = None if weight is None else torch.where(present, weight[index.clamp(0, max(len(weight) - 1, 0))], 0)
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
    dense = label_smoothing / (vocab.double() if isinstance(vocab, torch.Tensor) else max(vocab, 1)) * per_row
    smooth_sum = vocab if weight is None else weight.sum()
    aux = weight if label_smoothing else None

    needs = [torch.is_grad_enabled() and x is not None and x.requires_grad for x in h[:4]]
    live = tau and any(needs)
    fused = not live and reduction != "none" and not (torch.is_grad_enabled() and pick.requires_grad)
    fused = fused and shard is None and _head_ops.gradient_in_forward(h.input)
    if fused:
        a = pick.sum(-1) + dense * smooth_sum
        coefs = torch.stack([a, z_loss * per_row, *([-dense] if label_smoothing else [])])
        loss = torch.ops.lossk.cce_forward(*h[:4], index, aux, active, h.softcap, float(margin), coefs, pick, needs)[0]
    else:
        own = index
        if shard is not None:
            h, own, aux = shard.tokens(h), shard.local(index), None if aux is None else shard.of(aux)
        how = dict(full=bool(label_smoothing), tau=tau or None, fill=bool(fill), margin=margin)
        stats, logits, logp, *_ = statistics(op, h, own, aux, active, **how)
        lse, aux_logp = stats[0], stats[_head_ops.STATS.index("aux_logp")] if label_smoothing else None
        if shard is not None:
            aux_dot = []  # sum_v aux_v z_v of the shard; aux_logp is relative to its lse, -inf where it has no columns
            if label_smoothing and shard.columns:
                aux_dot = [aux_logp + (shard.columns if aux is None else aux.sum()) * _vocab_parallel.lse_of(stats)]
            elif label_smoothing:
                aux_dot = [torch.zeros_like(per_row, dtype=torch.float64)]
            lse, logp, shards = shard.gather(index, stats, logits, *aux_dot)
            aux_logp = shards[:, 1].sum(0) - smooth_sum * lse if label_smoothing else None
        loss = z_loss * per_row * lse**2 - torch.where(present, pick * logp, 0).sum(-1)
        if label_smoothing:
            loss = loss - dense * aux_logp
        loss = loss.to(h.acc)
    if reduction == "none":
        loss = loss.view(h.shape)
        return loss[..., : h.shape[-1] - shift] if shift else loss
    if not fused:
        loss = loss.sum()
    return loss if reduction == "sum" else torch.where(active.any(), loss, torch.nan)


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
