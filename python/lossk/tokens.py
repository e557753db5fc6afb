"""Which tokens a loss should look at, and how much: masks and weights from targets, losses and statistics.

All without gradient. Per token [..., T] unless said; mask [..., T]: the tokens that count (None: all); masks that are
returned are bool, and weights 0 where a token does not count.
"""

import functools
import math

import torch

from . import _check

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
    mask = _mask(op, entropy, mask, "entropy", divergence=divergence)
    _check.number(op, "quantile", quantile, 0, 1, "a number in [0, 1]")
    h, d = (_unit(_cut(x, mask, quantile), mask) for x in (entropy, divergence))
    score = torch.where(mask, h + d - h * d, 0)
    return score if keep is None else _highest(op, "keep", score, keep, mask).to(score.dtype)


@torch.no_grad()
def sstoken_mask(history_loss, loss, attention, *, gamma=0.5, ratio=0.6, mask=None):
    """Self-modulated, semantic-aware selection for fine-tuning: the tokens to keep.

    Of each sequence the ceil(ratio n) tokens highest in gamma REL + (1 - gamma) attention, REL = history_loss - loss
    scaled from least to most to [0, 1], history_loss that of an earlier model, attention what the response's token
    pays to the prompt, in [0, 1].
    Source: Qin et al. 2025, ssToken, arXiv:2510.18250.
    """
    op = "sstoken_mask"
    mask = _mask(op, loss, mask, "loss", history_loss=history_loss, attention=attention)
    _check.number(op, "gamma", gamma, 0, 1, "a number in [0, 1]")
    score = gamma * _unit(history_loss - loss, mask) + (1 - gamma) * attention
    return _highest(op, "ratio", score, ratio, mask)


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
    h = 2 * _unit(loss, torch.ones_like(loss, dtype=torch.bool)) - 1
    return (_REWEIGHT[strategy](h) / temperature).softmax(0)


# ---- for policies ----------------------------------------------------------------------------------------------------


@torch.no_grad()
def kl_cov_mask(logp, advantage, *, share=2e-3, mask=None):
    """The tokens that drive entropy down most, to be held by a KL penalty: the highest share of covariances.

    cov = (A - mean A) (logp - mean logp), means over the tokens that count; advantage [..., T] or [...].
    Source: Cui et al. 2025, The Entropy Mechanism of RL for Reasoning Language Models, arXiv:2505.22617, section 4.
    """
    op = "kl_cov_mask"
    cov, mask = _covariance(op, logp, advantage, mask)
    flat = _highest(op, "share", cov.flatten(), share, mask.flatten())
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
    count = _count(op, "share", share, int(mask.sum()))
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
    mask = _mask(op, logp, mask, "logp", old_logp=old_logp, entropy=entropy)
    _check.number(op, "least", least, 0, 1, "a number in (0, 1]")
    _check.positive(op, "least", least)
    _check.positive(op, "floor", floor)
    change = _per_token(op, advantage, logp) * (logp - old_logp).exp() * -torch.expm1(logp) * (logp + entropy)
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
    1 2 ..., -1: none, whose result is 0. No gradient. Returns [..., T].
    Source: Wang et al. 2025, Harnessing Uncertainty, arXiv:2509.09265, equations 10 to 12; the mean comes off as the
    paper's text has it.
    """
    op = "empg"
    _mask(op, entropy, None, "entropy")
    _check.integers(op, "step", step, entropy.shape, entropy)
    for name, x in (("k", k), ("k_future", k_future), ("zeta", zeta)):
        _check.number(op, name, x)
    advantage, entropy = (x.detach() for x in (_per_token(op, advantage, entropy), entropy))
    mask, length = step >= 0, step.shape[-1]
    # Sums by step, of which a sequence has at most as many as tokens; one more for the tokens of none.
    place, shape = torch.where(mask, step, length).long(), (*step.shape[:-1], length + 2)
    add = lambda x: entropy.new_zeros(shape).scatter_add(-1, place, torch.where(mask, x, 0))[..., :-1]  # noqa: E731
    count = add(torch.ones_like(entropy))
    there, mean = count > 0, add(entropy) / count.clamp(min=1)
    low, high = torch.where(there, mean, math.inf).amin(), torch.where(there, mean, -math.inf).amax()
    h = torch.where(there, (mean - low) / (high - low + eps), 0)
    sure = torch.where(there, torch.exp(-k * h), 0)
    sure = sure * there.sum() / (sure.sum() + eps)
    bonus = torch.where(there, zeta * torch.exp(-k_future * h), 0).roll(-1, -1)  # of the step after
    at = place.clamp(max=length)
    changed = torch.where(mask, advantage * sure.gather(-1, at) + bonus.gather(-1, at), 0)
    return torch.where(mask, changed - changed.sum() / mask.sum().clamp(min=1), 0)


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


# ---- shared ----------------------------------------------------------------------------------------------------------


def _mask(op, like, mask, name, **others):
    _check.tensor(op, name, like)
    if like.dim() < 1 or not like.dtype.is_floating_point:
        raise ValueError(f"{op}: {name} must be a float tensor [..., T], got {like.dtype} {list(like.shape)}")
    for other, x in others.items():
        _check.floats(op, other, x, like.shape, like)
    if mask is None:
        return torch.ones_like(like, dtype=torch.bool)
    _check.tensor(op, "mask", mask)
    _check.sized(op, "mask", mask, like.shape, like)
    return mask.bool()


def _per_token(op, advantage, logp):
    _check.tensor(op, "advantage", advantage)
    if advantage.shape == logp.shape[:-1]:
        advantage = advantage[..., None].expand_as(logp)
    _check.floats(op, "advantage", advantage, logp.shape, logp)
    return advantage


def _covariance(op, logp, advantage, mask):
    mask = _mask(op, logp, mask, "logp")
    count = mask.sum().clamp(min=1)
    centred = lambda x: torch.where(mask, x - torch.where(mask, x, 0).sum() / count, 0)  # noqa: E731
    return centred(_per_token(op, advantage, logp)) * centred(logp), mask


def _unit(x, mask):
    """Scaled from the least to the most of a row to [0, 1]; 0 where all are equal."""
    low = torch.where(mask, x, math.inf).amin(-1, keepdim=True)
    high = torch.where(mask, x, -math.inf).amax(-1, keepdim=True)
    return torch.where(mask & (high > low), (x - low) / (high - low), 0)


def _cut(x, mask, quantile):
    """No more than the quantile of the row's tokens that count."""
    most = torch.nanquantile(torch.where(mask, x, math.nan).float(), quantile, -1, keepdim=True)
    return torch.minimum(x, torch.where(most.isnan(), x, most.to(x.dtype)))


def _highest(op, name, score, share, mask):
    """The ceil(share n) highest of each row's n tokens; among equal ones the earlier."""
    count = mask.sum(-1, keepdim=True)
    keep = torch.ceil(_share(op, name, share) * count.double() - 1e-9).long()
    order = torch.where(mask, score, -math.inf).argsort(dim=-1, descending=True, stable=True)
    places = torch.arange(order.shape[-1], device=order.device).expand_as(order)
    rank = torch.empty_like(order).scatter_(-1, order, places)
    return mask & (rank < keep)


def _share(op, name, share):
    _check.number(op, name, share, 0, 1, "a number in (0, 1]")
    _check.positive(op, name, share)
    return share


def _count(op, name, share, total):
    return math.ceil(_share(op, name, share) * total - 1e-9)
