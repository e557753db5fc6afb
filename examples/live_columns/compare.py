"""Stage `compare`: the same small language model trained with exact, filled and CCE-filtered gradients of its head.

All see the same weights and batches at first, hence differ by what their gradients leave out, and by how training
amplifies any difference. How much that is, a second exact head shows: torch's, which rounds differently.
"""

from statistics import fmean
from typing import Any

import torch
from lossk import linear_cross_entropy
from lossk.cli.demo_model import Head, Run, build, evaluate, rate, torch_head
from lossk.cli.demo_text import Batches, held_out_windows
from rich.progress import track
from torch import Tensor

from . import lm, rules
from .measure import CCE_EPS

VOCAB, CONTEXT, BATCH = 8192, 128, 8  # 1024 rows a step: 8 blocks
WINDOWS = 128  # held out
TAU = 2.0**-8
POINTS = 100  # of a smoothed curve


class CCE(torch.autograd.Function):
    """The mean loss, with CCE's tile rule on the gradients and nothing else of it: float32 throughout."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, w: Tensor, y: Tensor) -> Tensor:
        residual, loss = rules.residual(h, w, y)
        found = rules.filtered(h, w, residual, rules.live_tiles(h, w, residual, CCE_EPS))
        ctx.save_for_backward(found.hidden, found.weight)
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor, None]:
        d_hidden, d_weight = ctx.saved_tensors
        return upstream * d_hidden, upstream * d_weight, None


HEADS: dict[str, Head] = {
    "exact": linear_cross_entropy,
    "torch": torch_head,
    "fill": lambda h, w, y: linear_cross_entropy(h, w, y, tau=TAU),
    "cce": CCE.apply,
}


def in_float32(head: Head) -> Head:
    """The trunk runs in bfloat16; its result and the weight reach every head rounded alike, and are widened."""
    return lambda h, w, y: head(h.float(), w.float(), y)


def compare(megabytes: float, steps: int, seeds: int) -> dict[str, Any]:
    text = lm.read(megabytes, VOCAB)
    held_out = held_out_windows(text.held_out, WINDOWS, CONTEXT, lm.CPU)
    trained = []
    for seed in range(seeds):
        batches = Batches(text.train, BATCH, CONTEXT, seed, lm.CPU)
        runs = {
            name: Run(build(text.vocab, seed, lm.CPU), in_float32(head), torch.bfloat16) for name, head in HEADS.items()
        }
        for step in track(range(steps), f"seed {seed}"):
            batch = batches.next()
            for run in runs.values():
                run.step(*batch, rate(step / steps))
        for name, run in runs.items():
            facts = {"head": name, "seed": seed, "held_out_loss": evaluate(run.model, *held_out)}
            trained.append(facts | {"curve": smooth(run.losses)})
    return {
        "steps": steps,
        "rows": BATCH * CONTEXT,
        "vocab": text.vocab,
        "tau": TAU,
        "eps": CCE_EPS,
        "held_out_tokens": held_out[1].numel(),
        "runs": trained,
    }


def smooth(losses: list[float]) -> list[float]:
    """Means over stretches of equal length, at most POINTS of them; what does not fill a stretch is left out."""
    length = -(-len(losses) // POINTS)
    return [fmean(losses[i : i + length]) for i in range(0, len(losses) - length + 1, length)]
