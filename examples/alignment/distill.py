"""On-policy distillation: a student a quarter as wide learns the pretrained model's distributions, on text and on what
it writes itself."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from lossk import linear_divergence
from torch import Tensor, nn

from .lm import Pretrained, sample, windows

PROMPT, ANSWER = 8, 24  # tokens


class Step(NamedTuple):
    divergence: float  # mean over the tokens, in nats
    forward_kl: float  # the same tokens, as distillation without samples would measure it


class Student(nn.Module):
    """tokens [B, T] -> [B*T, width]; its head is its embedding."""

    def __init__(self, vocab: int, width=64) -> None:
        super().__init__()
        self.embedding, self.mix = nn.Embedding(vocab, width), nn.GRU(width, width, num_layers=2, batch_first=True)
        self.norm = nn.LayerNorm(width, bias=False)
        nn.init.normal_(self.embedding.weight, std=0.05)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        return self.norm(x + self.mix(x)[0]).flatten(0, 1)


def train(
    start: Pretrained, *, steps=60, batch=16, kind="jsd", beta=0.5, on_policy=0.5, temperature=1.0, seed=0
) -> Iterator[Step]:
    teacher, vocab = start.model, start.model.embedding.num_embeddings
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = Student(vocab)
    optimizer = torch.optim.AdamW(student.parameters(), lr=3e-3, weight_decay=0.0)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        tokens = windows(start.stream, batch, PROMPT + ANSWER, generator)
        own = round(on_policy * batch)
        if own:
            tokens[:own] = sample(student, tokens[:own, :PROMPT], ANSWER, generator)
        with torch.no_grad():
            taught = teacher(tokens[:, :-1])
        heads = (student(tokens[:, :-1]), student.embedding.weight, taught, teacher.embedding.weight)
        loss = linear_divergence(*heads, kind=kind, beta=beta, temperature=temperature)
        with torch.no_grad():
            forward_kl = linear_divergence(*heads, temperature=temperature)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        yield Step(loss.item(), forward_kl.item())
