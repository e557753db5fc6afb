"""The linear head in plain torch: any floating dtype, differentiable any number of times, O(N V) memory.

Shapes: input [..., D], linear_weight [V, D], linear_bias [V], target [...]. Half-precision logits are widened to
float32 after the product, as models do; float32 and float64 stay what they are.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .live import visit_live


class Stats(NamedTuple):
    lse: Tensor
    lse_excl: Tensor | None
    logits: Tensor | None
    mean_logit: Tensor
    entropy: Tensor
    lse2: Tensor
    aux_mean: Tensor | None
    aux_logp: Tensor | None
    max: Tensor
    argmax: Tensor
    min: Tensor


class LogP(NamedTuple):
    logp: Tensor
    entropy: Tensor
    lse: Tensor


def logits(input, linear_weight, linear_bias=None, scale=1.0, softcap=None, target=None, margin=0.0, visit=None):
    """z[..., V] = cap tanh(x / cap) with x = scale (input linear_weight^T + linear_bias); then z[target] -= margin."""
    z = F.linear(input, linear_weight)
    z = z if z.dtype == torch.float64 else z.float()
    if linear_bias is not None:
        z = z + linear_bias.to(z.dtype)
    z = z * (scale.to(z.dtype).unsqueeze(-1) if isinstance(scale, Tensor) else scale)
    if visit is not None:
        z = visit(z)
    if softcap is not None:
        z = softcap * torch.tanh(z / softcap)
    if margin:
        z = z - margin * F.one_hot(target, z.shape[-1]).to(z.dtype)
    return z


def linear_cross_entropy(
    input, linear_weight, target=None, *, linear_bias=None, weight=None, token_weight=None, soft_target=None,
    ignore_index=-100, reduction="mean", label_smoothing=0.0, z_loss=0.0, softcap=None, scale=1.0, margin=0.0, shift=0,
    tau=None, fill=True, sketch=None, list_rows=128,
):  # fmt: skip
    """token_weight (-sum_v q_v weight_v log p_v + z_loss lse^2) with q = (1 - eps) t + eps / V, eps = label_smoothing.

    t is one-hot at target, or sum_k weights_k one_hot(indices_k) for soft_target = (indices, weights) [..., K]. An
    index equal to ignore_index is absent; a row with no index gives 0. mean divides by the number of the other rows,
    or by the sum of their class weights where target is hard and weight given. shift = k: row t predicts target t + k;
    scale goes with the row, token_weight with the target. tau, fill: the gradient of live.py, which passes the dense
    part of label smoothing by; sketch: the mass of the blocks, where it is not to be that of p; list_rows as there.
    """
    index, share = (target.unsqueeze(-1), 1.0) if soft_target is None else soft_target
    if shift:
        input, index = input[..., :-shift, :], index[..., shift:, :]
        share = share[..., shift:, :] if isinstance(share, Tensor) else share
        scale = scale[..., :-shift] if isinstance(scale, Tensor) else scale
        token_weight = None if token_weight is None else token_weight[..., shift:]
    present = index != ignore_index
    index, active = index.where(present, 0), present.any(-1)
    head = (input, linear_weight, linear_bias, scale, softcap, index[..., 0] if margin else None, margin)
    z = dense = logits(*head)
    if tau is not None:
        picked = (F.one_hot(index, z.shape[-1]).bool() & present.unsqueeze(-1)).any(-2)
        p = z.detach().softmax(-1)
        z = logits(*head, visit=lambda u: visit_live(u, p, picked, active, tau, fill, sketch, list_rows))
    logp, lse = z.log_softmax(-1), z.logsumexp(-1)
    per_class = z.new_ones(z.shape[-1]) if weight is None else weight.to(z.dtype)
    share = present * share * per_class[index]
    loss = -(1 - label_smoothing) * (share * logp.gather(-1, index)).sum(-1)
    if label_smoothing:
        smooth = (per_class * (logp if tau is None else dense - lse.unsqueeze(-1))).sum(-1)
        loss = loss - label_smoothing / z.shape[-1] * smooth
    loss = (loss + z_loss * lse**2) * (1.0 if token_weight is None else token_weight)
    loss = loss.where(active, 0)
    if reduction == "none":
        return loss
    count = share.sum() if soft_target is None else active.sum()
    return loss.sum() / count if reduction == "mean" else loss.sum()


def linear_stats(input, linear_weight, index=None, *, linear_bias=None, scale=1.0, softcap=None, aux=None):
    """All row statistics of z. p = softmax(z); index [..., K], -1 = absent (its logit is 0); aux [V].

    lse = log sum e^z, lse_excl = the same without index, logits = z[index], mean_logit = E_p z, entropy = -E_p log p,
    lse2 = log sum e^(2z), aux_mean = E_p aux, aux_logp = sum aux log p.
    """
    z = logits(input, linear_weight, linear_bias, scale, softcap)
    logp = z.log_softmax(-1)
    p, finite = logp.exp(), z != -math.inf
    excluded = picked = None
    if index is not None:
        present, safe = index >= 0, index.clamp(min=0)
        hit = F.one_hot(safe, z.shape[-1]).bool() & present.unsqueeze(-1)
        excluded = z.masked_fill(hit.any(-2), -math.inf).logsumexp(-1)
        picked = z.gather(-1, safe).where(present, 0)
    return Stats(
        lse=z.logsumexp(-1),
        lse_excl=excluded,
        logits=picked,
        mean_logit=(p * z.where(finite, 0)).sum(-1),
        entropy=-(p * logp.where(finite, 0)).sum(-1),
        lse2=(2 * z).logsumexp(-1),
        aux_mean=None if aux is None else (p * aux.to(z.dtype)).sum(-1),
        aux_logp=None if aux is None else (logp * aux.to(z.dtype)).sum(-1),
        max=z.amax(-1),
        argmax=z.argmax(-1),
        min=z.amin(-1),
    )


def linear_logp(
    input, linear_weight, target, *, linear_bias=None, temperature=1.0, softcap=None, ignore_index=-100
):  # fmt: skip
    """log p[target], -E_p log p and log sum e^z for z at scale 1 / temperature; 0 where target is ignore_index."""
    active = target != ignore_index
    index, options = target.where(active, 0).unsqueeze(-1), {"linear_bias": linear_bias, "softcap": softcap}
    s = linear_stats(input, linear_weight, index, scale=1 / temperature, **options)
    return LogP(*(x.where(active, 0) for x in (s.logits.squeeze(-1) - s.lse, s.entropy, s.lse)))
