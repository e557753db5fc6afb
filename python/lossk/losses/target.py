"""Losses that are functions of the target's probability: one product forward, three backward, as cross-entropy.

p = softmax(z), y the target, CE = -log p_y.
"""

import math

import torch

from .. import _check
from ._rows import head_loss, one_minus_exp


@head_loss
def comp_sum(rows, order=1.0):
    """The comp-sum family: cross-entropy and its more robust neighbours, by one number.

    (1 - p_y^(order - 1)) / (order - 1); order 0: 1 / p_y - 1, 1: cross-entropy, in (1, 2): generalised cross-entropy,
    2: 1 - p_y. order >= 0.
    Source: Mao, Mohri, Zhong 2023, Cross-Entropy Loss Functions: Theoretical Analysis, arXiv:2304.07288, section 2.
    """
    _check.number(rows.op, "order", order, 0, expected="a finite number >= 0")
    logp = rows.logp()
    return -logp if order == 1 else one_minus_exp((order - 1) * logp) / (order - 1)


@head_loss
def gce(rows, q=0.7):
    """Generalised cross-entropy, for noisy labels: between cross-entropy (q -> 0) and mean absolute error (q = 1).

    (1 - p_y^q) / q, q in (0, 1].
    Source: Zhang, Sabuncu 2018, Generalized Cross Entropy Loss, arXiv:1805.07836, section 3.
    """
    _check.number(rows.op, "q", q, 0, 1, "a number in (0, 1]")
    if q == 0:
        raise ValueError(f"{rows.op}: q must be a number in (0, 1], got {q}")
    return one_minus_exp(q * rows.logp()) / q


@head_loss
def mae(rows):
    """Mean absolute error of the probabilities, halved: 1 - p_y.

    Source: Ghosh, Kumar, Sastry 2017, Robust Loss Functions under Label Noise, arXiv:1712.09482.
    """
    return one_minus_exp(rows.logp())


@head_loss
def sce(rows, alpha=0.1, beta=1.0, log_zero=-4.0):
    """Symmetric cross-entropy: alpha CE + beta RCE, the reverse cross-entropy RCE = -log_zero (1 - p_y).

    log_zero stands for the logarithm of the zeros in a one-hot target.
    Source: Wang et al. 2019, Symmetric Cross Entropy for Robust Learning, arXiv:1908.06112, section 3.
    """
    for name, x in (("alpha", alpha), ("beta", beta), ("log_zero", log_zero)):
        _check.number(rows.op, name, x)
    logp = rows.logp()
    return -alpha * logp - beta * log_zero * one_minus_exp(logp)


@head_loss
def dco(rows, n=8):
    """Pass@n as a loss: what a target contributes once it is likely to come up in n samples fades out.

    -log(1 - (1 - p_y)^n), n >= 1; dlogits = F (p - onehot), F = n (1 - p_y)^(n-1) p_y / (1 - (1 - p_y)^n).
    Source: Chen et al. 2025, Rethinking Fine-Tuning when Scaling Test-Time Compute: Limiting Confidence,
    arXiv:2502.07154.
    """
    _check.number(rows.op, "n", n, 1, expected="a number >= 1")
    logp, log_rest = rows.target()
    # Below, 1 - (1 - p)^n is n p to the last bit, and p itself may underflow.
    rare = logp < -20 - math.log(n)
    some = -torch.log(one_minus_exp(n * torch.where(rare, -math.log(2), log_rest)))
    return torch.where(rare, -logp - math.log(n), some)


@head_loss
def focal(rows, gamma=2.0, alpha=None):
    """Focal loss: -alpha_y (1 - p_y)^gamma log p_y, alpha None (1), a number or one for each class [V]; gamma >= 0.

    Source: Lin et al. 2017, Focal Loss for Dense Object Detection, arXiv:1708.02002, section 3.
    """
    _check.number(rows.op, "gamma", gamma, 0, expected="a finite number >= 0")
    logp, log_rest = rows.target()
    loss = -torch.exp(gamma * log_rest) * logp
    if isinstance(alpha, torch.Tensor):
        _check.floats(rows.op, "alpha", alpha, (rows.vocab,), rows.head.input)
        return loss * alpha.to(loss.dtype)[rows.target_column()]
    if alpha is not None:
        _check.number(rows.op, "alpha", alpha)
        loss = alpha * loss
    return loss


@head_loss
def ldr_kl(rows, lam=1.0, margin=0.0):
    """Label-distributionally robust loss with a KL term: cross-entropy with temperature lam and a margin.

    lam log(mean_v exp((margin [v != y] + z_v - z_y) / lam)), lam > 0.
    Source: Zhu, Ying, Yang 2023, Label Distributionally Robust Losses for Multi-class Classification,
    arXiv:2112.14869.
    """
    _check.positive(rows.op, "lam", lam)
    _check.number(rows.op, "margin", margin)
    return -lam * (rows.logp(divide=lam, margin=margin / lam) + math.log(max(rows.vocab, 1)))


