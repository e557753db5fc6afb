"""Direct preference optimisation: a line as it was written is preferred to the same tokens in another order."""

import copy
from collections.abc import Iterator
from typing import NamedTuple

import torch
from lossk.policy import dpo, sequence_logp
from torch import Tensor

from .lm import Pretrained, score, windows

PROMPT, ANSWER = 12, 8  # tokens


class Step(NamedTuple):
    loss: float
    accuracy: float  # share of pairs whose chosen answer has gained more than the rejected one
    margin: float  # by how many nats


def train(start: Pretrained, *, steps=30, pairs=16, beta=0.1, seed=0) -> Iterator[Step]:
    policy, reference = copy.deepcopy(start.model), start.model
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-4, weight_decay=0.0)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        chosen = windows(start.stream, pairs, PROMPT + ANSWER, generator)
        both = torch.cat([chosen, shuffled(chosen, generator)])
        now = sequence_logp(score(policy, both, PROMPT).logp)
        with torch.no_grad():
            known = sequence_logp(score(reference, both, PROMPT).logp)
        loss = dpo(*now.chunk(2), *known.chunk(2), beta=beta)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        gained, lost = (now.detach() - known).chunk(2)
        yield Step(loss.item(), (gained > lost).float().mean().item(), (gained - lost).mean().item())


def shuffled(tokens: Tensor, generator: torch.Generator) -> Tensor:
    """[B, T] with each answer's tokens in a random order."""
    order = torch.rand(len(tokens), ANSWER, generator=generator).argsort(-1)
    return torch.cat([tokens[:, :PROMPT], tokens[:, PROMPT:].gather(1, order)], 1)
