"""Contrastive and margin losses with all similarities in memory: what lossk.losses' must equal."""

import math

import torch
import torch.nn.functional as F

from .head import logits


def unit(x, normalize=True):
    return F.normalize(x, dim=-1) if normalize else x


def similarities(x, y, normalize=True):
    return logits(unit(x, normalize), unit(y, normalize))


def at(z, index):
    return z.gather(-1, index[..., None])[..., 0]


def reduced(loss, active, token_weight, reduction):
    """loss of the active rows [n], as a loss of all of them."""
    loss = loss if token_weight is None else loss * token_weight[active].to(loss.dtype)
    if reduction == "none":
        return loss.new_zeros(active.shape).masked_scatter(active, loss)
    return loss.mean() if reduction == "mean" else loss.sum()


# ---- two sets of vectors ---------------------------------------------------------------------------------------------


def contrastive(formula):
    """formula(z, y, x's similarities within, **own) -> [n], z [n, M] of the rows with a positive y [n]."""

    def loss(
        x, y, target=None, *, temperature, normalize=True, symmetric=False, token_weight=None, ignore_index=-100,
        reduction="mean", **own,
    ):  # fmt: skip
        target = torch.arange(len(x), device=x.device) if target is None else target
        active = target != ignore_index
        per_row = temperature[..., None] if isinstance(temperature, torch.Tensor) and temperature.dim() else temperature
        own = {name: tuple(x[active] for x in value) if name == "similar" else value for name, value in own.items()}
        directions = [(x, y), (y, x)] if symmetric else [(x, y)]
        rows = [
            formula(
                (similarities(a, b, normalize) / per_row)[active], target[active],
                (similarities(a, a, normalize) / per_row)[active], **own,
            )
            for a, b in directions
        ]  # fmt: skip
        return reduced(sum(rows) / len(rows), active, token_weight, reduction)

    return loss


@contrastive
def info_nce(z, y, within):
    return z.logsumexp(-1) - at(z, y)


@contrastive
def dcl(z, y, inner, within=False):
    others = z.masked_fill(F.one_hot(y, z.shape[-1]).bool(), -math.inf)
    if within:
        others = torch.cat([others, inner.masked_fill(torch.eye(len(inner)).bool().to(z.device), -math.inf)], -1)
    return others.logsumexp(-1) - at(z, y)


@contrastive
def soft_info_nce(z, y, within, similar, alpha=1.0, beta=1.0, least=0.1):
    q, mine = z.new_zeros(z.shape), F.one_hot(y, z.shape[-1]).bool()
    known = mine.clone()
    for n, (indices, values) in enumerate(zip(*similar)):
        for v, value in zip(indices.tolist(), values):
            if v not in (-1, y[n]):
                q[n, v], known[n, v] = value, True
    rest = (1 - q.sum(-1, keepdim=True)).clamp(min=0) / (~known).sum(-1, keepdim=True).clamp(min=1)
    q = torch.where(known, q, rest)
    w = ((beta - alpha * q) / (beta - alpha / max(z.shape[-1] - 1, 1))).clamp(min=least)
    return (z + torch.where(mine, 1, w).log()).logsumexp(-1) - at(z, y)


def siglip(
    x, y, target=None, *, scale=10.0, bias=-10.0, normalize=True, token_weight=None, ignore_index=-100,
    reduction="mean",
):  # fmt: skip
    target = torch.arange(len(x), device=x.device) if target is None else target
    active = target != ignore_index
    per_row = scale[..., None] if isinstance(scale, torch.Tensor) and scale.dim() else scale
    z = (similarities(x, y, normalize) * per_row + bias)[active]
    sign = 2 * F.one_hot(target[active], len(y)) - 1
    return reduced(-F.logsigmoid(sign * z).sum(-1), active, token_weight, reduction)


def multi_similarity(
    x, y=None, positives=None, *, labels=None, alpha=2.0, beta=50.0, base=0.5, normalize=True, token_weight=None,
    reduction="mean",
):  # fmt: skip
    s = similarities(x, x if y is None else y, normalize)
    own = torch.eye(len(x)).bool().to(x.device) if y is None else torch.zeros_like(s, dtype=torch.bool)
    if labels is None:
        positive = (positives[..., None] == torch.arange(s.shape[-1], device=x.device)).any(1)
    else:
        positive = labels[:, None] == labels
    near = (-alpha * (s - base)).exp() * (positive & ~own)
    far = (beta * (s - base)).exp() * ~(positive | own)
    loss = (1 + near.sum(-1)).log() / alpha + (1 + far.sum(-1)).log() / beta
    return reduced(loss, torch.ones_like(loss, dtype=torch.bool), token_weight, reduction)


