"""lossk.tokens: the rules, token by token, and what masks and weights must have."""

import math

import pytest
import torch
from lossk.policy import grpo
from lossk.tokens import (
    clip_cov_mask,
    empg,
    goldfish_mask,
    hapo,
    kl_cov_mask,
    loss_reweight,
    paced_weight,
    selection,
    sstoken_mask,
    steer_weight,
    step_radius,
    tip_weights,
)

B, T = 4, 60


def random_mask():
    mask = torch.rand(B, T) < 0.7
    mask[1] = False
    mask[[0, 2, 3], 0] = True
    return mask


# ---- goldfish --------------------------------------------------------------------------------------------------------


def wrapped(product):
    product &= (1 << 64) - 1
    return product - (1 << 64) if product >= 1 << 63 else product


def test_goldfish_hashes_the_tokens_before():
    target = torch.randint(0, 50_000, (3, 40))
    target[2, 5:9] = -100
    table = torch.rand(1_000_003, generator=torch.Generator().manual_seed(2971215073))
    mask = goldfish_mask(target, k=3, context=7)
    for b in range(3):
        for t in range(40):
            before = target[b, t - 7 : t].tolist()
            right = t >= 7 and table[wrapped(math.prod(before)) % 1_000_003] < 1 / 3 and target[b, t] != -100
            assert mask[b, t] == bool(right), (b, t)


def test_goldfish_leaves_the_same_passage_the_same_holes():
    passage, noise = torch.randint(50_000, (100,)), torch.randint(50_000, (30,))
    alone, inside = goldfish_mask(passage), goldfish_mask(torch.cat([noise, passage]))
    assert torch.equal(alone[13:], inside[43:])
    many = goldfish_mask(torch.randint(50_000, (200, 200)))
    assert abs(many[:, 13:].double().mean() - 0.25) < 0.01 and not many[:, :13].any()


def test_goldfish_does_not_depend_on_the_random_state(device):
    target = torch.randint(50_000, (2, 100))
    first = goldfish_mask(target)
    torch.manual_seed(17)
    selection._hash_table.cache_clear()
    assert torch.equal(goldfish_mask(target.to(device)).cpu(), first)


def test_goldfish_every_kth():
    mask = goldfish_mask(torch.arange(10), k=4, strategy="static", ignore_index=7)
    assert mask.nonzero().flatten().tolist() == [3]
    assert goldfish_mask(torch.arange(5)).tolist() == [False] * 5  # shorter than the context


# ---- weights from losses and statistics ------------------------------------------------------------------------------


def unit(values):
    low, high = min(values), max(values)
    return [(v - low) / (high - low) if high > low else 0.0 for v in values]


def test_tip_weights():
    entropy, divergence, mask = torch.rand(B, T) * 5, torch.rand(B, T) * 2, random_mask()
    score = tip_weights(entropy, divergence, mask=mask, quantile=0.9)
    kept = tip_weights(entropy, divergence, mask=mask, quantile=0.9, keep=0.3)
    for b in range(B):
        at = mask[b].nonzero().flatten().tolist()
        if not at:
            assert not score[b].any() and not kept[b].any()
            continue
        scaled = []
        for x in (entropy[b, at], divergence[b, at]):
            scaled.append(unit(x.clamp(max=torch.quantile(x, 0.9)).tolist()))
        right = torch.tensor([h + d - h * d for h, d in zip(*scaled, strict=True)])
        torch.testing.assert_close(score[b, at], right)
        assert kept[b].sum() == math.ceil(0.3 * len(at))
        assert score[b][kept[b] > 0].min() >= score[b][mask[b] & (kept[b] == 0)].max()
    assert not score[~mask].any() and not kept[~mask].any() and score.max() <= 1


