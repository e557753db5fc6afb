"""Preferences, unlearning and rewards, sequence by sequence."""

import math

import torch
import torch.nn.functional as F

from .. import _check
from .._exp import bounded_exp
from ._tokens import reduce, tokens


def dpo(
    chosen_logp,
    rejected_logp,
    chosen_reference_logp,
    rejected_reference_logp,
    *,
    beta=0.1,
    f="reverse_kl",
    alpha=0.5,
    label_smoothing=0.0,
    reduction="mean",
):
    """Direct preference optimisation with any of four divergences from the reference; all arguments of sequences [...].

    -(1 - label_smoothing) log sigmoid(m) - label_smoothing log sigmoid(-m), m = beta (phi(chosen) - phi(rejected));
    with l = logp - reference_logp, phi is l (reverse_kl), -e^-l (forward_kl), log 2 + log sigmoid(l) (js), or
    -e^(-alpha l) / alpha (alpha in (0, 1)). Exponentials stop growing at the root of the largest number.
    Source: Rafailov et al. 2023, arXiv:2305.18290, equation 7; Wang et al. 2023, Beyond Reverse KL, arXiv:2309.16240,
    table 1; label smoothing: Mitchell 2023, a note on DPO with noisy preferences.
    """
    op = "dpo"
    _check.tensor(op, "chosen_logp", chosen_logp)
    others = {
        "rejected_logp": rejected_logp,
        "chosen_reference_logp": chosen_reference_logp,
        "rejected_reference_logp": rejected_reference_logp,
    }
    for name, x in others.items():
        _check.floats(op, name, x, chosen_logp.shape, chosen_logp)
    _check.number(op, "beta", beta)
    _check.number(op, "label_smoothing", label_smoothing, 0, 0.5, "a number in [0, 0.5]")
    _check.number(op, "alpha", alpha)
    if f == "reverse_kl":
        phi = lambda ratio: ratio  # noqa: E731
    elif f == "forward_kl":
        phi = lambda ratio: -bounded_exp(-ratio)  # noqa: E731
    elif f == "js":
        phi = lambda ratio: F.logsigmoid(ratio) + math.log(2)  # noqa: E731
    elif f == "alpha":
        if not 0 < alpha < 1:
            raise ValueError(f"{op}: alpha must be in (0, 1), got {alpha}")
        phi = lambda ratio: -bounded_exp(-alpha * ratio) / alpha  # noqa: E731
    else:
        raise ValueError(f"{op}: f must be 'reverse_kl', 'forward_kl', 'js' or 'alpha', got {f!r}")
    ratios = chosen_logp - chosen_reference_logp.detach(), rejected_logp - rejected_reference_logp.detach()
    margin = beta * (phi(ratios[0]) - phi(ratios[1]))
    loss = (label_smoothing - 1) * F.logsigmoid(margin) - label_smoothing * F.logsigmoid(-margin)
    return reduce(op, loss, None, reduction)


def npo(logp, reference_logp, *, beta=0.1, reduction="mean"):
    """Negative preference optimisation, to unlearn sequences [...]: -(2 / beta) log sigmoid(-beta (logp - reference)).

    Source: Zhang et al. 2024, Negative Preference Optimization, arXiv:2404.05868, equation 3.
    """
    op = "npo"
    _check.tensor(op, "logp", logp)
    _check.floats(op, "reference_logp", reference_logp, logp.shape, logp)
    _check.number(op, "beta", beta, expected="a number > 0")
    if beta <= 0:
        raise ValueError(f"{op}: beta must be a number > 0, got {beta}")
    return reduce(op, -2 / beta * F.logsigmoid(-beta * (logp - reference_logp.detach())), None, reduction)


_FLAT = {  # of the mean probabilities of template and forgotten answer
    "kl": lambda x, y: torch.exp(y - 1) - x,
    "total_variation": lambda x, y: (torch.tanh(y) - torch.tanh(x)) / 2,
    "js": lambda x, y: F.softplus(-x) + F.softplus(y) - 2 * math.log(2),
    "pearson": lambda x, y: y**2 / 4 + y - x,
}


def flat(template_logp, forget_logp, *, template_mask=None, forget_mask=None, divergence="kl", reduction="mean"):
    """Unlearning with forget data only: an f-divergence between template answers and those to be forgotten.

    With x and y the mean probabilities (not logarithms) of the tokens of template_logp [..., T] and forget_logp
    [..., T']: kl: e^(y - 1) - x, total_variation: (tanh y - tanh x) / 2, js: softplus(-x) + softplus(y) - 2 log 2,
    pearson: y^2 / 4 + y - x.
    Source: Wang et al. 2024, LLM Unlearning via Loss Adjustment with Only Forget Data, arXiv:2410.11143, section 4.
    """
    op = "flat"
    if divergence not in _FLAT:
        raise ValueError(f"{op}: divergence must be one of {sorted(_FLAT)}, got {divergence!r}")
    template_logp, template_mask, _ = tokens(op, template_logp, template_mask, None, "template_logp", "template_mask")
    forget_logp, forget_mask, _ = tokens(op, forget_logp, forget_mask, None, "forget_logp", "forget_mask")
    mean = lambda x, mask: torch.where(mask, x, -math.inf).exp().sum(-1) / mask.sum(-1).clamp(min=1)  # noqa: E731
    loss = _FLAT[divergence](mean(template_logp, template_mask), mean(forget_logp, forget_mask))
    return reduce(op, loss, None, reduction)


def implicit_prm(logp, reference_logp, label, *, mask=None, beta=0.05, reduction="mean"):
    """A process reward model that is a language model: binary cross-entropy of beta sum_t (logp - reference_logp).

    label [...] in [0, 1], whether the answer is right. implicit_reward gives the steps' rewards.
    Source: Yuan et al. 2024, Free Process Rewards without Process Labels, arXiv:2412.01981, section 3.
    """
    op = "implicit_prm"
    reward = implicit_reward(logp, reference_logp, mask=mask, beta=beta)
    total = reward[..., -1] if reward.shape[-1] else reward.sum(-1)
    _check.tensor(op, "label", label)
    _check.sized(op, "label", label, total.shape, logp)
    loss = F.binary_cross_entropy_with_logits(total, label.to(total.dtype), reduction="none")
    return reduce(op, loss, None, reduction)


def implicit_reward(logp, reference_logp, *, mask=None, beta=0.05):
    """beta times the running sum of logp - reference_logp: at the end of a step, what the answer has earned so far."""
    op = "implicit_reward"
    logp, mask, _ = tokens(op, logp, mask, None, reference_logp=reference_logp)
    _check.number(op, "beta", beta)
    return beta * torch.where(mask, logp - reference_logp.detach(), 0).cumsum(-1)
