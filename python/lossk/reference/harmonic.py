"""Harmonic heads in plain torch: distances by differences, all of them in memory."""

import math

import torch
import torch.nn.functional as F

from . import elementwise
from .live import visit_live


def distances(
    input, weight, distance="euclidean", *, p=2.0, variant=None, sharpness=10.0, least=None, weight_power=1.0,
    precision=None, precision_factor=None, threshold=0.5, temperature=None,
):  # fmt: skip
    """[..., V] d^2 of euclidean and mahalanobis, d of others; input [..., D], weight [V, D].

    Half precision is widened to float32 first, but what mahalanobis and hard hamming make of the points is rounded to
    it.
    """
    wide = torch.float64 if input.dtype == torch.float64 else torch.float32
    hard = distance == "hamming" and variant == "hard"
    if distance not in ("euclidean", "cosine", "mahalanobis") and not hard:
        return _elementwise(
            input.to(wide), weight.to(wide), distance, p, variant, sharpness, least, weight_power, temperature
        )
    temperature = 0.1 if temperature is None else temperature
    if distance == "mahalanobis":
        if precision_factor is None:
            precision = precision.to(wide)
            precision_factor = (precision / 2).exp() if precision.dim() == 1 else torch.linalg.cholesky(precision)
        by = torch.mul if precision_factor.dim() == 1 else torch.matmul
        input, weight = (by(a.to(wide), precision_factor.to(wide)).to(a.dtype) for a in (input, weight))
    if distance == "hamming":
        s = [torch.sigmoid((a.to(wide) - threshold) / temperature).to(a.dtype) for a in (input, weight)]
        input, weight = ((a > threshold) + (b - b.detach()) for a, b in zip((input, weight), s))
    x, w = input.to(wide), weight.to(wide)
    if distance == "cosine":
        return _squared(F.normalize(x, dim=-1), F.normalize(w, dim=-1)) / 2
    return (x.unsqueeze(-2) - w).abs().sum(-1) if distance == "hamming" else _squared(x, w)


def _squared(x, w):
    d = torch.cdist(x.reshape(-1, x.shape[-1]), w, compute_mode="donot_use_mm_for_euclid_dist")
    return d.square().unflatten(0, x.shape[:-1])


def _elementwise(x, w, distance, p, variant, sharpness, least, weight_power, temperature):
    if distance == "hamming":
        s = [torch.sigmoid(a / (1.0 if temperature is None else temperature)) for a in (x, w)]
        return elementwise.distance(*s, "manhattan")
    if distance == "bray_curtis":
        e = 1e-3 if least is None else least
        if variant == "normalized":
            x, w = (a / a.sum(-1, keepdim=True) for a in (x.abs() + e, w.abs() + e))
            return elementwise.distance(x, w, "manhattan") / (2 + e)
        if variant == "standard":
            return elementwise.distance(x, w, "bray_curtis_standard", e, x.sum(-1), w.sum(-1))
        return elementwise.distance(x, w, "bray_curtis", e, x.abs().sum(-1) + e, w.abs().sum(-1))
    if distance == "canberra":
        e = weight_power if variant == "weighted" else 1e-4 if least is None else least
        return elementwise.distance(x, w, "canberra" if variant in (None, "standard") else f"canberra_{variant}", e)
    return elementwise.distance(x, w, distance, sharpness if distance == "smooth_chebyshev" else p)


def harmonic_logits(input, weight, *, distance="euclidean", exponent=None, eps=1e-6, visit=None, **options):
    """-exponent / 2 log(d^2 + eps): their softmax is p_v ~ (d_v^2 + eps)^(-exponent / 2)."""
    exponent = math.sqrt(input.shape[-1]) if exponent is None else exponent
    d = distances(input, weight, distance, **options)
    d = d if visit is None else visit(d)
    return -exponent / 2 * torch.log((d if distance in ("euclidean", "mahalanobis") else d.square()) + eps)


def harmonic_loss(
    input, weight, target, *, label_smoothing=0.0, floor=0.0, token_weight=None, ignore_index=-100, reduction="mean",
    tau=None, fill=True, sketch=None, list_rows=128, **head,
):  # fmt: skip
    """-log((p_target + floor / V) / (1 + floor)), or -(1 - e) log p_target - e / V sum log p, e = label_smoothing.

    tau, fill, sketch, list_rows: the gradient of live.py.
    """
    active = target != ignore_index
    index = target.where(active, 0).unsqueeze(-1)
    visit = None
    if tau is not None:
        p = harmonic_logits(input, weight, **head).detach().softmax(-1)
        picked = F.one_hot(index.squeeze(-1), weight.shape[0]).bool() & active.unsqueeze(-1)
        visit = lambda d: visit_live(d, p, picked, active, tau, fill, sketch, list_rows)  # noqa: E731
    logp = harmonic_logits(input, weight, visit=visit, **head).log_softmax(-1)
    at_target = logp.gather(-1, index).squeeze(-1)
    loss = -(1 - label_smoothing) * at_target - label_smoothing * logp.mean(-1)
    if floor:
        loss = math.log1p(floor) - torch.log(at_target.exp() + floor / weight.shape[0])
    loss = (loss * (1.0 if token_weight is None else token_weight)).where(active, 0)
    if reduction == "none":
        return loss
    return loss.sum() if reduction == "sum" else loss.sum() / active.sum()
