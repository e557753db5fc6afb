"""Harmonic heads beside cross-entropy, torch.cdist, broadcasts and the formulation that the papers' code has."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bench import memory, timing
from bench.shapes import SHAPES, Shape

SHAPE = SHAPES["cpu-reference"]
ELEMENTWISE_SHAPE = Shape(512, 768, 8192, "half a second for manhattan, forward and backward, on two cores")
BROADCAST_SHAPE = Shape(256, 768, 4096, "a broadcast of all differences is 3 GiB in float32, and there are several")
EXPONENT = 128.0
ELEMENTWISE_EXPONENT = 28.0  # flat enough that no pair is negligible, and every operation is done
EPS = 1e-6


class Problem(NamedTuple):
    input: Tensor
    weight: Tensor
    target: Tensor


def make(shape: Shape, seed: int = 0) -> Problem:
    """Rows in contexts of 64, between four centres each: half of them sure, as a model's are."""
    g = torch.Generator().manual_seed(seed)
    n, d, v, _ = shape
    weight = torch.randn(v, d, generator=g)
    context = torch.randint(v, (-(-n // 64), 4), generator=g)[torch.arange(n) // 64]
    mix = torch.rand(n, 4, generator=g).square()
    mix /= mix.sum(1, keepdim=True)
    input = (mix[:, :, None] * weight[context]).sum(1) + 0.3 * torch.randn(n, d, generator=g)
    target = context[torch.arange(n), mix.argmax(1)]
    return Problem(input.requires_grad_(), weight.requires_grad_(), target)


def _lossk(p: Problem, **how) -> Tensor:
    import lossk

    return lossk.harmonic.harmonic_loss(p.input, p.weight, p.target, **{"exponent": EXPONENT, "eps": EPS} | how)


def _cross_entropy(p: Problem, **how) -> Tensor:
    import lossk

    return lossk.linear_cross_entropy(p.input, p.weight, p.target, **how)


def _published(p: Problem) -> Tensor:
    """Squared distances over the smallest, raised to a power, normalised: step by step, as it is written."""
    x, w = p.input, p.weight
    d2 = x.square().sum(1)[:, None] + w.square().sum(1) - 2 * x @ w.T + EPS
    ratio = d2 / d2.min(1, keepdim=True).values
    q = ratio ** (-EXPONENT / 2)
    q = q / q.sum(1, keepdim=True)
    return -torch.log(q[torch.arange(len(x)), p.target] + 1e-30).mean()


def _cdist(p: Problem, order: float, exponent: float = EXPONENT) -> Tensor:
    d = torch.cdist(p.input, p.weight, p=order)
    return F.cross_entropy(-exponent / 2 * torch.log(d.square() + EPS), p.target)


def _broadcast(p: Problem) -> Tensor:
    d = (p.input[:, None] - p.weight).abs().sum(-1)
    return F.cross_entropy(-ELEMENTWISE_EXPONENT / 2 * torch.log(d.square() + EPS), p.target)


CROSS_ENTROPY = "lossk cross-entropy"
BY_PRODUCT: dict[str, Callable[[Problem], Tensor]] = {
    CROSS_ENTROPY: _cross_entropy,
    "lossk euclidean": _lossk,
    "lossk cosine": functools.partial(_lossk, distance="cosine"),
    f"{CROSS_ENTROPY}, per token": lambda p: _cross_entropy(p, reduction="none").mean(),
    "lossk euclidean, per token": lambda p: _lossk(p, reduction="none").mean(),
    "lossk cosine, per token": lambda p: _lossk(p, distance="cosine", reduction="none").mean(),
    f"{CROSS_ENTROPY}, τ = 2^-8": functools.partial(_cross_entropy, tau=2.0**-8),
    "lossk euclidean, τ = 2^-8": functools.partial(_lossk, tau=2.0**-8),
    "lossk cosine, τ = 2^-8": functools.partial(_lossk, distance="cosine", tau=2.0**-8),
    "torch.cdist": functools.partial(_cdist, order=2.0),
    "as published": _published,
}
ELEMENTWISE: dict[str, Callable[[Problem], Tensor]] = {
    "lossk manhattan": functools.partial(_lossk, distance="manhattan", exponent=ELEMENTWISE_EXPONENT),
    "lossk chebyshev": functools.partial(_lossk, distance="chebyshev", exponent=ELEMENTWISE_EXPONENT),
    "lossk canberra": functools.partial(_lossk, distance="canberra", exponent=ELEMENTWISE_EXPONENT),
    "torch.cdist, p = 1": functools.partial(_cdist, order=1.0, exponent=ELEMENTWISE_EXPONENT),
}
MANHATTAN_OPERATIONS = 10  # an element: 2 forward; made again, and 3 for each gradient, backward
GOAL = 1.15  # of the cross-entropy's time


def step(loss: Callable[[Problem], Tensor], p: Problem) -> Callable[[], float]:
    """Forward and backward; gradients are dropped inside."""

    def run() -> float:
        value = loss(p)
        value.backward()
        p.input.grad = p.weight.grad = None
        return value.item()

    return run


def peak_mib(name: str, shape: Shape) -> float:
    """Of one run beside its inputs, gradients included; call it in a fresh process. inf where there is none."""
    loss = {**BY_PRODUCT, **ELEMENTWISE, "broadcast": _broadcast}[name]
    step(loss, make(shape._replace(n=64, v=512)))()
    try:
        return memory.peak_mib(step(loss, make(shape)))
    except RuntimeError:  # torch's word for out of memory
        return math.inf


def over_cross_entropy(seconds: dict[str, list[float]], name: str) -> float:
    """A head's time over that of the cross-entropy which is called the same way."""
    way = name.partition(", ")[2]
    return timing.ratio(seconds[name], seconds[f"{CROSS_ENTROPY}, {way}" if way else CROSS_ENTROPY])


def of_peak(seconds: list[float], shape: Shape, additions: float) -> float:
    """Share of the machine's vector additions a second that the elements' operations are."""
    n, d, v, _ = shape
    return MANHATTAN_OPERATIONS * n * d * v / sorted(seconds)[len(seconds) // 2] / additions


def report(seconds: dict[str, list[float]], losses: dict[str, float], peaks: dict[str, float]) -> dict:
    """What is kept of one interleaved group."""
    entries = {}
    for name, times in seconds.items():
        entries[name] = {
            "loss": round(losses[name], 5),
            "ms": round(1e3 * sorted(times)[len(times) // 2], 1),
            "spread": round(timing.spread(times), 3),
            "peak_mib": round(peaks[name], 1),
        }
        if CROSS_ENTROPY in seconds:
            base = name if name.startswith("lossk") else CROSS_ENTROPY
            entries[name]["over_cross_entropy"] = round(
                over_cross_entropy(seconds, base) if base == name else timing.ratio(times, seconds[CROSS_ENTROPY]),
                3,
            )
    return entries
