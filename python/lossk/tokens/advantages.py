"""Masks, weights and advantages for policy gradients, from log-probabilities and entropies."""

import math
from typing import NamedTuple

import torch

from .. import _check
from .._exp import bounded_exp
from ._rows import count_of, highest, mask_of, per_token


@torch.no_grad()
def kl_cov_mask(logp, advantage, *, share=2e-3, mask=None):
    """The tokens that drive entropy down most, to be held by a KL penalty: the highest share of covariances.

    cov = (A - mean A) (logp - mean logp), means over the tokens that count; advantage [..., T] or [...].
    Source: Cui et al. 2025, The Entropy Mechanism of RL for Reasoning Language Models, arXiv:2505.22617, section 4.
    """
    op = "kl_cov_mask"
    cov, mask = _covariance(op, logp, advantage, mask)
    flat = highest(op, "share", cov.flatten(), share, mask.flatten())
    return flat.view_as(mask)


@torch.no_grad()
def clip_cov_mask(logp, advantage, *, share=2e-4, low=1.0, high=5.0, clipped=None, mask=None, generator=None):
    """Tokens to take out of the loss, drawn at random: a share of those that count, with a covariance in (low, high).

    As kl_cov_mask; clipped [..., T]: those that the ratio's clip has taken out already. Where fewer have such a
    covariance, all of them.
    Source: as kl_cov_mask.
    """
    op = "clip_cov_mask"
    cov, mask = _covariance(op, logp, advantage, mask)
    count = count_of(op, "share", share, int(mask.sum()))
    candidates = mask & (cov > low) & (cov < high)
    if clipped is not None:
        _check.sized(op, "clipped", clipped, mask.shape, logp)
        candidates = candidates & ~clipped.bool()
    places = candidates.flatten().nonzero()[:, 0]
    drawn = places[torch.randperm(len(places), generator=generator).to(places.device)[:count]]
    out = torch.zeros(mask.numel(), dtype=torch.bool, device=mask.device)
    out[drawn] = True
    return out.view_as(mask)


@torch.no_grad()
def steer_weight(logp, old_logp, entropy, advantage, *, least=0.8, floor=0.02, mask=None):
    """Weights that hold the tokens whose update changes entropy most: exp(-k |omega|), never below `least`.

    omega = A / pi_old  pi (1 - pi) (log pi + H), and k such that the largest |omega| of the batch, or `floor` if that
    is larger, gets `least`.
    Source: Hao et al. 2025, Rethinking Entropy Interventions in RLVR, arXiv:2510.10150.
    """
    op = "steer_weight"
    mask = mask_of(op, logp, mask, "logp", old_logp=old_logp, entropy=entropy)
    _check.number(op, "least", least, 0, 1, "a number in (0, 1]")
    _check.positive(op, "least", least)
    _check.positive(op, "floor", floor)
    change = per_token(op, advantage, logp) * bounded_exp(logp - old_logp) * -torch.expm1(logp) * (logp + entropy)
    change = torch.where(mask, change, 0).abs()
    rate = -math.log(least) / change.amax().clamp(min=floor) if change.numel() else 0.0
    return torch.where(mask, torch.exp(-rate * change).clamp(least, 1), 0)


def empg(advantage, entropy, step, *, k=1.0, k_future=1.0, zeta=0.1, eps=1e-8):
    """Entropy-modulated advantages: an agent's sure steps count more, unsure ones less, and so does what leads to a
    sure step.

    A g(h_t) + zeta exp(-k_future h_{t+1}), less the mean over the tokens that count; h_t a step's mean entropy, scaled
    from the least to the most of the batch to [0, 1]; g(h) = exp(-k h) over its mean over the steps; a sequence's last
    step has no bonus.

    advantage [..., T] or [...], entropy [..., T], step [..., T] int64: which step of its sequence a token belongs to, 0
    1 2 ... below T, -1: none, whose result is 0. No gradient. Returns [..., T].
    Source: Wang et al. 2025, Harnessing Uncertainty, arXiv:2509.09265, equations 10 to 12; the mean comes off as the
    paper's text has it.
    """
    op = "empg"
    mask_of(op, entropy, None, "entropy")
    _check.integers(op, "step", step, entropy.shape, entropy)
    _check.in_vocab(op, "step", step, entropy.shape[-1], -1)
    for name, x in (("k", k), ("k_future", k_future), ("zeta", zeta)):
        _check.number(op, name, x)
    advantage, entropy = (x.detach() for x in (per_token(op, advantage, entropy), entropy))
    mask, length = step >= 0, step.shape[-1]
    # Sums by step, of which a sequence has at most as many as tokens; one more for the tokens of none.
    place, shape = torch.where(mask, step, length).long(), (*step.shape[:-1], length + 1)
    add = lambda x: entropy.new_zeros(shape).scatter_add(-1, place, torch.where(mask, x, 0))  # noqa: E731
    count = add(torch.where(mask, 1.0, 0.0).to(entropy.dtype))
    there, mean = count > 0, add(entropy) / count.clamp(min=1)
    low, high = torch.where(there, mean, math.inf).amin(), torch.where(there, mean, -math.inf).amax()
    h = torch.where(there, (mean - low) / (high - low + eps), 0)
    sure = torch.where(there, torch.exp(-k * h), 0)
    sure = sure * there.sum() / (sure.sum() + eps)
    bonus = torch.where(there, zeta * torch.exp(-k_future * h), 0)
    bonus = torch.cat([bonus[..., 1:], torch.zeros_like(bonus[..., :1])], -1)  # of the step after
    changed = torch.where(mask, advantage * sure.gather(-1, place) + bonus.gather(-1, place), 0)
    return torch.where(mask, changed - changed.sum() / mask.sum().clamp(min=1), 0)


