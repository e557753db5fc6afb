"""Policy gradients, token by token."""

import math

import torch

from .. import _check
from .._exp import bounded_exp, exponent
from ._tokens import reduce, tokens


def grpo(
    logp,
    old_logp,
    advantage,
    *,
    mask=None,
    clip_low=0.2,
    clip_high=None,
    dual_clip=None,
    level="token",
    reference_logp=None,
    beta=0.0,
    kl="k3",
    entropy=None,
    entropy_coef=0.0,
    reduction="mean",
):
    """The clipped policy gradient of PPO and GRPO, with what its descendants add.

    -min(r A, clip(r, 1 - clip_low, 1 + clip_high) A) + beta kl_estimate(logp, reference_logp, kl) - entropy_coef
    entropy, r = exp(logp - old_logp); for A < 0 at most -dual_clip A (> 1) where that is given; level 'sequence': r is
    the geometric mean of a sequence's ratios (GSPO). clip_high None: as clip_low (DAPO sets it higher); either may be
    [..., T], as lossk.tokens.hapo has them. Ratios stop growing at the root of the largest number, 2^64.
    reduction: 'mean' over all tokens (DAPO), 'sequence': mean over sequences of their means (GRPO), 'sum' (Dr. GRPO,
    divided by a constant of the caller's), 'none' [..., T]; tokens masked out are 0. Advantages are constants, as are
    old_logp and reference_logp. Errors: ValueError, TypeError on shapes and options.
    Source: Schulman et al. 2017, arXiv:1707.06347, section 3; Shao et al. 2024, DeepSeekMath, arXiv:2402.03300,
    section 4; Yu et al. 2025, DAPO, arXiv:2503.14476; Zheng et al. 2025, GSPO, arXiv:2507.18071; Ye et al. 2020,
    arXiv:1912.09729 (dual clip).
    """
    op = "grpo"
    logp, mask, advantage = tokens(op, logp, mask, advantage, old_logp=old_logp, reference_logp=reference_logp)
    clip_high = clip_low if clip_high is None else clip_high
    for name, x in (("clip_low", clip_low), ("clip_high", clip_high)):
        if isinstance(x, torch.Tensor):
            _check.floats(op, name, x, logp.shape, logp)
        else:
            _check.number(op, name, x, 0, expected="a number >= 0 or a Tensor")
    log_ratio = torch.where(mask, logp - old_logp.detach(), 0)
    if level == "sequence":
        log_ratio = log_ratio.sum(-1, keepdim=True) / mask.sum(-1, keepdim=True).clamp(min=1)
    elif level != "token":
        raise ValueError(f"{op}: level must be 'token' or 'sequence', got {level!r}")
    ratio = bounded_exp(log_ratio)
    gain = torch.minimum(ratio * advantage, ratio.clamp(1 - clip_low, 1 + clip_high) * advantage)
    if dual_clip is not None:
        _check.number(op, "dual_clip", dual_clip, 1, expected="None or a number >= 1")
        gain = torch.where(advantage < 0, torch.maximum(gain, dual_clip * advantage), gain)
    loss = (-gain).expand_as(logp)
    if beta:
        _check.number(op, "beta", beta)
        if reference_logp is None:
            raise ValueError(f"{op}: reference_logp must be given with beta, got None")
        loss = loss + beta * kl_estimate(torch.where(mask, logp, 0), torch.where(mask, reference_logp, 0), kl)
    if entropy_coef:
        _check.number(op, "entropy_coef", entropy_coef)
        if entropy is None:
            raise ValueError(f"{op}: entropy must be given with entropy_coef, got None")
        _check.floats(op, "entropy", entropy, logp.shape, logp)
        loss = loss - entropy_coef * entropy
    return reduce(op, loss, mask, reduction)


