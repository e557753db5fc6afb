"""lossk.policy against the formulas written out token by token, and what the formulas must have."""

import math

import pytest
import torch
from lossk import linear_logp, policy
from lossk.policy import dpo, flat, grpo, implicit_prm, implicit_reward, kl_estimate, npo, reinforce
from lossk.tokens import steer_weight
from tolerance import assert_identical

B, T = 5, 7


@pytest.fixture
def batch():
    """float64; a masked token holds nan, and a sequence has no token at all."""
    logp, old, reference = (-3 * torch.rand(B, T, dtype=torch.float64) for _ in range(3))
    mask = torch.rand(B, T) < 0.7
    mask[1] = False
    mask[0, :2], mask[2:, 0] = True, True
    logp = logp.masked_fill(~mask, math.nan).requires_grad_()
    advantage = torch.randn(B, dtype=torch.float64)
    return dict(logp=logp, old_logp=old, reference_logp=reference, advantage=advantage, mask=mask)


def together(per_token, mask, reduction):
    """per_token(b, t), over the tokens that count."""
    rows = [[per_token(b, t) for t in range(T) if mask[b, t]] for b in range(B)]
    every = [x for row in rows for x in row]
    if reduction == "sequence":
        means = [sum(row) / len(row) for row in rows if row]
        return sum(means) / len(means)
    return sum(every) / len(every) if reduction == "mean" else sum(every)


def assert_same(ours, right, leaf):
    torch.testing.assert_close(ours, right)
    got, want = (torch.autograd.grad(x, leaf, retain_graph=True)[0] for x in (ours, right))
    assert got.isfinite().all()
    torch.testing.assert_close(got, want.nan_to_num(0))


@pytest.mark.parametrize("reduction", ["mean", "sequence", "sum"])
@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize(
    "options",
    [{}, dict(clip_low=0.1, clip_high=0.4), dict(dual_clip=1.5), dict(beta=0.2, kl="k3"), dict(beta=0.2, kl="k1+")],
    ids=str,
)
def test_grpo(options, level, reduction, batch):
    mask, logp = batch["mask"], batch["logp"]
    low = options.get("clip_low", 0.2)
    high = options.get("clip_high", low)

    def per_token(b, t):
        difference = logp[b, t] - batch["old_logp"][b, t]
        if level == "sequence":
            counts = mask[b]
            difference = (logp[b][counts] - batch["old_logp"][b][counts]).mean()
        ratio, a = difference.exp(), batch["advantage"][b]
        gain = torch.minimum(ratio * a, ratio.clamp(1 - low, 1 + high) * a)
        if "dual_clip" in options and a < 0:
            gain = torch.maximum(gain, options["dual_clip"] * a)
        loss = -gain
        if "beta" in options:
            d = batch["reference_logp"][b, t] - logp[b, t]
            value = d.exp() - 1 - d if options["kl"] == "k3" else (-d).detach() + d**2 / 2 - (d**2 / 2).detach()
            loss = loss + options["beta"] * value
        return loss

    ours = grpo(**batch, **options, level=level, reduction=reduction)
    assert_same(ours, together(per_token, mask, reduction), logp)


@pytest.mark.parametrize("options", [{}, dict(dual_clip=3.0), dict(level="sequence")], ids=str)
@pytest.mark.parametrize("advantage", [1.0, 0.0, -1.0])
def test_a_token_that_was_all_but_impossible(advantage, options):
    """Its ratio, e^99, is no float32; clipped away it moves nothing, and nothing is nan."""
    logp = torch.tensor([[-1.0, -1.0]], requires_grad=True)
    old, of_tokens = torch.tensor([[-1.0, -100.0]]), torch.tensor([[advantage, advantage]])
    loss = grpo(logp, old, of_tokens, **options)
    (grad,) = torch.autograd.grad(loss, logp)
    assert loss.isfinite() and grad.isfinite().all()
    if advantage >= 0 or "dual_clip" in options:
        assert grad[0, 1] == 0
    assert reinforce(logp, of_tokens, old_logp=old, importance=True).isfinite()
    k3 = kl_estimate(logp, old + torch.tensor([0.0, 198.0]))
    assert k3.isfinite().all() and torch.autograd.grad(k3.sum(), logp)[0].isfinite().all()
    weight = steer_weight(logp, old, torch.ones(1, 2), of_tokens)
    assert (weight >= 0.8).all() and (weight <= 1).all()