def test_sstoken_mask():
    history, loss, attention, mask = torch.rand(B, T) * 9, torch.rand(B, T) * 9, torch.rand(B, T), random_mask()
    kept = sstoken_mask(history, loss, attention, gamma=0.3, ratio=0.4, mask=mask)
    for b in range(B):
        at = mask[b].nonzero().flatten().tolist()
        if not at:
            continue
        excess = unit((history - loss)[b, at].tolist())
        score = [0.3 * e + 0.7 * a for e, a in zip(excess, attention[b, at].tolist(), strict=True)]
        best = sorted(range(len(at)), key=lambda i: -score[i])[: math.ceil(0.4 * len(at))]
        assert sorted(at[i] for i in best) == kept[b].nonzero().flatten().tolist()
    assert not kept[~mask].any()


def test_equal_scores_keep_the_earlier_tokens():
    same = torch.zeros(1, 8)
    assert sstoken_mask(same, same, same, ratio=0.5).tolist() == [[True] * 4 + [False] * 4]


def test_paced_weight_is_largest_between():
    rate = torch.linspace(0, 1, 101)
    weight = paced_weight(rate, alpha=2, beta=1)
    torch.testing.assert_close(weight, rate**2 * (1 - rate))
    assert weight.argmax() == 67 and weight[0] == weight[-1] == 0


@pytest.mark.parametrize("strategy", ["linupper", "quadratic", "extremes"])
def test_loss_reweight(strategy):
    loss = torch.rand(9) * 7
    low, high = loss.min().item(), loss.max().item()
    h = [2 * x / (high - low) - (high + low) / (high - low) for x in loss.tolist()]
    f = {"linupper": lambda x: min(x + 1, 1), "quadratic": lambda x: 1 - x * x, "extremes": abs}[strategy]
    right = torch.tensor([math.exp(f(x) / 0.7) for x in h])
    torch.testing.assert_close(loss_reweight(loss, strategy=strategy, temperature=0.7), right / right.sum())
    assert loss_reweight(torch.zeros(0)).shape == (0,)
    torch.testing.assert_close(loss_reweight(torch.ones(4), strategy=strategy), torch.full((4,), 0.25))


# ---- policies --------------------------------------------------------------------------------------------------------


def covariances(logp, advantage, mask):
    x, a = logp[mask], advantage[:, None].expand_as(logp)[mask]
    out = torch.full_like(logp, math.nan)
    out[mask] = (a - a.mean()) * (x - x.mean())
    return out


def test_kl_cov_mask():
    logp, advantage, mask = -3 * torch.rand(B, T), torch.randn(B), random_mask()
    got = kl_cov_mask(logp, advantage, share=0.1, mask=mask)
    cov = covariances(logp, advantage, mask)
    count = math.ceil(0.1 * int(mask.sum()))
    assert got.sum() == count and not got[~mask].any()
    assert cov[got].min() >= cov[mask & ~got].max()


