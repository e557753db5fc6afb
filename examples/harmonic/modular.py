"""Modular addition: when a small network that has learned half of a table knows the other half, and by what circles."""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from lossk.nn import HarmonicHead, LinearCrossEntropyLoss
from rich.progress import track
from torch import Tensor, nn

MODULUS, DIM, WIDTH = 31, 16, 100
RATE, DECAYS = 2e-3, (0.01, 1.0)
CENTRES = 0.01  # weight of the centres' norm in the harmonic loss, as in the paper's code
EVERY = 50  # steps between two looks at the test pairs
GENERALISES = 0.9  # test accuracy
HEADS = {
    "cross-entropy": lambda: LinearCrossEntropyLoss(DIM, MODULUS),
    "harmonic": lambda: HarmonicHead(DIM, MODULUS, eps=1e-4),  # exponent sqrt(DIM) = 4; eps as in the paper's code
}


class Adder(nn.Module):
    """Pairs [N, 2] -> features [N, DIM], whose class is their sum; the embedding is not the head's weight."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(MODULUS, DIM), head
        for weight in (self.embedding.weight, head.weight):
            nn.init.normal_(weight, std=DIM**-0.5)
        widths = (2 * DIM, WIDTH, WIDTH, DIM)
        layers = [layer for sizes in pairwise(widths) for layer in (nn.Linear(*sizes), nn.SiLU())]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, pairs: Tensor) -> Tensor:
        return self.layers(self.embedding(pairs).flatten(1))

    def loss(self, pairs: Tensor) -> Tensor:
        loss = self.head(self(pairs), pairs.sum(1) % MODULUS)
        if isinstance(self.head, HarmonicHead):
            loss = loss + CENTRES * self.head.weight.square().mean(0).sqrt().mean()
        return loss

    @torch.no_grad()
    def accuracy(self, pairs: Tensor) -> float:
        x = self(pairs)
        logits = self.head(x) if isinstance(self.head, HarmonicHead) else F.linear(x, self.head.weight)
        return (logits.argmax(1) == pairs.sum(1) % MODULUS).double().mean().item()


@dataclass
class Training:
    """Accuracies after 0, EVERY, 2 EVERY, ... steps of all training pairs at once."""

    head: str
    decay: float
    seed: int
    train: list[float] = field(default_factory=list)
    test: list[float] = field(default_factory=list)

    def __call__(self, steps: int, share: float) -> dict[str, Any]:
        torch.manual_seed(self.seed)
        numbers = torch.arange(MODULUS)
        pairs = torch.cartesian_prod(numbers, numbers)[torch.randperm(MODULUS**2)]
        known, unseen = pairs.split([cut := round(share * len(pairs)), len(pairs) - cut])
        model = Adder(HEADS[self.head]())
        optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=self.decay, fused=True)
        for step in track(range(steps + 1), f"{self.head}, decay {self.decay:g}, seed {self.seed}"):
            if step % EVERY == 0:
                self.train.append(model.accuracy(known))
                self.test.append(model.accuracy(unseen))
            if step < steps:
                optimizer.zero_grad()
                model.loss(known).backward()
                optimizer.step()
        return vars(self) | {
            "generalises": next((i * EVERY for i, a in enumerate(self.test) if a >= GENERALISES), None),
            "embedding": principal(model.embedding.weight.detach()),
            "centres": principal(model.head.weight.detach()),
        }


def principal(points: Tensor) -> dict[str, Any]:
    """The two leading principal components of [V, D] points, and the share of their variance that is in these."""
    u, s, _ = torch.linalg.svd(points - points.mean(0), full_matrices=False)
    share = s[:2].square().sum() / s.square().sum()
    return {"share": share.item(), "points": [[round(x, 4) for x in p] for p in (u[:, :2] * s[:2]).tolist()]}


def run(*, steps: int, seeds: int, decays: tuple[float, ...] = DECAYS, share: float = 0.5) -> dict[str, Any]:
    runs = [Training(h, decay, seed)(steps, share) for decay in decays for seed in range(seeds) for h in HEADS]
    return {"modulus": MODULUS, "steps": steps, "every": EVERY, "share": share, "runs": runs}