def test_grpo_with_entropy_and_one_advantage_per_token(batch):
    entropy = torch.rand(B, T, dtype=torch.float64, requires_grad=True)
    advantage = torch.randn(B, T, dtype=torch.float64)
    given = batch | dict(advantage=advantage)
    plain, ours = grpo(**given), grpo(**given, entropy=entropy, entropy_coef=0.01)
    mask = batch["mask"]
    torch.testing.assert_close(ours, plain - 0.01 * entropy[mask].mean())
    (grad,) = torch.autograd.grad(ours, entropy)
    torch.testing.assert_close(grad, torch.where(mask, -0.01 / mask.sum(), 0).double())
    none = grpo(**given, reduction="none")
    assert none.shape == (B, T) and not none[~mask].any()


@pytest.mark.parametrize("kind", ["plain", "asymre", "opmd", "red"])
@pytest.mark.parametrize("sides", ["one", "two"])
@pytest.mark.parametrize("clips", [{}, dict(clip_low=0.3, clip_high=0.5), dict(clip_high=0.2)], ids=str)
@pytest.mark.parametrize("importance", [False, True])
def test_reinforce(importance, clips, sides, kind, batch):
    mask, logp, coef = batch["mask"], batch["logp"], 0.7

    def per_token(b, t):
        a, now, old = batch["advantage"][b], logp[b, t], batch["old_logp"][b, t]
        ratio = (now - old).detach().exp()
        weight = {"plain": a, "opmd": a, "asymre": a + coef, "red": a * (a / coef).exp()}[kind]
        out = (ratio < 1 - clips.get("clip_low", math.inf), ratio > 1 + clips.get("clip_high", math.inf))
        if sides == "one":
            out = (out[0] and a < 0, out[1] and a > 0)
        loss = -(0 if any(out) else weight * (ratio if importance else 1)) * now
        return loss + coef * (now - old) ** 2 if kind == "opmd" else loss

    given = {k: batch[k] for k in ("logp", "old_logp", "advantage", "mask")}
    ours = reinforce(**given, kind=kind, coef=coef, importance=importance, sides=sides, **clips)
    assert_same(ours, together(per_token, mask, "mean"), logp)


# ---- estimates of the KL ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_kl_estimates_have_the_mean_that_they_should(kind):
    """E_p of k1 and k3 is KL(p || q); k2's is near it for near distributions."""
    z = torch.randn(9, dtype=torch.float64)
    p, q = (z + s * torch.randn(9, dtype=torch.float64) for s in (0, 0.05))
    p, q = p.log_softmax(0), q.log_softmax(0)
    exact = (p.exp() * (p - q)).sum()
    mean = (p.exp() * kl_estimate(p, q, kind)).sum()
    torch.testing.assert_close(mean, exact, rtol=0.1 if kind == "k2" else 1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["k1+", "k3+"])
def test_the_gradient_of_the_kl_itself(kind):
    """E_p of the estimate's gradient by theta is that of KL(p || q), which k1's (0) and k3's are not."""
    z = torch.randn(9, dtype=torch.float64, requires_grad=True)
    p, q = z.log_softmax(0), torch.randn(9, dtype=torch.float64).log_softmax(0)
    (want,) = torch.autograd.grad((p.exp() * (p - q)).sum(), z, retain_graph=True)
    (got,) = torch.autograd.grad((p.exp().detach() * kl_estimate(p, q, kind)).sum(), z, retain_graph=True)
    torch.testing.assert_close(got, want)
    (other,) = torch.autograd.grad((p.exp().detach() * kl_estimate(p, q, kind[:2])).sum(), z)
    assert (other - want).abs().max() > 1e-3