# ---- a class weight --------------------------------------------------------------------------------------------------


def margin(formula):
    """formula(cosines [n, V], y [n], input [n, D], scale, **own) -> [n]."""

    def loss(
        input, linear_weight, target, *, token_weight=None, scale=64.0, ignore_index=-100, reduction="mean", **own
    ):  # fmt: skip
        active = target != ignore_index
        cosine = similarities(input, linear_weight)[active]
        scale = scale[active][:, None] if isinstance(scale, torch.Tensor) and scale.dim() else scale
        rows = formula(cosine, target[active], input[active], scale, **own)
        return reduced(rows, active, token_weight, reduction)

    return loss


def with_target(cosine, y, changed):
    return torch.where(F.one_hot(y, cosine.shape[-1]).bool(), changed[:, None], cosine)


def ce(z, y):
    return F.cross_entropy(z, y, reduction="none")


@margin
def cosface(cosine, y, input, scale, m=0.4):
    return ce(scale * with_target(cosine, y, at(cosine, y) - m), y)


def arc(c, m):
    sine = (1 - c**2).clamp(min=1e-6).sqrt()
    return torch.where(c > math.cos(math.pi - m), c * math.cos(m) - sine * math.sin(m), c - m * math.sin(math.pi - m))


@margin
def arcface(cosine, y, input, scale, m=0.5):
    return ce(scale * with_target(cosine, y, arc(at(cosine, y), m)), y)


@margin
def adaface(cosine, y, input, scale, m=0.4, h=0.333, norm_mean=None, norm_std=None):
    norm = (input if input.dtype == torch.float64 else input.float()).detach().norm(dim=-1).clamp(1e-3, 100)
    mean = norm.mean() if norm_mean is None else norm_mean
    std = norm.std() if norm_std is None else norm_std
    q = (h * (norm - mean) / (std + 1e-3)).clamp(-1, 1)
    theta = at(cosine, y).clamp(-1 + 1e-3, 1 - 1e-3).acos()
    changed = (theta - m * q).clamp(1e-3, math.pi - 1e-3).cos() - (m + m * q)
    return ce(scale * with_target(cosine, y, changed), y)


@margin
def unpg(cosine, y, input, scale, margin="cosface", m=0.5, whisker=1.5):
    c = at(cosine, y)
    changed = with_target(cosine, y, c - m if margin == "cosface" else arc(c, m))
    pairs = similarities(input, input)[(y[:, None] != y).triu(1)]
    if len(pairs):
        order = pairs.detach().sort().values
        low, high = order[len(order) // 4], order[3 * len(order) // 4]
        reach = whisker * (high - low)
        pairs = pairs[(pairs >= low - reach) & (pairs <= high + reach)]
    return ce(scale * torch.cat([changed, pairs.expand(len(y), -1)], -1), y)


def opl(input, target, *, gamma=0.5, ignore_index=-100):
    x, y = input[target != ignore_index], target[target != ignore_index]
    s, same, pair = similarities(x, x), y[:, None] == y, ~torch.eye(len(y)).bool().to(x.device)
    mean = lambda which: (s * which).sum() / which.sum().clamp(min=1)  # noqa: E731
    return (1 - mean(same & pair)) + gamma * mean(~same).abs()


# ---- pairs of logits -------------------------------------------------------------------------------------------------


def pairs(formula):
    """formula(z_v - z_y for v != y [n, V - 1], **own) -> [n]."""

    def loss(
        input, linear_weight, target, *, normalize=True, linear_bias=None, token_weight=None, softcap=None, scale,
        ignore_index=-100, reduction="mean", **own,
    ):  # fmt: skip
        active, vocab = target != ignore_index, len(linear_weight)
        scale = scale.expand(target.shape) if isinstance(scale, torch.Tensor) else scale
        z = logits(unit(input, normalize), unit(linear_weight, normalize), linear_bias, scale, softcap)[active]
        y = target[active]
        others = z[~F.one_hot(y, vocab).bool()].view(len(y), vocab - 1)
        return reduced(formula(others - at(z, y)[:, None], **own), active, token_weight, reduction)

    return loss


@pairs
def mw(ahead):
    return F.softplus(ahead, threshold=40.0).sum(-1) / max(ahead.shape[-1], 1)


@pairs
def psl(ahead, activation="tanh", temperature=0.2):
    over = {"tanh": lambda: math.log(2) + F.logsigmoid(2 * ahead), "relu": lambda: (1 + ahead).clamp(min=0).log()}
    return (over[activation]() / temperature).logsumexp(-1)  # log(1 + tanh d), below 0 without its cancellation
