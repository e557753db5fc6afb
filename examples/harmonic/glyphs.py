"""Digits drawn with strokes: 28 x 28 images that need no download, turned, sheared, moved and thickened by chance."""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

SIDE, CLASSES = 28, 10
BATCH = 200  # images drawn at once: every pixel is compared with every segment


def arc(x: float, y: float, rx: float, ry: float, begin: float, end: float) -> list[tuple[float, float]]:
    """From one angle to another, in degrees, clockwise on the page (y points down) from three o'clock."""
    count = max(3, round(abs(end - begin) / 30))
    angles = [math.radians(begin + (end - begin) * i / count) for i in range(count + 1)]
    return [(x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles]


# Strokes of each digit as polylines, in a box of [-1, 1] both ways.
STROKES = [
    [arc(0, 0, 0.55, 0.9, 0, 360)],
    [[(-0.3, -0.55), (0.05, -0.9), (0.05, 0.9)]],
    [[*arc(0, -0.4, 0.5, 0.5, 190, 400), (-0.55, 0.9), (0.6, 0.9)]],
    [arc(-0.05, -0.45, 0.5, 0.45, 200, 450), arc(-0.05, 0.45, 0.55, 0.45, 270, 520)],
    [[(0.25, 0.9), (0.25, -0.9), (-0.6, 0.3), (0.65, 0.3)]],
    [[(0.5, -0.9), (-0.4, -0.9), (-0.45, -0.1), *arc(-0.05, 0.35, 0.55, 0.55, 230, 510)]],
    [[(0.35, -0.9), *arc(0, 0.4, 0.5, 0.5, 180, -180)]],
    [[(-0.55, -0.9), (0.55, -0.9), (-0.15, 0.9)]],
    [arc(0, -0.45, 0.42, 0.42, 0, 360), arc(0, 0.45, 0.5, 0.45, 0, 360)],
    [[*arc(0, -0.4, 0.5, 0.5, 0, 360), (0.35, 0.9)]],
]


def segments() -> Tensor:
    """[10, S, 2 ends, 2]; a digit of fewer than S segments repeats its last."""
    digits = [[pair for stroke in strokes for pair in pairwise(stroke)] for strokes in STROKES]
    longest = max(map(len, digits))
    return torch.tensor([digit + digit[-1:] * (longest - len(digit)) for digit in digits])


def digits(count: int, seed: int, noise: float = 0.1) -> tuple[Tensor, Tensor]:
    """Images [count, 784] in about [0, 1] with noise of this standard deviation, and labels [count]."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(CLASSES, (count,), generator=generator)
    between = lambda low, high, *size: low + (high - low) * torch.rand(count, *size, generator=generator)  # noqa: E731
    turn, shear, size = between(-0.2, 0.2), between(-0.25, 0.25), between(6.5, 9.5, 2)
    shift, pen = between(-1.0, 1.0, 2), between(0.8, 1.7)
    cos, sin = turn.cos(), turn.sin()
    frame = torch.stack([cos, shear * cos - sin, sin, shear * sin + cos], 1).view(-1, 2, 2)
    ends = (segments()[label] * size[:, None, None]) @ frame[:, None].mT + shift[:, None, None]
    middle = (torch.arange(SIDE) - (SIDE - 1) / 2).expand(SIDE, SIDE)
    pixels = torch.stack([middle, middle.T], -1).view(-1, 2)
    ink = [pen_at(pixels, e, p) for e, p in zip(ends.split(BATCH), pen.split(BATCH))]
    return torch.cat(ink) + noise * torch.randn(count, SIDE * SIDE, generator=generator), label


def pen_at(pixels: Tensor, ends: Tensor, pen: Tensor) -> Tensor:
    """Ink [B, P]: 1 within `pen` pixels of a segment, falling to 0 over one pixel; ends [B, S, 2, 2], pen [B]."""
    begin, along = ends[:, :, 0], ends[:, :, 1] - ends[:, :, 0]
    share = (pixels @ along.mT - (begin * along).sum(-1)[:, None]) / along.square().sum(-1)[:, None]
    share.clamp_(0, 1)  # [B, P, S], of the way along the segment to where it is nearest
    x, y = (pixels[:, i, None] - begin[:, None, :, i] - share * along[:, None, :, i] for i in range(2))
    return F.hardtanh(pen[:, None] + 0.5 - (x * x + y * y).amin(-1).sqrt(), 0, 1)