def test_k3_keeps_its_digits_and_is_never_negative():
    d = torch.cat([torch.logspace(-12, 1.3, 400), -torch.logspace(-12, 1.3, 400), torch.zeros(1)]).double()
    got = kl_estimate(torch.zeros_like(d).float(), d.float(), "k3")
    assert (got >= 0).all()
    at = d.float().double()
    exact = torch.where(at.abs() < 1e-3, at**2 / 2 + at**3 / 6 + at**4 / 24, torch.special.expm1(at) - at)
    assert ((got.double() - exact).abs() <= 1e-5 * exact).all()


# ---- preferences -----------------------------------------------------------------------------------------------------


PHI = {
    "reverse_kl": lambda u: u.log(),
    "forward_kl": lambda u: -1 / u,
    "js": lambda u: (2 * u / (1 + u)).log(),
    "alpha": lambda u: (1 - u**-0.3) / 0.3,
}


@pytest.mark.parametrize("f", PHI)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_dpo(smoothing, f):
    logps = [(-4 * torch.rand(6, dtype=torch.float64)).requires_grad_() for _ in range(4)]
    chosen, rejected, chosen_reference, rejected_reference = logps
    ours = dpo(*logps, beta=0.3, f=f, alpha=0.3, label_smoothing=smoothing)
    right = 0.3 * (PHI[f]((chosen - chosen_reference).exp()) - PHI[f]((rejected - rejected_reference).exp()))
    right = -((1 - smoothing) * right.sigmoid().log() + smoothing * (1 - right.sigmoid()).log()).mean()
    torch.testing.assert_close(ours, right)
    got, want = (torch.autograd.grad(x, logps[:2]) for x in (ours, right))
    torch.testing.assert_close(got, want)
    assert torch.autograd.grad(ours.sum() * 1, chosen_reference, allow_unused=True) == (None,)


@pytest.mark.parametrize("f", PHI)
def test_dpo_of_very_different_policies_is_finite(f):
    chosen = torch.tensor([-1e4, 0.0, -3.0], requires_grad=True)
    loss = dpo(chosen, chosen.detach().flip(0), chosen.detach().roll(1), chosen.detach().roll(2), f=f)
    assert loss.isfinite() and torch.autograd.grad(loss, chosen)[0].isfinite().all()


def test_npo():
    logp, reference = (-20 * torch.rand(6, dtype=torch.float64) for _ in range(2))
    logp.requires_grad_()
    ratio = (logp - reference).exp()
    right = 2 / 0.4 * torch.log1p(ratio**0.4).mean()
    assert_same(npo(logp, reference, beta=0.4), right, logp)


@pytest.mark.parametrize("divergence", ["kl", "total_variation", "js", "pearson"])
def test_flat_is_a_variational_divergence(divergence, batch):
    """-g(x) + f*(g(y)) of the paper's table, by conjugates written out."""
    forget, mask = batch["logp"], batch["mask"]
    template = (-2 * torch.rand(B, T - 2, dtype=torch.float64)).requires_grad_()
    x = template.exp().mean(-1)
    y = torch.stack([forget[b][mask[b]].exp().sum() / max(int(mask[b].sum()), 1) for b in range(B)])
    g, conjugate = {
        "kl": (lambda v: v, lambda t: (t - 1).exp()),
        "total_variation": (lambda v: v.tanh() / 2, lambda t: t),
        "js": (lambda v: math.log(2) - (1 + (-v).exp()).log(), lambda t: -(2 - t.exp()).log()),
        "pearson": (lambda v: v, lambda t: t**2 / 4 + t),
    }[divergence]
    right = (conjugate(g(y)) - g(x)).mean()
    ours = flat(template, forget, forget_mask=mask, divergence=divergence)
    assert_same(ours, right, forget)
    assert_same(ours, right, template)


def test_implicit_prm(batch):
    label = torch.tensor([1, 0, 1, 0, 1])
    logp, reference, mask = batch["logp"], batch["reference_logp"], batch["mask"]
    total = torch.stack([(logp[b] - reference[b])[mask[b]].sum() for b in range(B)])
    right = torch.nn.functional.binary_cross_entropy((0.2 * total).sigmoid(), label.double())
    assert_same(implicit_prm(logp, reference, label, mask=mask, beta=0.2), right, logp)
    steps = implicit_reward(logp, reference, mask=mask, beta=0.2)
    torch.testing.assert_close(steps[:, -1], 0.2 * total)
    torch.testing.assert_close(steps[0, 1], 0.2 * (logp - reference)[0, :2].sum())


