"""Losses of the logits z [N, V] and targets y [N], each [N]; `of` makes of any of them a loss of a head."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .head import logits


def of(formula):
    """formula(z, y, **own) as a loss of input, linear_weight and target, with what every loss takes."""

    def loss(
        input, linear_weight, target, *, linear_bias=None, token_weight=None, softcap=None, scale=1.0,
        ignore_index=-100, reduction="mean", **own,
    ):  # fmt: skip
        active = target != ignore_index
        z = logits(input, linear_weight, linear_bias, scale, softcap)
        own = {name: x[active] if _per_token(x, target) else x for name, x in own.items()}
        rows = formula(z[active], target[active], **own)
        rows = rows if token_weight is None else rows * token_weight[active].to(rows.dtype)
        if reduction == "none":
            return z.new_zeros(target.shape).masked_scatter(active, rows)
        return rows.mean() if reduction == "mean" else rows.sum()

    return loss


def _per_token(x, target):
    return isinstance(x, Tensor) and x.shape == target.shape


def _p(z, y):
    return z.softmax(-1).gather(-1, y[:, None])[:, 0]


def _onehot(z, y):
    return F.one_hot(y, z.shape[-1]).to(z.dtype)


def _ce(z, y):
    return F.cross_entropy(z, y, reduction="none")


def _entropy(z):
    return -(z.softmax(-1) * z.log_softmax(-1)).sum(-1)


def comp_sum(z, y, order=1.0):
    return _ce(z, y) if order == 1 else (1 - _p(z, y) ** (order - 1)) / (order - 1)


def gce(z, y, q=0.7):
    return (1 - _p(z, y) ** q) / q


def mae(z, y):
    return (z.softmax(-1) - _onehot(z, y)).abs().sum(-1) / 2


def sce(z, y, alpha=0.1, beta=1.0, log_zero=-4.0):
    return alpha * _ce(z, y) - beta * (z.softmax(-1) * (1 - _onehot(z, y)) * log_zero).sum(-1)


def dco(z, y, n=8):
    return -torch.log(1 - (1 - _p(z, y)) ** n)


def focal(z, y, gamma=2.0, alpha=None):
    per_class = alpha.to(z.dtype)[y] if isinstance(alpha, Tensor) else 1.0 if alpha is None else alpha
    return per_class * (1 - _p(z, y)) ** gamma * _ce(z, y)


def ldr_kl(z, y, lam=1.0, margin=0.0):
    ahead = margin * (1 - _onehot(z, y)) + z - z.gather(-1, y[:, None])
    return lam * torch.log((ahead / lam).exp().mean(-1))


def aldr_kl(z, y, lam0=1.0, alpha=2.0, margin=0.0):
    log_vocab = math.log(max(z.shape[-1], 2))
    others = margin * (1 - _onehot(z, y))
    lam = lam0 - lam0 * (log_vocab - _entropy((z + others) / lam0)) / (alpha * log_vocab)
    lam = lam.detach()[:, None]
    ahead = (others + z - z.gather(-1, y[:, None])) / lam
    worst = lam[:, 0] * (ahead.logsumexp(-1) - math.log(z.shape[-1]))
    return worst - alpha * log_vocab / (2 * lam0) * (lam[:, 0] - lam0) ** 2


def logit_anneal(z, y, gamma=5.0, margin=2.0, temperature=0.75):
    z = (z - margin * _onehot(z, y)) / temperature
    return temperature * (1 - _p(z, y)) ** gamma * _ce(z, y)


def dice(z, y, alpha=1.0, smooth=1.0):
    q = (1 - _p(z, y)) ** alpha * _p(z, y)
    return 1 - (2 * q + smooth) / (q + 1 + smooth)


def bootstrap(z, y, w=0.2, mode="hard"):
    belief = _ce(z, z.argmax(-1)) if mode == "hard" else _entropy(z)
    return (1 - w) * _ce(z, y) + w * belief


def brier(z, y):
    return (z.softmax(-1) - _onehot(z, y)).square().sum(-1)


def squentropy(z, y):
    return _ce(z, y) + (z * (1 - _onehot(z, y))).square().sum(-1) / max(z.shape[-1] - 1, 1)


def spherical_z_loss(z, y, a=1.0, b=0.0):
    normal = (z - z.mean(-1, keepdim=True)) / z.std(-1, unbiased=False, keepdim=True)
    return F.softplus(a * (b - normal.gather(-1, y[:, None])[:, 0])) / a


def spherical_softmax(z, y, eps=1e-2):
    f = z**2 + eps
    return f.sum(-1).log() - f.gather(-1, y[:, None])[:, 0].log()


def squared_error(z, y):
    return (z - F.one_hot(y, z.shape[-1])).square().sum(-1)


def cosine_linear(z, y):
    """z: cosines."""
    f = 1 + z
    return f.sum(-1).log() - f.gather(-1, y[:, None])[:, 0].log()


def taylor_softmax(z, y):
    f = 1 + z + z**2 / 2
    return f.sum(-1).log() - f.gather(-1, y[:, None])[:, 0].log()


# ---- sets of classes -------------------------------------------------------------------------------------------------


def ntl_mse(z, y, number_ids, number_values):
    p, values = z[:, number_ids].softmax(-1), number_values.to(z.dtype)
    return ((p * values).sum(-1) - values[(y[:, None] == number_ids).int().argmax(-1)]) ** 2


def ntl_was(z, y, number_ids, number_values):
    p, values = z[:, number_ids].softmax(-1), number_values.to(z.dtype)
    return (p * (values - values[(y[:, None] == number_ids).int().argmax(-1), None]).abs()).sum(-1)


def decoupled_softmax(z, positives, ignore_index=-100):
    """positives [N, K]."""
    loss = z.new_zeros(len(z))
    for n, row in enumerate(positives.tolist()):
        mine = [k for k in row if k != ignore_index]
        others = [v for v in range(z.shape[-1]) if v not in mine]
        for k in mine:
            loss[n] = loss[n] + z[n, [k, *others]].logsumexp(-1) - z[n, k]
    return loss


def hl_gauss(z, value_target, edges, sigma):
    below = torch.distributions.Normal(value_target[:, None].to(z.dtype), sigma).cdf(edges.to(z.dtype))
    q = below.diff(dim=-1) / (below[:, -1:] - below[:, :1])
    return -(q * z.log_softmax(-1)).sum(-1)


# ---- with a second head


def emo(z, y, cost_embedding=None, mode="emo1", linear_weight=None):
    cost = F.normalize((linear_weight if cost_embedding is None else cost_embedding).detach(), dim=-1).to(z.dtype)
    demd = 1 - (z.softmax(-1) * (cost[y] @ cost.T)).sum(-1) + _p(z, y).detach()
    ce = _ce(z, y)
    if mode == "demd":
        return demd
    first, second = (ce, demd) if mode == "emo1" else (demd, ce)
    return (first + (first / (second + 1e-10)).detach() * second) / (2 if mode == "emo1" else 1)


def plackett_luce_distill(z, y, teacher_logits, k=10, temperature=4.0):
    """teacher_logits [N, V]: the whole ranking is made, and its first k + 1 terms count."""
    share = (teacher_logits / temperature).softmax(-1)
    order = teacher_logits.masked_fill(_onehot(z, y).bool(), math.inf).argsort(-1, descending=True)
    ranked, share = z.gather(-1, order), share.gather(-1, order).to(z.dtype)
    terms = share * (ranked.flip(-1).logcumsumexp(-1).flip(-1) - ranked)
    best = (teacher_logits.argsort(-1, descending=True)[:, :k] == y[:, None]).any(-1)
    return terms.masked_fill(torch.arange(z.shape[-1], device=z.device) > (k - best.int())[:, None], 0).sum(-1)


# ---- pairs of logits: linear_pairwise


def _others(z, y, f):
    """sum_{v != y} f(z_v - z_y)."""
    return (f(z - z.gather(-1, y[:, None])) * (1 - _onehot(z, y))).sum(-1)


def pairwise_sigmoid(z, y, bias=0.0):
    return F.softplus((1 - 2 * _onehot(z, y)) * (z + bias), threshold=40.0).sum(-1)


def pairwise_mw(z, y):
    return _others(z, y, lambda d: F.softplus(d, threshold=40.0)) / (z.shape[-1] - 1)


def pairwise_hinge(z, y, margin=1.0):
    return _others(z, y, lambda d: (margin + d).clamp(min=0)) / z.shape[-1]


def pairwise_psl(z, y, activation="tanh", temperature=0.2):
    d = (z - z.gather(-1, y[:, None])).masked_fill(_onehot(z, y).bool(), -math.inf)
    log = math.log(2) + F.logsigmoid(2 * d) if activation == "tanh" else (1 + d).clamp(min=0).log()
    return (log / temperature).logsumexp(-1)
