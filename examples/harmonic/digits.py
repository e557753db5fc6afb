"""Class centres: one layer on pixels, by cross-entropy or a harmonic head, and how near its weights are to digits."""

from typing import Any

import torch
import torch.nn.functional as F
from lossk.nn import HarmonicHead, LinearCrossEntropyLoss
from rich.progress import track
from torch import Tensor, nn

from .glyphs import CLASSES, SIDE, digits

PIXELS = SIDE * SIDE
RATE, BATCH = 5e-3, 100
HEADS = {
    "cross-entropy": lambda: LinearCrossEntropyLoss(PIXELS, CLASSES),
    "harmonic, exponent 28": lambda: HarmonicHead(PIXELS, CLASSES),  # sqrt(PIXELS), lossk's own choice
    "harmonic, exponent 56": lambda: HarmonicHead(
        PIXELS, CLASSES, exponent=2 * SIDE
    ),  # of d; the paper's code: 28, of d^2
}


def run(*, images: int, epochs: int, seed: int = 0) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Facts, and what there is to see: [10, 784] by name, the classes' means first."""
    x, y = digits(images, seed)
    unseen, truth = digits(max(images // 2, CLASSES), seed + 1)
    means = torch.stack([x[y == k].mean(0) for k in range(CLASSES)])
    found = {"a test image of the class": likeness(unseen, means[truth])}
    pictures = {"mean image": means}
    for name, make in HEADS.items():
        torch.manual_seed(seed)
        head = make()
        nn.init.normal_(head.weight, std=PIXELS**-0.5)  # HarmonicHead's own start is for features as a LayerNorm's
        train(head, x, y, epochs, seed, name)
        weight = pictures[name] = head.weight.detach()
        right = [(predict(head, a) == b).double().mean().item() for a, b in ((x, y), (unseen, truth))]
        found[name] = dict(zip(("train_accuracy", "test_accuracy"), right)) | likeness(weight, means)
    return {"images": images, "test_images": len(unseen), "epochs": epochs, "found": found}, pictures


def train(head: nn.Module, x: Tensor, y: Tensor, epochs: int, seed: int, name: str) -> None:
    optimizer = torch.optim.AdamW(head.parameters(), lr=RATE, weight_decay=0.0, fused=True)
    generator = torch.Generator().manual_seed(seed)
    for _ in track(range(epochs), name):
        for batch in torch.randperm(len(x), generator=generator).split(BATCH):
            head(x[batch], y[batch]).backward()
            optimizer.step()
            optimizer.zero_grad()


@torch.no_grad()
def predict(head: nn.Module, x: Tensor) -> Tensor:
    logits = head(x) if isinstance(head, HarmonicHead) else F.linear(x, head.weight)
    return logits.argmax(1)


def likeness(images: Tensor, means: Tensor) -> dict[str, float]:
    """Of each image to the mean next to it, averaged: cosine, and distance in units of the mean's norm."""
    distance = (images - means).norm(dim=1) / means.norm(dim=1)
    return {"cosine": F.cosine_similarity(images, means).mean().item(), "distance": distance.mean().item()}
