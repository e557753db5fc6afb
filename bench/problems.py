"""Inputs to measure with: logits like those of a trained language model, and random ones."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.shapes import Shape


class Problem(NamedTuple):
    """One batch at a vocabulary head; `input` and `weight` are leaves that want gradients."""

    input: Tensor  # [N, D]
    weight: Tensor  # [V, D]
    target: Tensor  # [N] int64
    upstream: Tensor  # [N] float32: what arrives from above at an unreduced loss


def _generator(device: str, seed: int) -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


def peaked(shape: Shape, seed: int = 0, gain: float = 4.5, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """Input and weight (float32) whose logits look trained: a Zipf prior, and contexts shared by 64 neighbouring rows.

    The loss of sampled targets is about 2.6 nats at the reference shape, and most of the mass lies on few columns; a
    larger gain makes them fewer. Each device draws its own numbers.
    """
    n, d, v, _ = shape
    g = _generator(device, seed)
    draw = lambda *size: torch.randn(*size, generator=g, device=device)  # noqa: E731
    prior = F.normalize(draw(d), dim=0)
    weight = draw(v, d) / d**0.5
    weight -= torch.arange(1, v + 1, device=device).log()[:, None] * prior
    context = gain * draw(-(-n // 64), d)
    rows = context.repeat_interleave(64, 0)[:n] + 1.2 * draw(n, d)
    # Every row sees the prior with weight one, so that the logit of rank r gets exactly -log r.
    rows += (1 - rows @ prior)[:, None] * prior
    return rows, weight


def random(shape: Shape, seed: int = 0, *, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """Input and weight (float32) with independent standard normal logits: flat, the loss is about log V + 1/2 nats."""
    g = _generator(device, seed)
    draw = lambda rows: torch.randn(rows, shape.d, generator=g, device=device)  # noqa: E731
    return draw(shape.n), draw(shape.v) / shape.d**0.5


INPUTS = {"peaked": peaked, "random": random}


def sample_targets(rows: Tensor, weight: Tensor, inputs: str, seed: int = 0) -> Tensor:
    """Targets [N] drawn from the model itself where it is peaked, else uniformly."""
    g = _generator(rows.device, seed + 1)
    if inputs != "peaked":
        return torch.randint(weight.shape[0], (rows.shape[0],), generator=g, device=rows.device)
    draw = [torch.multinomial((part @ weight.T).softmax(1), 1, generator=g)[:, 0] for part in rows.split(256)]
    return torch.cat(draw)


def make(shape: Shape, dtype: torch.dtype, inputs: str, seed: int = 0, device: str = "cpu") -> Problem:
    """The problem `inputs` in INPUTS at `shape`; the same numbers in every dtype, up to its rounding."""
    rows, weight = INPUTS[inputs](shape, seed, device=device)
    target = sample_targets(rows, weight, inputs, seed)
    upstream = torch.randn(shape.n, generator=_generator(device, seed + 2), device=device) / shape.n
    return Problem(rows.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_(), target, upstream)