def test_clip_cov_mask():
    logp, advantage, mask = -9 * torch.rand(B, T), 2 * torch.randn(B), random_mask()
    cov = covariances(logp, advantage, mask)
    clipped = torch.rand(B, T) < 0.3
    allowed = mask & (cov > 0.5) & (cov < 4) & ~clipped
    draw = lambda seed: clip_cov_mask(  # noqa: E731
        logp, advantage, share=0.05, low=0.5, high=4, clipped=clipped, mask=mask,
        generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip
    first = draw(1)
    assert first.sum() == min(math.ceil(0.05 * int(mask.sum())), int(allowed.sum())) and not first[~allowed].any()
    assert torch.equal(first, draw(1)) and any(not torch.equal(first, draw(seed)) for seed in range(2, 9))
    everything = clip_cov_mask(logp, advantage, share=1.0, low=0.5, high=4, clipped=clipped, mask=mask)
    assert torch.equal(everything, allowed)


def test_steer_weight_is_the_change_of_entropy():
    """omega is pi / pi_old times A (dH / d z_y's coefficient) of a policy-gradient step, as autograd finds it."""
    z, y = torch.randn(30, 12, dtype=torch.float64) * 2, torch.randint(12, (30,))
    logp_all = z.log_softmax(-1)
    logp, entropy = logp_all.gather(-1, y[:, None])[:, 0], -(logp_all.exp() * logp_all).sum(-1)
    old, advantage = logp - 0.1 * torch.randn(30, dtype=torch.float64), torch.randn(30, dtype=torch.float64)
    p = logp.exp()
    omega = (advantage / old.exp() * p * (1 - p) * (logp + entropy)).abs()
    got = steer_weight(logp, old, entropy, advantage, least=0.7)
    rate = -math.log(0.7) / max(omega.max().item(), 0.02)
    torch.testing.assert_close(got, torch.exp(-rate * omega))
    assert abs(got.min().item() - 0.7) < 1e-9
    mask = torch.rand(30) < 0.5
    assert not steer_weight(logp, old, entropy, advantage, mask=mask)[~mask].any()


def test_step_radius():
    """On the real line e^z1 + e^z2 has its first complex zero there."""
    low, high = torch.tensor([[0.0, 1.0], [2.0, 1.0]], dtype=torch.float64)
    assert step_radius(low, high).tolist() == [math.pi / 2, math.inf]
    zero = torch.exp(torch.complex(torch.tensor(0.0), torch.tensor(math.pi / 2)) * torch.tensor([0.0, 2.0])).sum()
    assert zero.abs() < 1e-6


def test_no_gradients():
    logp = torch.rand(B, T, requires_grad=True)
    for x in (
        tip_weights(logp, logp),
        steer_weight(logp, logp, logp, logp),
        loss_reweight(logp[0]),
        sstoken_mask(logp, logp, logp),
    ):
        assert not x.requires_grad


L = torch.zeros(2, 3)
REFUSED = [
    (goldfish_mask, (L,), {}, "target"),
    (goldfish_mask, (L.long(),), dict(k=1), "k"),
    (goldfish_mask, (L.long(),), dict(context=0), "context"),
    (goldfish_mask, (L.long(),), dict(strategy="random"), "strategy"),
    (tip_weights, (L, L[:1]), {}, "divergence"),
    (tip_weights, (L, L), dict(keep=0.0), "keep"),
    (tip_weights, (L, L), dict(quantile=2.0), "quantile"),
    (sstoken_mask, (L, L, L), dict(ratio=1.5), "ratio"),
    (sstoken_mask, (L, L, L), dict(gamma=-1.0), "gamma"),
    (sstoken_mask, (L, L, L), dict(mask=L[0]), "mask"),
    (paced_weight, (L,), dict(alpha=-1.0), "alpha"),
    (loss_reweight, (L,), {}, "loss"),
    (loss_reweight, (L[0],), dict(strategy="top"), "strategy"),
    (loss_reweight, (L[0],), dict(temperature=0.0), "temperature"),
    (kl_cov_mask, (L, L[:, :2]), {}, "advantage"),
    (clip_cov_mask, (L, L), dict(share=0.0), "share"),
    (clip_cov_mask, (L, L), dict(clipped=L[0]), "clipped"),
    (steer_weight, (L, L, L, L), dict(least=0.0), "least"),
    (step_radius, (L, L[0]), {}, "high"),
]


@pytest.mark.parametrize(("rule", "arguments", "options", "word"), REFUSED)
def test_refused(rule, arguments, options, word):
    with pytest.raises((ValueError, TypeError), match=rf"{rule.__name__}: {word} must"):
        rule(*arguments, **options)


# ---- entropy-modulated advantages ------------------------------------------------------------------------------------


def test_empg_is_the_rule_step_by_step():
    step = torch.full((B, T), -1)
    for row, lengths in enumerate([(5, 9, 20), (7,), (10, 10, 10, 30), ()]):
        begin = 0
        for number, length in enumerate(lengths):
            step[row, begin + 1 : begin + length] = number  # the first token of each belongs to none
            begin += length
    entropy, advantage = torch.rand(B, T).double(), torch.randn(B).double()
    of_step = {
        (row, number): entropy[row][step[row] == number].mean()
        for row in range(B)
        for number in range(step[row].max() + 1)
    }
    low, high = min(of_step.values()), max(of_step.values())
    h = {key: (x - low) / (high - low + 1e-8) for key, x in of_step.items()}
    mean = sum(torch.exp(-2 * x) for x in h.values()) / len(h)
    right = torch.zeros(B, T).double()
    for (row, number), x in h.items():
        bonus = 0.3 * torch.exp(-0.5 * h[row, number + 1]) if (row, number + 1) in h else 0
        right[row][step[row] == number] = advantage[row] * torch.exp(-2 * x) / mean + bonus
    right = torch.where(step >= 0, right - right.sum() / (step >= 0).sum(), 0)
    got = empg(advantage, entropy, step, k=2.0, k_future=0.5, zeta=0.3)
    torch.testing.assert_close(got, right, rtol=1e-6, atol=1e-7)
    assert not empg(advantage, entropy, torch.full((B, T), -1)).any()
    with pytest.raises(ValueError, match="empg: step must have shape"):
        empg(advantage, entropy, step[:, 1:])
    with pytest.raises(ValueError, match=rf"empg: step must be in \[0, {T}\)"):
        empg(advantage, entropy, step.clamp(min=T))
    alone = empg(advantage, entropy, torch.arange(T).expand(B, T))  # the last step of all has no successor
    assert alone.isfinite().all()


# ---- heterogeneous adaptive policy optimisation ----------------------------------------------------------------------


def test_hapo_is_the_rule_token_by_token():
    mask, low, high = random_mask(), 0.2, 0.3
    logp, entropy, advantage = -torch.rand(B, T).double(), torch.rand(B, T).double() * 3, torch.randn(B, T).double()
    old = logp + 0.2 * torch.randn(B, T).double()
    got = hapo(logp, old, advantage, entropy, mask=mask, clip_low=low, clip_high=high, alpha=0.5, beta=0.7, pivot=0.6)
    logs = entropy[mask].log().sort().values
    pivot = logs[round(0.6 * (len(logs) - 1))]
    most, least = (logs - pivot).max(), (logs - pivot).min().abs()
    changed = 0
    for row in range(B):
        for t in range(T):
            if not mask[row, t]:
                assert got.advantage[row, t] == 0
                continue
            h = entropy[row, t].log() - pivot
            h = h / most if h > 0 else h / least
            below = low * (1 - 0.5 * h) if h <= 0 else low
            above = high * (1 + 0.5 * h) if h > 0 else high
            inside = 1 - below / 2 < (logp - old)[row, t].exp() < 1 + above / 2
            scaled = inside if h <= 0 else not inside
            changed += scaled
            right = advantage[row, t] * (1 + 0.7 * h if scaled else 1)
            for x, y in zip((a[row, t] for a in got), (right, below, above), strict=True):
                assert abs(x - y) < 1e-9
    assert 0 < changed < mask.sum()
    assert grpo(logp, old, got.advantage, mask=mask, clip_low=got.clip_low, clip_high=got.clip_high).isfinite()
    nothing = hapo(logp, old, advantage, entropy, mask=torch.zeros_like(mask))
    assert not nothing.advantage.any() and all(x.isfinite().all() for x in nothing)


def test_hapo_with_wider_clips_lets_more_through():
    mask = torch.ones(B, T, dtype=torch.bool)
    logp, old = torch.zeros(B, T), torch.full((B, T), -0.35)  # a ratio of 1.42
    entropy = torch.linspace(0.1, 3, T).expand(B, T)
    got = hapo(logp, old, torch.ones(B), entropy, beta=0.0)
    clipped = grpo(logp, old, torch.ones(B), mask=mask, clip_high=0.28, reduction="none")
    freer = grpo(logp, old, got.advantage, clip_low=got.clip_low, clip_high=got.clip_high, reduction="none")
    assert (freer <= clipped + 1e-6).all() and (freer < clipped - 1e-3).any()
