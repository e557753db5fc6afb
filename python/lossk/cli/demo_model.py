"""A GPT in two sizes, its two heads, and one training step whose head is timed apart."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import linear_cross_entropy


class Size(NamedTuple):
    dim: int
    layers: int
    heads: int
    context: int
    batch: int
    peak_rate: float


SIZES = {
    "small": Size(256, 4, 4, 256, 8, 1e-3),  # at 2e-3 the tied head overshoots in the first steps and the loss leaps
    "100m": Size(768, 12, 12, 1024, 16, 6e-4),  # 85 M parameters beside the embedding; for a GPU
}
SMALL = SIZES["small"]
DIM, CONTEXT, BATCH, PEAK_RATE = SMALL.dim, SMALL.context, SMALL.batch, SMALL.peak_rate
WARM_UP = 0.1

Head = Callable[[Tensor, Tensor, Tensor], Tensor]


def torch_head(h: Tensor, w: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(h, w).float(), y)


def lossk_head(h: Tensor, w: Tensor, y: Tensor) -> Tensor:
    return linear_cross_entropy(h, w, y)


HEADS: dict[str, Head] = {"torch": torch_head, "lossk": lossk_head}


class Block(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        dim, self.heads = size.dim, size.heads
        self.attention_norm, self.mlp_norm = nn.LayerNorm(dim, bias=False), nn.LayerNorm(dim, bias=False)
        self.qkv, self.mix = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.up, self.down = nn.Linear(dim, 4 * dim, bias=False), nn.Linear(4 * dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.attention_norm(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.mix(attended.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.mlp_norm(x))))


class SmallLM(nn.Module):
    """Trunk only: tokens [B, T] -> h [B*T, dim]. The head's weight is the embedding's, `self.embedding.weight`."""

    def __init__(self, vocab: int, size: Size = SMALL) -> None:
        super().__init__()
        self.embedding, self.position = nn.Embedding(vocab, size.dim), nn.Embedding(size.context, size.dim)
        self.blocks = nn.Sequential(*(Block(size) for _ in range(size.layers)))
        self.norm = nn.LayerNorm(size.dim, bias=False)
        for p in self.parameters():
            if p.ndim == 2:
                nn.init.normal_(p, std=0.02)
        for block in self.blocks:  # so that the residual stream's variance does not grow with depth
            nn.init.normal_(block.mix.weight, std=0.02 / math.sqrt(2 * size.layers))
            nn.init.normal_(block.down.weight, std=0.02 / math.sqrt(2 * size.layers))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens) + self.position.weight[: tokens.shape[1]]
        return self.norm(self.blocks(x)).flatten(0, 1)


def build(vocab: int, seed: int, device: torch.device, size: Size = SMALL) -> SmallLM:
    """The same weights for the same seed, whatever was drawn before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SmallLM(vocab, size).to(device)


def rate(done: float, peak: float = PEAK_RATE) -> float:
    """Learning rate when this share of the training is done: a short linear warm-up, then half a cosine to a tenth."""
    done = min(done, 1.0)
    if done < WARM_UP:
        return peak * (0.1 + 0.9 * done / WARM_UP)
    return peak * (0.55 + 0.45 * math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP)))


@dataclass
class Run:
    """One training run. Per step: loss in nats per token, seconds of the step, seconds of the head in it."""

    model: SmallLM
    head: Head
    dtype: torch.dtype
    losses: list[float] = field(default_factory=list)
    step_seconds: list[float] = field(default_factory=list)
    head_seconds: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.device = self.model.embedding.weight.device
        self.optimizer = torch.optim.AdamW(self.model.parameters(), betas=(0.9, 0.95), weight_decay=0.01, fused=True)

    def hidden(self, tokens: Tensor) -> Tensor:
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            return self.model(tokens).to(self.dtype)

    def step(self, tokens: Tensor, targets: Tensor, learning_rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        begin = self._now()
        h = self.hidden(tokens)
        # The head gets a leaf of its own, so that its backward ends here and both directions fall into one interval.
        leaf = h.detach().requires_grad_()
        head_begin = self._now()
        loss = self.head(leaf, self.model.embedding.weight.to(self.dtype), targets.flatten())
        loss.backward()
        head_end = self._now()
        h.backward(leaf.grad)
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        end = self._now()
        self.losses.append(loss.item())
        self.step_seconds.append(end - begin)
        self.head_seconds.append(head_end - head_begin)

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


@torch.no_grad()
def evaluate(model: SmallLM, tokens: Tensor, targets: Tensor) -> float:
    """Mean loss in nats per token, by plain torch in float32, a few windows at a time."""
    total = 0.0
    for x, y in zip(tokens.split(4), targets.split(4)):
        logits = F.linear(model(x), model.embedding.weight)
        total += F.cross_entropy(logits, y.flatten(), reduction="sum").item()
    return total / targets.numel()
