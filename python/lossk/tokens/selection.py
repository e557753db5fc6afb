"""Masks and weights of training tokens, from targets, losses and statistics."""

import functools

import torch

from .. import _check
from ._rows import cut, highest, mask_of, to_unit

# ---- from the targets ------------------------------------------------------------------------------------------------

_TABLE, _TABLE_SEED = 1_000_003, 2_971_215_073


@functools.lru_cache
def _hash_table():
    """Uniform numbers, drawn on the CPU whatever the targets' device, so that a text has the same mask everywhere."""
    return torch.rand(_TABLE, generator=torch.Generator().manual_seed(_TABLE_SEED))


def goldfish_mask(target, *, k=4, strategy="hash", context=13, ignore_index=-100):
    """Tokens to leave out of the loss so that a text cannot be learnt by heart: about one in k, True where left out.

    'hash': a token is left out where a hash of the `context` tokens before it is below 1 / k, so that the same passage
    loses the same tokens wherever it stands; never among the first `context`. 'static': every k-th token. Use as
    target.masked_fill(goldfish_mask(target), ignore_index). target [..., T] int64, k >= 2.
    The hash is the authors': the product of the tokens, modulo 2^64, looked up in a table of 1000003 random numbers;
    their code hashes a window that ends with the token itself, the paper and this the tokens before it.
    Source: Hans et al. 2024, Be like a Goldfish, Don't Memorize!, arXiv:2406.10209, section 3.
    """
    op = "goldfish_mask"
    _check.tensor(op, "target", target)
    if target.dtype.is_floating_point or target.dim() < 1:
        raise TypeError(f"{op}: target must be an integer tensor [..., T], got {target.dtype} {list(target.shape)}")
    for name, x, least in (("k", k, 2), ("context", context, 1)):
        if isinstance(x, bool) or not isinstance(x, int) or x < least:
            raise ValueError(f"{op}: {name} must be an int >= {least}, got {x!r}")
    if strategy == "static":
        left_out = torch.zeros_like(target, dtype=torch.bool)
        left_out[..., k - 1 :: k] = True
    elif strategy == "hash":
        left_out = torch.zeros_like(target, dtype=torch.bool)
        if target.shape[-1] > context:
            product = target[..., :-1].long().unfold(-1, context, 1).prod(-1)
            left_out[..., context:] = _hash_table().to(target.device)[product % _TABLE] < 1 / k
    else:
        raise ValueError(f"{op}: strategy must be 'hash' or 'static', got {strategy!r}")
    return left_out & (target != ignore_index)


# ---- from losses and statistics --------------------------------------------------------------------------------------


@torch.no_grad()
def tip_weights(entropy, divergence, *, keep=None, quantile=0.98, mask=None):
    """Soft-OR importance of tokens in on-policy distillation: h + d - h d, large where either is.

    h, d: entropy and divergence (reverse KL to the teacher) of each response, cut off at the given quantile and scaled
    from least to most to [0, 1]. keep None: the score; a share in (0, 1]: 1 for the highest ceil(keep n) of each
    response's n tokens, else 0.
    Source: Xu et al. 2026, TIP: Token Importance in On-Policy Distillation, arXiv:2604.14084.
    """
    op = "tip_weights"
    mask = mask_of(op, entropy, mask, "entropy", divergence=divergence)
    _check.number(op, "quantile", quantile, 0, 1, "a number in [0, 1]")
    h, d = (to_unit(cut(x, mask, quantile), mask) for x in (entropy, divergence))
    score = torch.where(mask, h + d - h * d, 0)
    return score if keep is None else highest(op, "keep", score, keep, mask).to(score.dtype)


@torch.no_grad()
def sstoken_mask(history_loss, loss, attention, *, gamma=0.5, ratio=0.6, mask=None):
    """Self-modulated, semantic-aware selection for fine-tuning: the tokens to keep.

    Of each sequence the ceil(ratio n) tokens highest in gamma REL + (1 - gamma) attention, REL = history_loss - loss
    scaled from least to most to [0, 1], history_loss that of an earlier model, attention what the response's token
    pays to the prompt, in [0, 1].
    Source: Qin et al. 2025, ssToken, arXiv:2510.18250.
    """
    op = "sstoken_mask"
    mask = mask_of(op, loss, mask, "loss", history_loss=history_loss, attention=attention)
    _check.number(op, "gamma", gamma, 0, 1, "a number in [0, 1]")
    score = gamma * to_unit(history_loss - loss, mask) + (1 - gamma) * attention
    return highest(op, "ratio", score, ratio, mask)


def paced_weight(pass_rate, *, alpha=1.0, beta=1.0):
    """Weight of a prompt by how often its rollouts pass: pass_rate^alpha (1 - pass_rate)^beta, most for the undecided.

    pass_rate [...] in [0, 1]; alpha, beta >= 0. Source: Xu et al. 2026, PACED, arXiv:2603.11178.
    """
    op = "paced_weight"
    _check.tensor(op, "pass_rate", pass_rate)
    _check.number(op, "alpha", alpha, 0, expected="a finite number >= 0")
    _check.number(op, "beta", beta, 0, expected="a finite number >= 0")
    return pass_rate**alpha * (1 - pass_rate) ** beta


_REWEIGHT = {
    "linupper": lambda h: (h + 1).clamp(max=1),
    "quadratic": lambda h: 1 - h**2,
    "extremes": lambda h: h.abs(),
}


@torch.no_grad()
def loss_reweight(loss, *, strategy="linupper", temperature=0.4):
    """Weights of a batch's sequences by their loss [B]; they sum to 1.

    softmax(f(h) / temperature), h the loss scaled to [-1, 1] over the batch; f: linupper min(h + 1, 1), which gives
    easy ones less, quadratic 1 - h^2, extremes |h|.
    Source: Sow et al. 2025, Dynamic Loss-Based Sample Reweighting for Improved LLM Pretraining, arXiv:2502.06733.
    """
    op = "loss_reweight"
    _check.tensor(op, "loss", loss)
    if loss.dim() != 1:
        raise ValueError(f"{op}: loss must have shape [B], got {list(loss.shape)}")
    _check.positive(op, "temperature", temperature)
    if strategy not in _REWEIGHT:
        raise ValueError(f"{op}: strategy must be one of {sorted(_REWEIGHT)}, got {strategy!r}")
    if not len(loss):
        return loss.clone()
    h = 2 * to_unit(loss, torch.ones_like(loss, dtype=torch.bool)) - 1
    return (_REWEIGHT[strategy](h) / temperature).softmax(0)
