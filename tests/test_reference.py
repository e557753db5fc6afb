"""The formulas themselves, against torch.nn.functional in float64."""

import pytest
import torch
import torch.nn.functional as F
from lossk import reference
from problem import each_reduction, random_problem

CLOSE = {"rtol": 1e-12, "atol": 1e-12}


def call(problem, **changes):
    return reference.linear_cross_entropy(**problem.arguments() | changes)


@each_reduction
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("class_weight", [False, True])
def test_hard_targets_are_torch_cross_entropy(reduction, smoothing, class_weight):
    p = random_problem(30, 17, 5, torch.float64, bias=True, class_weight=class_weight)
    t = p.tensors
    z = F.linear(t["input"], t["linear_weight"], t["linear_bias"])
    options = dict(reduction=reduction, label_smoothing=smoothing)
    expected = F.cross_entropy(z, t["target"], weight=t.get("weight"), **options)
    torch.testing.assert_close(call(p, **options), expected, **CLOSE)


@pytest.mark.parametrize("class_weight", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_soft_targets_are_torch_probability_targets(smoothing, class_weight):
    p = random_problem(30, 17, 5, torch.float64, soft=4, ignored=0, class_weight=class_weight)
    t = p.tensors
    present = t["soft_indices"] != -100
    dense = torch.zeros(30, 17, dtype=torch.float64)
    dense.scatter_add_(1, t["soft_indices"].where(present, 0), t["soft_weights"].where(present, 0))
    z = F.linear(t["input"], t["linear_weight"])
    expected = F.cross_entropy(z, dense, weight=t.get("weight"), label_smoothing=smoothing, reduction="none")
    actual = call(p, label_smoothing=smoothing, reduction="none")
    torch.testing.assert_close(actual, expected.where(present.any(-1), 0), **CLOSE)
    torch.testing.assert_close(call(p, label_smoothing=smoothing), actual.sum() / present.any(-1).sum(), **CLOSE)


def test_logits_apply_scale_then_softcap_then_margin():
    x, w, b = torch.randn(4, 3), torch.randn(6, 3), torch.randn(6)
    scale, target = torch.rand(4), torch.randint(6, (4,))
    z = reference.logits(x, w, b, scale, 2.0, target, 0.3)
    for n in range(4):
        for v in range(6):
            expected = 2.0 * torch.tanh(scale[n] * (x[n] @ w[v] + b[v]) / 2.0) - 0.3 * (v == target[n])
            torch.testing.assert_close(z[n, v], expected)


def test_shift_predicts_the_token_that_comes_later():
    p = random_problem(30, 17, 5, lead=(3, 10), token_weight=True, token_scale=True)
    early = {name: p.tensors[name][:, :-2] for name in ("input", "scale")}
    late = {name: p.tensors[name][:, 2:] for name in ("target", "token_weight")}
    shifted = call(p, shift=2, reduction="none")
    assert shifted.shape == (3, 8)
    assert torch.equal(shifted, call(p.with_(**early, **late), reduction="none"))


def test_all_rows_ignored_is_nan_with_zero_gradients():
    p = random_problem(6, 17, 5, ignored=1.1)
    results = p.gradients(reference.linear_cross_entropy)
    assert results["loss"].isnan()
    assert not results["grad of input"].any() and not results["grad of linear_weight"].any()


def test_statistics_follow_their_definitions():
    p = random_problem(7, 11, 5, torch.float64)
    x, w = p.tensors["input"], p.tensors["linear_weight"]
    index, aux = torch.tensor([[2, 2, -1]]).expand(7, 3), torch.randn(11, dtype=torch.float64)
    s = reference.linear_stats(x, w, index, aux=aux)
    z, keep = x @ w.T, torch.arange(11) != 2
    prob = z.softmax(-1)
    expected = dict(
        lse=z.exp().sum(-1).log(), lse_excl=z[:, keep].exp().sum(-1).log(), mean_logit=(prob * z).sum(-1),
        entropy=-(prob * prob.log()).sum(-1), lse2=(2 * z).exp().sum(-1).log(), aux_mean=prob @ aux,
        aux_logp=prob.log() @ aux,
        max=z.amax(-1), argmax=z.argmax(-1), min=z.amin(-1), logits=torch.stack([z[:, 2], z[:, 2], 0 * z[:, 2]], -1),
    )  # fmt: skip
    for name, value in expected.items():
        torch.testing.assert_close(getattr(s, name), value, **CLOSE)


def test_logp_is_the_log_softmax_at_the_target():
    p = random_problem(20, 11, 5, torch.float64)
    x, w, y = p.tensors["input"], p.tensors["linear_weight"], p.tensors["target"]
    out = reference.linear_logp(x, w, y, temperature=0.7)
    logp = (x @ w.T / 0.7).log_softmax(-1)
    keep = y != -100
    torch.testing.assert_close(out.logp[keep], logp[keep].gather(-1, y[keep, None])[:, 0], **CLOSE)
    torch.testing.assert_close(out.entropy[keep], -(logp.exp() * logp).sum(-1)[keep], **CLOSE)
    assert not any(v[~keep].any() for v in out)