def test_a_policy_step_on_a_head_has_the_gradients_of_one_on_logits():
    x, weight = torch.randn(B * T, 16, requires_grad=True), torch.randn(50, 16, requires_grad=True)
    target, advantage = torch.randint(50, (B * T,)), torch.randn(B)
    old = (x @ weight.T).log_softmax(-1).gather(1, target[:, None])[:, 0].detach() + 0.1 * torch.randn(B * T)

    def loss(logp, entropy):
        shaped = [v.view(B, T) for v in (logp, old, entropy)]
        return grpo(shaped[0], shaped[1], advantage, entropy=shaped[2], entropy_coef=0.01)

    out = linear_logp(x, weight, target)
    logp = (x @ weight.T).log_softmax(-1)
    dense = loss(logp.gather(1, target[:, None])[:, 0], -(logp.exp() * logp).sum(-1))
    got, want = (torch.autograd.grad(v, [x, weight]) for v in (loss(out.logp, out.entropy), dense))
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)


def test_constants_have_no_gradient(batch):
    given = {k: v.detach().requires_grad_() if v.is_floating_point() else v for k, v in batch.items()}
    grads = torch.autograd.grad(grpo(**given, beta=0.1), list(given.values())[:4], allow_unused=True)
    assert grads[0] is not None and grads[1:] == (None, None, None)


def test_compiles(batch):
    given = batch | dict(beta=0.1)
    assert_identical(torch.compile(grpo, fullgraph=True, backend="aot_eager")(**given), grpo(**given))


L = torch.zeros(2, 3)
REFUSED = [
    (grpo, (L, L[:1], L), {}, "old_logp"),
    (grpo, (L, L, torch.zeros(3)), {}, "advantage"),
    (grpo, (L, L, L), dict(mask=torch.ones(2)), "mask"),
    (grpo, (L, L, L), dict(level="word"), "level"),
    (grpo, (L, L, L), dict(beta=0.1), "reference_logp"),
    (grpo, (L, L, L), dict(beta=0.1, reference_logp=L, kl="k4"), "kind"),
    (grpo, (L, L, L), dict(entropy_coef=0.1), "entropy"),
    (grpo, (L, L, L), dict(dual_clip=0.5), "dual_clip"),
    (grpo, (L, L, L), dict(clip_low=-0.1), "clip_low"),
    (grpo, (L, L, L), dict(reduction="average"), "reduction"),
    (reinforce, (L, L), dict(kind="best"), "kind"),
    (reinforce, (L, L), dict(kind="red"), "coef"),
    (reinforce, (L, L), dict(importance=True), "old_logp"),
    (reinforce, (L, L), dict(sides="three"), "sides"),
    (dpo, (L, L, L, L[0]), {}, "rejected_reference_logp"),
    (dpo, (L, L, L, L), dict(f="hellinger"), "f must"),
    (dpo, (L, L, L, L), dict(f="alpha", alpha=1.0), "alpha"),
    (dpo, (L, L, L, L), dict(label_smoothing=0.6), "label_smoothing"),
    (npo, (L, L), dict(beta=0.0), "beta"),
    (flat, (L, L), dict(divergence="chi"), "divergence"),
    (implicit_prm, (L, L, torch.ones(3)), {}, "label"),
]


@pytest.mark.parametrize(("loss", "arguments", "options", "word"), REFUSED)
def test_refused(loss, arguments, options, word):
    with pytest.raises(ValueError, match=rf"(kl_estimate|{loss.__name__}): {word}"):
        loss(*arguments, **options)


def test_every_loss_says_where_it_is_from():
    for name in set(policy.__all__) - {"sequence_logp", "implicit_reward"}:
        assert "Source:" in getattr(policy, name).__doc__, name
