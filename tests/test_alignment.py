"""examples/alignment: each method runs on a small model and real text, and gets better at what it is paid for."""

import pytest
import torch
import torch.nn.functional as F
from lossk.policy import grpo as grpo_loss

from examples.alignment import distill, dpo, grpo
from examples.alignment.lm import pretrain, sample, score


@pytest.fixture(scope="module")
def start():
    return pretrain(megabytes=0.3, vocab=384, steps=30, batch=4, context=48)


def test_scores_are_those_of_the_logits(start):
    tokens = start.stream[:80].view(4, 20)
    got = score(start.model, tokens, 12)
    z = F.linear(start.model(tokens[:, :-1]).view(4, 19, -1), start.model.embedding.weight)[:, 11:]
    logp = z.log_softmax(-1)
    torch.testing.assert_close(got.logp, logp.gather(-1, tokens[:, 12:, None])[..., 0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(got.entropy, -(logp.exp() * logp).sum(-1), rtol=1e-4, atol=1e-4)


def test_samples_keep_the_prompt_and_depend_on_the_seed(start):
    prompts = start.stream[:24].view(2, 12)
    draws = [sample(start.model, prompts, 5, torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert all(x.shape == (2, 17) and torch.equal(x[:, :12], prompts) for x in draws)
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_grpo_raises_the_reward(start):
    steps = list(grpo.train(start, steps=10, prompts=4, group=8))
    first, last = (sum(s.reward for s in part) / 3 for part in (steps[:3], steps[-3:]))
    assert last > first + 0.05
    assert all(s.kl >= 0 and s.entropy > 0 for s in steps)


def test_dpo_learns_the_preference(start):
    steps = list(dpo.train(start, steps=16, pairs=8))
    assert abs(steps[0].loss - 0.6931) < 1e-3 and steps[0].margin == pytest.approx(0, abs=1e-4)
    assert sum(s.accuracy for s in steps[-4:]) / 4 > 0.7 and sum(s.margin for s in steps[-4:]) > 0


@pytest.mark.parametrize("kind", ["jsd", "reverse_kl"])
def test_the_student_gets_nearer_to_its_teacher(start, kind):
    steps = list(distill.train(start, steps=25, batch=8, kind=kind))
    first, last = (sum(s.divergence for s in part) / 5 for part in (steps[:5], steps[-5:]))
    assert 0 < last < 0.8 * first
    assert 0 < steps[-1].forward_kl < steps[0].forward_kl


def test_distillation_reports_one_model(start):
    for step in distill.train(start, steps=3, batch=4, kind="forward_kl", temperature=2.0):
        assert step.divergence == pytest.approx(step.forward_kl, rel=1e-5)


def test_advantages_are_relative_to_the_group():
    reward = torch.tensor([0.0, 1.0, 5.0, 5.0])
    got = grpo.advantages(reward, 2)
    assert got[0] == -got[1] < 0 and not got[2:].any()
    assert grpo_loss(torch.zeros(4, 3), torch.zeros(4, 3), got) == pytest.approx(0, abs=1e-6)