class Hapo(NamedTuple):
    """Each [..., T]: what lossk.policy.grpo takes."""

    advantage: torch.Tensor
    clip_low: torch.Tensor
    clip_high: torch.Tensor


@torch.no_grad()
def hapo(
    logp, old_logp, advantage, entropy, *, mask=None, clip_low=0.2, clip_high=0.28, alpha=1.0, beta=1.0, pivot=0.8
):  # fmt: skip
    """Advantages and clips by each token's entropy: exploring tokens may rise further, noisy sure ones fall further.

    h = log entropy less its pivot quantile over the tokens that count, each side divided by its largest size: [-1, 1].
    clip_low' = clip_low (1 - alpha h) where h <= 0, clip_high' = clip_high (1 + alpha h) where h > 0. A' = A (1 + beta
    h) for h > 0 where the ratio exp(logp - old_logp) has left (1 - clip_low' / 2, 1 + clip_high' / 2), for h <= 0
    where it has not; else A. The authors' code divides the lower side by its least, a negative number, so that h is
    never below 0 there; this follows the paper's range.

    logp, old_logp, entropy [..., T], advantage [..., T] or [...]. Tokens that do not count have A = 0.
    Source: Liu et al. 2025, From Uniform to Heterogeneous, arXiv:2509.16591.
    """
    op = "hapo"
    mask = mask_of(op, logp, mask, "logp", old_logp=old_logp, entropy=entropy)
    for name, x in (("clip_low", clip_low), ("clip_high", clip_high), ("alpha", alpha), ("beta", beta)):
        _check.number(op, name, x, 0, expected="a finite number >= 0")
    _check.number(op, "pivot", pivot, 0, 1, "a number in [0, 1]")
    advantage = torch.where(mask, per_token(op, advantage, logp), 0)
    log = torch.where(mask, entropy, 1.0).clamp(min=1e-8).log()
    known = torch.where(mask, log, math.nan).flatten().sort().values  # nan last
    at = (pivot * (mask.sum() - 1).clamp(min=0)).round().long()
    h = torch.where(mask, log - known[at], 0) if known.numel() else log
    sizes = (h.clamp(min=0), h.clamp(max=0).abs())
    up, down = (x / (x.amax() if x.numel() else x.sum()).clamp(min=1e-8) for x in sizes)
    low, high, h = clip_low * (1 + alpha * down), clip_high * (1 + alpha * up), up - down
    ratio = torch.where(mask, logp - old_logp, 0).exp()
    inside = (ratio > 1 - low / 2) & (ratio < 1 + high / 2)
    return Hapo(torch.where((h > 0) ^ inside, advantage * (1 + beta * h), advantage), low, high)


def step_radius(low, high):
    """How far a step may go along a direction before softmax's expansion stops converging: pi / (high - low).

    low, high [...]: least and greatest derivative of the logits of each token along it; inf where they are equal. The
    batch's radius is the least of its tokens'.
    Source: Sao 2026, Ghosts of Softmax, arXiv:2603.13552.
    """
    op = "step_radius"
    _check.tensor(op, "low", low)
    _check.floats(op, "high", high, low.shape, low)
    return math.pi / (high - low)


def _covariance(op, logp, advantage, mask):
    mask = mask_of(op, logp, mask, "logp")
    count = mask.sum().clamp(min=1)
    centred = lambda x: torch.where(mask, x - torch.where(mask, x, 0).sum() / count, 0)  # noqa: E731
    return centred(per_token(op, advantage, logp)) * centred(logp), mask
