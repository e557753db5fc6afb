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


def _lossk(p: Problem, **options: object) -> Tensor:
    import lossk

    return lossk.linear_cross_entropy(p.input, p.weight, p.target, **options)


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
    """One way to the loss. `per_token`: an unreduced loss under a random upstream gradient; `compiles`: per shape;
    `tau`: of its backward over live columns."""

    label: str
    loss: Callable[[Problem], Tensor]
    per_token: bool = False
    compiles: bool = False
    tau: float | None = None


def _live(exponent: int) -> Provider:
    tau = 2.0**exponent
    return Provider(f"lossk, live columns, τ = 2^{exponent}", functools.partial(_lossk, tau=tau), tau=tau)


PROVIDERS = {
    "lossk": Provider("lossk, mean", _lossk),
    "lossk_none": Provider("lossk, per-token upstream", functools.partial(_lossk, reduction="none"), per_token=True),
    "lossk_live8": _live(-8),
    "lossk_live12": _live(-12),
    "torch_compile": Provider(
        "torch.compile, unfused", lambda p: _compiled()(p.input, p.weight, p.target), compiles=True
    ),
    "cut_cross_entropy": Provider("cut-cross-entropy, torch_compile", _cut_cross_entropy, compiles=True),
    "torch_unfused": Provider("torch, unfused", lambda p: _unfused(p.input, p.weight, p.target)),
    "torch_chunked": Provider("torch, linear_cross_entropy in chunks", _chunked),
}

# In matmul times of the same rounds, stated for the shape cpu-reference; live columns are for peaked logits.
GOALS = {
    ("lossk", "forward"): {"fp32": 1.1, "bf16": 1.1},
    ("lossk", "forward+backward"): {"fp32": 3.2, "bf16": 3.5},
    ("lossk_none", "forward+backward"): {"fp32": 4.3, "bf16": 4.6},
    ("lossk_live8", "forward+backward"): {"fp32": 1.3, "bf16": 1.5},
    ("lossk_live12", "forward+backward"): {"fp32": 1.5, "bf16": 1.7},
}
GOAL_WORKSPACE_MIB = 64  # beside the inputs and gradients in fp32
GOAL_LIVE_MIB = 32  # the same beside the sketch and the lists too


def contenders(mode: str) -> dict[str, Provider]:
    """Who runs in `mode`: an upstream gradient per token, or live columns, mean nothing without a backward."""
    return {name: p for name, p in PROVIDERS.items() if mode == "forward+backward" or not (p.per_token or p.tau)}


def goal(name: str, shape: Shape, dtype: str, inputs: str, mode: str) -> dict:
    """What `name` is to reach in this case, if anything."""
    times, tau = GOALS.get((name, mode), {}).get(dtype), PROVIDERS[name].tau
    if times is None or shape != SHAPES["cpu-reference"] or (tau and inputs != "peaked"):
        return {}
    live = shape.n / 128 * shape.v * (2 + 4) / memory.MIB  # the sketch in bfloat16, lists of int32
    workspace = GOAL_LIVE_MIB + live if tau else GOAL_WORKSPACE_MIB
    return {"goal_matmul_times": times, "goal_peak_mib": round(workspace + grads_mib(shape, 4, mode), 1)}


def live_facts(problem: Problem, tau: float) -> dict:
    """What a backward over live columns visits, and how far its gradients are from the exact ones, in float32."""
    import lossk

    def gradients(tau: float | None) -> list[Tensor]:
        wide = problem._replace(
            **{k: getattr(problem, k).detach().float().requires_grad_() for k in ("input", "weight")}
        )
        _lossk(wide, tau=tau).backward()
        return [wide.input.grad, wide.weight.grad]

    with lossk.live_report() as reports:
        found = gradients(tau)
    errors = [((a - b).norm() / b.norm()).item() for a, b in zip(found, gradients(None))]
    return {"live_share": reports[0].live_share, "input_grad_error": errors[0], "weight_grad_error": errors[1]}


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


def report(
    seconds: dict[str, list[float]],
    shape: Shape,
    dtype: str,
    inputs: str,
    mode: str,
    peaks: dict[str, float],
    facts: dict[str, dict],
) -> dict:
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
        providers[name] = entry | goal(name, shape, dtype, inputs, mode) | facts.get(name, {})
    return {
        "shape": shape._asdict(),
        "work": work,
        "matmul_ms": round(1e3 * sorted(seconds[MATMUL])[len(seconds[MATMUL]) // 2], 3),
        "grads_mib": round(grads_mib(shape, itemsize, mode), 1),
        "grads_fp32_mib": round(grads_fp32, 1),
        "providers": providers,
    }