@head_loss
def aldr_kl(rows, lam0=1.0, alpha=2.0, margin=0.0):
    """ldr_kl whose lam adapts to each token: lower where the prediction is sure of another class.

    With w = softmax((z + margin [v != y]) / lam0) and d = KL(w || uniform): lam = lam0 (1 - d / (alpha log V)), then
    ldr_kl at lam, less alpha log V (lam - lam0)^2 / (2 lam0). lam has no gradient; lam0 > 0, alpha > 1. Two products
    forward.
    Source: as ldr_kl; one step of its fixed-point iteration, from lam0.
    """
    _check.positive(rows.op, "lam0", lam0)
    _check.number(rows.op, "margin", margin)
    _check.number(rows.op, "alpha", alpha, expected="a finite number > 1")
    if alpha <= 1:
        raise ValueError(f"{rows.op}: alpha must be a finite number > 1, got {alpha}")
    log_vocab = math.log(max(rows.vocab, 2))  # of a single class everything is 0
    with torch.no_grad():
        _, entropy = rows.target_and("entropy", divide=lam0, margin=margin / lam0)
        lam = lam0 * (1 - (log_vocab - entropy) / (alpha * log_vocab))
    # log p_y with a margin of margin / lam: the others gain it together
    logp, log_rest = rows.target(divide=lam)
    with_margin = -torch.nn.functional.softplus(log_rest - logp + margin / lam)
    return -lam * (with_margin + math.log(max(rows.vocab, 1))) - alpha * log_vocab * (lam - lam0) ** 2 / (2 * lam0)


@head_loss
def logit_anneal(rows, gamma=5.0, margin=2.0, temperature=0.75):
    """Logit annealing: a focal loss with a margin and a temperature, whose influence fades for targets that are sure.

    temperature (1 - p'_y)^gamma CE', p' = softmax((z - margin onehot) / temperature); gamma >= 0, temperature > 0.
    Source: Lai et al. 2025, Enhancing Certified Robustness via Block Reflector Orthogonal Layers and Logit Annealing
    Loss, arXiv:2505.15174.
    """
    _check.number(rows.op, "gamma", gamma, 0, expected="a finite number >= 0")
    _check.number(rows.op, "margin", margin)
    _check.positive(rows.op, "temperature", temperature)
    logp, log_rest = rows.target(divide=temperature, margin=margin / temperature)
    return -temperature * torch.exp(gamma * log_rest) * logp


@head_loss
def dice(rows, alpha=1.0, smooth=1.0):
    """Self-adjusting Dice loss of the target: easy tokens count less.

    1 - (2 q + smooth) / (q + 1 + smooth), q = (1 - p_y)^alpha p_y; alpha >= 0, smooth >= 0.
    Source: Li et al. 2020, Dice Loss for Data-imbalanced NLP Tasks, arXiv:1911.02855, section 3, of the target alone.
    """
    _check.number(rows.op, "alpha", alpha, 0, expected="a finite number >= 0")
    _check.number(rows.op, "smooth", smooth, 0, expected="a finite number >= 0")
    logp, log_rest = rows.target()
    q = torch.exp(alpha * log_rest + logp)
    return (1 - q) / (q + 1 + smooth)


@head_loss
def bootstrap(rows, w=0.2, mode="hard"):
    """Bootstrapping for noisy labels: a share w of the target is what the model believes.

    hard: (1 - w) CE - w log max_v p_v, the class with the largest logit as a second target; soft: (1 - w) CE + w H,
    H the entropy, with its gradient (with the belief held constant the second term would have none). w a number or
    one per token [...].
    Source: Reed et al. 2015, Training Deep Neural Networks on Noisy Labels with Bootstrapping, arXiv:1412.6596,
    section 3; w per token: Arazo et al. 2019, arXiv:1904.11238.
    """
    w = rows.per_token("w", w)
    if mode == "hard":
        logp, best = rows.best()
        return (w - 1) * logp - w * best
    if mode != "soft":
        raise ValueError(f"{rows.op}: mode must be 'hard' or 'soft', got {mode!r}")
    (logp, _), entropy = rows.target_and("entropy")
    return (w - 1) * logp + w * entropy


@head_loss
def brier(rows):
    """Brier score: |p - onehot|^2 = 1 - 2 p_y + sum_v p_v^2.

    Source: Brier 1950, Verification of Forecasts Expressed in Terms of Probability.
    """
    (logp, log_rest), lse, lse2 = rows.target_and("lse", "lse2")
    others = torch.exp(lse2 - 2 * lse) - torch.exp(2 * logp)
    return torch.exp(2 * log_rest) + others