def reinforce(
    logp,
    advantage,
    *,
    mask=None,
    kind="plain",
    coef=0.0,
    old_logp=None,
    importance=False,
    clip_low=None,
    clip_high=None,
    sides="one",
    reduction="mean",
):
    """Group-relative REINFORCE and its off-policy variants.

    kind 'plain': -A logp; 'asymre': -(A + coef) logp, coef lowers the baseline; 'opmd': -A logp + coef (logp -
    old_logp)^2; 'red': -A exp(A / coef) logp, samples reweighted by their advantage, coef > 0. importance: times
    exp(logp - old_logp), a constant. clip_low, clip_high: tokens whose ratio has left [1 - clip_low, 1 + clip_high] in
    the direction that A asks for (sides 'one') or in any ('two') are left out. reduction as in grpo.
    Source: Yao et al. 2025, Group-Relative REINFORCE Is Secretly an Off-Policy Algorithm, arXiv:2509.24203; Arnal et
    al. 2025, arXiv:2506.20520 (asymre); Kimi team 2025, arXiv:2501.12599 (opmd).
    """
    op = "reinforce"
    logp, mask, advantage = tokens(op, logp, mask, advantage, old_logp=old_logp)
    _check.number(op, "coef", coef)
    clips = clip_low is not None or clip_high is not None
    if old_logp is None and (kind == "opmd" or importance or clips):
        raise ValueError(f"{op}: old_logp must be given for kind 'opmd', importance and clipping, got None")
    if kind == "asymre":
        weight = advantage + coef
    elif kind == "red":
        if coef <= 0:
            raise ValueError(f"{op}: coef must be > 0 for kind 'red', got {coef}")
        weight = advantage * torch.exp(advantage / coef)
    elif kind in ("plain", "opmd"):
        weight = advantage
    else:
        raise ValueError(f"{op}: kind must be 'plain', 'asymre', 'opmd' or 'red', got {kind!r}")
    if sides not in ("one", "two"):
        raise ValueError(f"{op}: sides must be 'one' or 'two', got {sides!r}")
    if importance or clips:
        ratio = bounded_exp(torch.where(mask, logp - old_logp, 0).detach())
        low = ratio < 1 - (math.inf if clip_low is None else clip_low)
        high = ratio > 1 + (math.inf if clip_high is None else clip_high)
        if sides == "one":
            low, high = low & (advantage < 0), high & (advantage > 0)
        weight = torch.where(low | high, 0, weight * ratio if importance else weight)
    loss = -weight * logp
    if kind == "opmd":
        loss = loss + coef * (logp - old_logp.detach()) ** 2
    return reduce(op, loss, mask, reduction)


def kl_estimate(logp, reference_logp, kind="k3"):
    """KL(policy || reference) from samples of the policy, token by token.

    d = reference_logp - logp. k1: -d; k2: d^2 / 2; k3: e^d - 1 - d, never negative and of less variance. 'k1+', 'k3+':
    that value with the gradient of k2, which is the KL's own; k3's gradient is that of the KL the other way round.
    Source: Schulman 2020, Approximating KL Divergence, joschu.net/blog/kl-approx.html.
    """
    op = "kl_estimate"
    _check.tensor(op, "logp", logp)
    _check.floats(op, "reference_logp", reference_logp, logp.shape, logp)
    d = reference_logp.detach() - logp
    k2 = d**2 / 2
    if kind == "k2":
        return k2
    if kind in ("k1", "k1+"):
        value = -d
    elif kind in ("k3", "k3+"):
        value = _exp_less_linear(d)
    else:
        raise ValueError(f"{op}: kind must be 'k1', 'k2', 'k3', 'k1+' or 'k3+', got {kind!r}")
    return value.detach() + (k2 - k2.detach()) if kind.endswith("+") else value


def _exp_less_linear(d):
    """e^d - 1 - d, by its series where the difference would lose all digits."""
    small = d.abs() < 0.05
    near = torch.where(small, d, 0)
    series = near**2 / 2 * (1 + near / 3 * (1 + near / 4 * (1 + near / 5 * (1 + near / 6))))
    far = exponent(torch.where(small, 1, d))
    return torch.where(small, series, torch.expm1(far) - far)


def sequence_logp(logp, mask=None):
    """Sum over the last dimension of the tokens that count: the log-probability of a sequence."""
    _check.tensor("sequence_logp", "logp", logp)
    return (logp if mask is None else torch.where(mask.bool(), logp, 0)).sum(-1)
