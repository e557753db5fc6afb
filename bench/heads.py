"""The other heads: log-probabilities with entropy, and distillation, beside cross-entropy and unfused torch.

`python -m bench.heads` measures what JSD takes where the logits of each head are 2 GiB: ten minutes, 17 GiB for torch.
"""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bench import memory, timing
from bench.cce import DTYPES, MATMUL
from bench.machine import machine_info
from bench.shapes import SHAPES, Shape

SHAPE = SHAPES["cpu-reference"]
MEMORY_SHAPE = Shape(4096, 512, 131072, "two heads whose logits are 2 GiB each in float32")


class Pair(NamedTuple):
    """A student, whose tensors want gradients, and its teacher, on the same rows."""

    input: Tensor
    weight: Tensor
    teacher_input: Tensor
    teacher_weight: Tensor
    target: Tensor


def make(shape: Shape, dtype: torch.dtype, seed: int = 0) -> Pair:
    """Logits of deviation 2; the teacher's are alike, but for half of their weight."""
    g = torch.Generator().manual_seed(seed)
    n, d, v, _ = shape
    draw = lambda rows, size: (size * torch.randn(rows, d, generator=g)).to(dtype)  # noqa: E731
    input, weight = draw(n, 1.0), draw(v, 2 / d**0.5)
    teacher_weight = weight + draw(v, 1 / d**0.5)
    leaves = (input.requires_grad_(), weight.detach().requires_grad_())
    return Pair(*leaves, input.detach().clone(), teacher_weight, torch.randint(v, (n,), generator=g))


def _divergence(kind: str, p: Pair) -> Tensor:
    import lossk

    return lossk.linear_divergence(p.input, p.weight, p.teacher_input, p.teacher_weight, kind=kind)


def _logp(p: Pair) -> Tensor:
    import lossk

    logp, entropy, _ = lossk.linear_logp(p.input, p.weight, p.target)
    return -(logp + 1e-2 * entropy).mean()


def _cross_entropy(p: Pair) -> Tensor:
    import lossk

    return lossk.linear_cross_entropy(p.input, p.weight, p.target, reduction="none").mean()


def _unfused(kind: str, p: Pair) -> Tensor:
    z = (p.input @ p.weight.T).float().log_softmax(-1)
    with torch.no_grad():
        u = (p.teacher_input @ p.teacher_weight.T).float().log_softmax(-1)
    kl = functools.partial(F.kl_div, reduction="batchmean", log_target=True)
    if kind == "forward_kl":
        return kl(z, u)
    m = torch.logaddexp(z, u) - torch.log(torch.tensor(2.0))
    return (kl(m, u) + kl(m, z)) / 2


# name: the loss, and the most matmul times that forward and backward may take (products needed, and a tenth of them)
PROVIDERS: dict[str, tuple[Callable[[Pair], Tensor], float | None]] = {
    "lossk cross-entropy, per token": (_cross_entropy, None),
    "lossk logp and entropy": (_logp, None),
    "lossk forward_kl": (functools.partial(_divergence, "forward_kl"), 6.6),
    "lossk reverse_kl": (functools.partial(_divergence, "reverse_kl"), 6.6),
    "lossk jsd": (functools.partial(_divergence, "jsd"), 8.8),
    "torch forward_kl, unfused": (functools.partial(_unfused, "forward_kl"), None),
    "torch jsd, unfused": (functools.partial(_unfused, "jsd"), None),
}


def step(name: str, p: Pair) -> Callable[[], float]:
    """Forward and backward; gradients are dropped inside."""
    loss = PROVIDERS[name][0]

    def run() -> float:
        value = loss(p)
        value.backward()
        p.input.grad = p.weight.grad = None
        return value.item()

    return run


def peak_mib(name: str, shape: Shape, dtype: str) -> float:
    """Of one run beside its inputs, gradients included; call it in a fresh process."""
    step(name, make(shape._replace(n=128, v=1024), DTYPES[dtype]))()
    return memory.peak_mib(step(name, make(shape, DTYPES[dtype])))


def report(seconds: dict[str, list[float]], losses: dict[str, float], peaks: dict[str, float]) -> dict:
    """What is kept of one interleaved group."""
    base = seconds[MATMUL]
    entries = {}
    for name, loss in losses.items():
        entries[name] = {
            "loss": round(loss, 5),
            "ms": round(1e3 * sorted(seconds[name])[len(seconds[name]) // 2], 1),
            "matmul_times": round(timing.ratio(seconds[name], base), 3),
            "spread": round(timing.spread(seconds[name]), 3),
        }
        if PROVIDERS[name][1]:
            entries[name]["goal_matmul_times"] = PROVIDERS[name][1]
        if name in peaks:
            entries[name]["peak_mib"] = round(peaks[name], 1)
    over = timing.ratio(seconds["lossk logp and entropy"], seconds["lossk cross-entropy, per token"])
    return {
        "matmul_ms": round(1e3 * sorted(base)[len(base) // 2], 1),
        "logp_over_cross_entropy": round(over, 3),
        "providers": entries,
    }


MEMORY_RESULT = Path(__file__).parent / "results" / "cpu" / "jsd_memory.json"


def memory_result(peaks: dict[str, float]) -> dict:
    """Peak MiB beside the inputs of one forward and backward in float32, each in a process of its own."""
    shape = MEMORY_SHAPE
    gradients = (shape.n + shape.v) * shape.d * 4 / memory.MIB
    rounded = {name: round(peak, 1) for name, peak in peaks.items()}
    return {"shape": shape._asdict(), "gradients_mib": round(gradients, 1), "peak_mib": rounded} | machine_info()


def main() -> None:
    names = ("lossk jsd", "torch jsd, unfused")
    peaks = {name: memory.in_child(peak_mib, name, MEMORY_SHAPE, "fp32") for name in names}
    MEMORY_RESULT.write_text(json.dumps(memory_result(peaks), indent=2) + "\n")


if __name__ == "__main__":
    main()
