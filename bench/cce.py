"""The contenders of the fused cross-entropy: lossk, torch and its variants, and cut-cross-entropy's CPU path."""

import functools
import re
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bench import memory, problems, timing
from bench.problems import Problem
from bench.shapes import SHAPES, Shape, cce_work

MATMUL = "matmul"  # the yardstick: input @ weight.T in the inputs' dtype, its output [N, V] allocated anew each time
MODES = ("forward", "forward+backward")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def _lossk(p: Problem, reduction: str = "mean") -> Tensor:
    import lossk

    return lossk.linear_cross_entropy(p.input, p.weight, p.target, reduction=reduction)


def _unfused(input: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy((input @ weight.T).float(), target)


@functools.cache
def _compiled() -> Callable[..., Tensor]:
    return torch.compile(_unfused, fullgraph=True, dynamic=False)


def _chunked(p: Problem) -> Tensor:
    # The default policy for bf16 takes seven times as long on a CPU: a peer runs at its best.
    policy = "auto" if p.input.dtype == torch.float32 else "balanced"
    return F.linear_cross_entropy(
        p.input, p.weight, p.target, options=torch.nn.LinearCrossEntropyOptions(acc_policy=policy)
    )


def _cut_cross_entropy(p: Problem) -> Tensor:
    from cut_cross_entropy import linear_cross_entropy

    return linear_cross_entropy(p.input, p.weight, p.target, impl="torch_compile")


class Provider(NamedTuple):
    """One way to the loss. `per_token`: an unreduced loss under a random upstream gradient; `compiles`: per shape."""

    label: str
    loss: Callable[[Problem], Tensor]
    per_token: bool = False
    compiles: bool = False


PROVIDERS = {
    "lossk": Provider("lossk, mean", _lossk),
    "lossk_none": Provider("lossk, per-token upstream", functools.partial(_lossk, reduction="none"), per_token=True),
    "torch_compile": Provider(
        "torch.compile, unfused", lambda p: _compiled()(p.input, p.weight, p.target), compiles=True
    ),
    "cut_cross_entropy": Provider("cut-cross-entropy, torch_compile", _cut_cross_entropy, compiles=True),
    "torch_unfused": Provider("torch, unfused", lambda p: _unfused(p.input, p.weight, p.target)),
    "torch_chunked": Provider("torch, linear_cross_entropy in chunks", _chunked),
}

# In matmul times of the same rounds, stated for the shape cpu-reference.
GOALS = {
    ("lossk", "forward"): {"fp32": 1.1, "bf16": 1.1},
    ("lossk", "forward+backward"): {"fp32": 3.2, "bf16": 3.5},
    ("lossk_none", "forward+backward"): {"fp32": 4.3, "bf16": 4.6},
}
GOAL_WORKSPACE_MIB = 64  # beside the inputs and gradients in fp32


def contenders(mode: str) -> dict[str, Provider]:
    """Who runs in `mode`: an upstream gradient per token means nothing without a backward."""
    return {name: p for name, p in PROVIDERS.items() if mode == "forward+backward" or not p.per_token}


def step(provider: Provider, p: Problem, mode: str) -> Callable[[], float]:
    """A run of `provider` on `p`, returning the mean loss in nats. Gradients are dropped inside it, so that each
    contender pays for allocating and freeing its own."""

    def forward() -> float:
        with torch.no_grad():
            return provider.loss(p).mean().item()

    def forward_backward() -> float:
        loss = provider.loss(p)
        loss.backward(p.upstream.to(loss.dtype) if provider.per_token else None)
        p.input.grad = p.weight.grad = None
        return loss.detach().mean().item()

    return forward if mode == "forward" else forward_backward


def matmul(p: Problem) -> Callable[[], Tensor]:
    """The yardstick on the same operands."""
    input, weight = p.input.detach(), p.weight.detach()
    return lambda: input @ weight.T


def peak_mib(name: str, shape: Shape, dtype: str, inputs: str, mode: str) -> float:
    """Peak MiB of one run beside its inputs, gradients included; call it in a fresh process.

    A small problem warms the code paths up, then the first run at full size is measured, so that buffers which a
    library keeps for later count too. What compiles per shape has to run once at full size before.
    """
    provider = PROVIDERS[name]
    warm_shape = shape if provider.compiles else shape._replace(n=128, v=1024)
    step(provider, problems.make(warm_shape, DTYPES[dtype], inputs), mode)()
    return memory.peak_mib(step(provider, problems.make(shape, DTYPES[dtype], inputs), mode))


def grads_mib(shape: Shape, itemsize: int, mode: str) -> float:
    """MiB of both gradients at `itemsize` bytes an entry."""
    return (shape.n + shape.v) * shape.d * itemsize / memory.MIB if mode == "forward+backward" else 0.0


def ready(runs: dict[str, Callable[[], float]]) -> tuple[dict[str, float], dict[str, str]]:
    """Run each contender once: the losses of those that run here, and for each other the reason why it does not.

    Only peers may fail; lossk failing is an error.
    """
    losses, notes = {}, {}
    for name, run in runs.items():
        try:
            losses[name] = run()
        except Exception as error:
            if name.startswith("lossk"):
                raise
            first = (str(error).splitlines() or [""])[0]
            notes[name] = f"{type(error).__name__}: " + re.sub(r"(/[\w.+-]+)+/", ".../", first)
    return losses, notes


def report(seconds: dict[str, list[float]], shape: Shape, dtype: str, mode: str, peaks: dict[str, float]) -> dict:
    """What is kept of one group of interleaved contenders; `seconds` has the yardstick among them."""
    itemsize = DTYPES[dtype].itemsize
    work = cce_work(shape, itemsize, mode == "forward+backward")
    needed = work["flop"] / (2 * shape.n * shape.d * shape.v)  # matmul times of a head that only multiplies
    grads_fp32 = grads_mib(shape, 4, mode)
    providers = {}
    for name in (name for name in seconds if name != MATMUL):
        times = timing.ratio(seconds[name], seconds[MATMUL])
        entry = {
            "label": PROVIDERS[name].label,
            "ms": round(1e3 * sorted(seconds[name])[len(seconds[name]) // 2], 3),
            "matmul_times": round(times, 4),
            "spread": round(timing.spread(seconds[name]), 4),
            "share_of_matmul_rate": round(needed / times, 4),
            "peak_mib": round(peaks[name], 1),
        }
        goal = GOALS.get((name, mode), {}).get(dtype)
        if goal is not None and shape == SHAPES["cpu-reference"]:
            entry |= {"goal_matmul_times": goal, "goal_peak_mib": round(GOAL_WORKSPACE_MIB + grads_fp32, 1)}
        providers[name] = entry
    return {
        "shape": shape._asdict(),
        "work": work,
        "matmul_ms": round(1e3 * sorted(seconds[MATMUL])[len(seconds[MATMUL]) // 2], 3),
        "grads_mib": round(grads_mib(shape, itemsize, mode), 1),
        "grads_fp32_mib": round(grads_fp32, 1),
        "providers": providers,
    }
