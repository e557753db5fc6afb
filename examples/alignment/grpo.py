"""Group-relative policy optimisation: the model learns to write words with the letter e."""

import copy
from collections.abc import Iterator
from typing import NamedTuple

import torch
from lossk.policy import grpo, kl_estimate
from torch import Tensor

from .lm import Pretrained, sample, score, windows

PROMPT, ANSWER = 12, 12  # tokens


class Step(NamedTuple):
    reward: float  # mean over the rollouts
    loss: float
    kl: float  # to the model that training began with, nats a token
    entropy: float


def train(start: Pretrained, *, steps=30, prompts=4, group=8, inner=2, seed=0) -> Iterator[Step]:
    """Each step: `group` answers to each prompt, then `inner` updates on them; the entropy bonus keeps them varied."""
    policy, reference = copy.deepcopy(start.model), start.model
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-4, weight_decay=0.0)
    generator = torch.Generator().manual_seed(seed)
    good = torch.tensor(["e" in word for word in start.words])
    for _ in range(steps):
        questions = windows(start.stream, prompts, PROMPT, generator).repeat_interleave(group, 0)
        tokens = sample(policy, questions, ANSWER, generator)
        reward = good[tokens[:, PROMPT:]].float().mean(-1)
        advantage = advantages(reward, group)
        with torch.no_grad():
            old = score(policy, tokens, PROMPT).logp
            known = score(reference, tokens, PROMPT).logp
        for _ in range(inner):
            now = score(policy, tokens, PROMPT)
            loss = grpo(
                now.logp, old, advantage, reference_logp=known, beta=0.02, kl="k3", entropy=now.entropy,
                entropy_coef=1e-3,
            )  # fmt: skip
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
            optimizer.step()
        kl = kl_estimate(now.logp.detach(), known).mean()
        yield Step(reward.mean().item(), loss.item(), kl.item(), now.entropy.mean().item())


def advantages(reward: Tensor, group: int) -> Tensor:
    """[N]: each reward against those of its group, in units of their deviation."""
    of_group = reward.view(-1, group)
    return ((of_group - of_group.mean(-1, keepdim=True)) / (of_group.std(-1, keepdim=True) + 1e-4)).flatten()
