"""The families `cross_entropy_<N>`: the twelve heads of bench/shapes.py with N rows each, lossk beside its peers.

Hundreds of cases: one begins only while there is time, and what an earlier run of the same commit has is not run again.
"""

import functools
import re
import time
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from bench import cce, problems
from bench.gpu import trained
from bench.gpu.families import DRY_HEAD, FAMILIES, Clock, Row, keeping, timed
from bench.problems import Problem
from bench.shapes import SHAPES, Shape
from bench.timing import ratio

# The published ones first: time may not reach the last.
HEADS = (
    "reference", "qwen3.5-35b-a3b", "llama-3-8b", "gemma-2-2b", "deepseek-v3", "gpt-oss-20b", "gpt2", "qwen3-8b",
    "phi-3.5-mini", "mistral-nemo", "qwen2.5-7b", "gemma-3-27b",
)  # fmt: skip
ROWS = (2048, 8192, 16384)
CASE_SECONDS = 60  # of the slowest, where peers compile
ROUNDS, WARM_UP = 5, 0.1
WRONG = 0.02  # of an exact gradient's norm: bfloat16 alone makes a quarter of that

INPUTS: dict[str, Callable[[Clock, Shape], Problem]] = {
    "trained": lambda clock, shape: trained.make(clock, shape, torch.bfloat16),
    "random": lambda clock, shape: problems.make(shape, torch.bfloat16, "random", device=clock.device),
}
Loss = Callable[[Problem], Tensor]
_lossk = cce.PROVIDERS["lossk"].loss


# ---- peers, each as its users call it --------------------------------------------------------------------------------


def _liger(p: Problem) -> Tensor:
    from liger_kernel.ops.fused_linear_cross_entropy import LigerFusedLinearCrossEntropyFunction

    return LigerFusedLinearCrossEntropyFunction.apply(p.input, p.weight, p.target)[0]


def _liger_sm90(p: Problem) -> Tensor:
    from liger_kernel.ops.cutedsl.ops.fused_linear_cross_entropy_sm90 import LigerFusedLinearCrossEntropySM90Function

    return LigerFusedLinearCrossEntropySM90Function.apply(p.input, p.weight, p.target)


def _liger_recompute(p: Problem) -> Tensor:
    from liger_kernel.ops.cutedsl.ops.fused_scaled_cross_entropy_sm90 import LigerFusedScaledCrossEntropySM90Function

    return LigerFusedScaledCrossEntropySM90Function.apply(p.input, p.weight, p.target).mean()


def _quack(p: Problem) -> Tensor:
    from quack.linear_cross_entropy import chunked_linear_cross_entropy

    return chunked_linear_cross_entropy(p.input, p.weight, p.target)


def _cut_cross_entropy(p: Problem) -> Tensor:
    from cut_cross_entropy import linear_cross_entropy

    return linear_cross_entropy(p.input, p.weight, p.target)


OURS: dict[str, Loss] = {
    "lossk, mean": _lossk,
    "lossk, per token": lambda p: _lossk(p, reduction="none").mean(),
    "lossk, mean, logits kept": keeping(_lossk),
    "lossk, τ = 2^-8": functools.partial(_lossk, tau=2.0**-8),
    "lossk, τ = 2^-12": functools.partial(_lossk, tau=2.0**-12),
}
LIVE = [loss for name, loss in OURS.items() if "τ" in name]
PEERS: dict[str, Loss] = {
    **{provider.label: provider.loss for name, provider in cce.PROVIDERS.items() if name.startswith("torch")},
    "Liger, Triton": _liger,
    "Liger, SM90": _liger_sm90,
    "Liger, SM90 recompute": _liger_recompute,
    "QuACK": _quack,
    "cut-cross-entropy": _cut_cross_entropy,
}
DRY_PEERS = ("torch, unfused",)


# ---- one case --------------------------------------------------------------------------------------------------------


def exact_gradients(p: Problem, rows: int = 1024) -> tuple[Tensor, Tensor]:
    """Of the mean, in float32 products of a few rows at a time, from the rounded operands."""
    x, w, n = p.input.detach().float(), p.weight.detach().float(), len(p.target)
    dx, dw = torch.empty_like(x), torch.zeros_like(w)
    for i in range(0, n, rows):
        at = slice(i, i + rows)
        g = (x[at] @ w.T).softmax(1)
        g[torch.arange(len(g), device=g.device), p.target[at]] -= 1
        g /= n
        dx[at] = g @ w
        dw.addmm_(g.T, x[at])
    return dx, dw


def _gradients(loss: Loss, p: Problem) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss(p), (p.input, p.weight))


@torch.no_grad()
def _forward(loss: Loss, p: Problem) -> Tensor:
    """Of leaves that want no gradients: Liger looks at these, not at no_grad."""
    return loss(p._replace(input=p.input.detach(), weight=p.weight.detach()))


def why(error: Exception) -> str:
    """The first line that says something, without the colours of a terminal."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines()
    return f"{type(error).__name__}: {next((line.strip() for line in lines if line.strip()), '')}"[:160]


def _works(loss: Loss, p: Problem, exact: tuple[Tensor, Tensor], expected: float, facts: Row) -> bool:
    """Runs it once; the errors of its gradients, or why there are none, into facts. Only peers may fail."""
    try:
        if loss not in LIVE:
            _forward(loss, p)
        value = loss(p)
        found = torch.autograd.grad(value, (p.input, p.weight))
        errors = [((a.float() - b).norm() / b.norm()).item() for a, b in zip(found, exact, strict=True)]
    except Exception as error:
        if loss in OURS.values():
            raise
        facts["failed"] = why(error)
        return False
    if loss in OURS.values() and loss not in LIVE and max(errors) > WRONG:
        raise AssertionError(f"errors of lossk's exact gradients: {errors}")
    facts |= {"loss": round(value.item(), 5), "input_grad_error": round(errors[0], 5)}
    facts["weight_grad_error"] = round(errors[1], 5)
    if abs(value.item() - expected) > 1e-2 * max(1.0, abs(expected)):
        facts["failed"] = f"loss {value.item():.5f} where torch's is {expected:.5f}"
    return "failed" not in facts


def case_rows(clock: Clock, name: str, shape: Shape, inputs: str) -> list[Row]:
    import lossk

    p = INPUTS[inputs](clock, shape)
    torch.compiler.reset()  # or torch.compile gives up after a few shapes
    exact = exact_gradients(p)
    parts = zip(p.input.detach().split(1024), p.target.split(1024), strict=True)
    with torch.no_grad():
        sums = [F.cross_entropy((x @ p.weight.T).float(), y, reduction="sum") for x, y in parts]
    expected = (sum(sums) / shape.n).item()
    contenders = OURS | (PEERS if not clock.dry else {k: PEERS[k] for k in DRY_PEERS})
    facts: dict[str, Row] = {contender: {} for contender in contenders}
    working = {k: loss for k, loss in contenders.items() if _works(loss, p, exact, expected, facts[k])}
    del exact
    for contender in OURS:
        if "τ" in contender:
            with lossk.live_report() as reports:
                _gradients(OURS[contender], p)
            facts[contender]["live_share"] = round(reports[0].live_share, 4)
            facts[contender]["goal_times_matmul"] = round(1.15 + 3.3 * reports[0].live_share, 4)
    both = {k: functools.partial(_gradients, loss, p) for k, loss in working.items()}
    for contender, run in both.items():
        facts[contender]["peak_mib"] = round(clock.peak_mib(run), 1)
    forward = {f"{k}, forward": functools.partial(_forward, loss, p) for k, loss in working.items() if "τ" not in k}
    logits = torch.empty(shape.n, shape.v, device=clock.device, dtype=torch.bfloat16)
    matmul = {"matmul": lambda: torch.mm(p.input.detach(), p.weight.detach().T, out=logits)}
    times = clock.interleaved(matmul | both | forward, ROUNDS, WARM_UP)
    rows = []
    for run in [*matmul, *contenders, *forward]:
        row = {"name": run, "shape": name, "n": shape.n, "inputs": inputs}
        if run in times:
            row |= timed(times[run]) | {"times_matmul": round(ratio(times[run], times["matmul"]), 4)}
            # Products the mathematics needs, whatever is recomputed.
            products = 1 if run in matmul or run in forward else 3
            row["tflop_per_s"] = round(products * 2 * shape.n * shape.d * shape.v / row["ms"] / 1e9, 4)
            row["share_of_matmul_rate"] = round(products / row["times_matmul"], 4)
        rows.append(row | facts.get(run, {}))
    return rows


def all_cases(clock: Clock, n: int) -> Iterator[Row]:
    shapes = {"dry": DRY_HEAD} if clock.dry else {name: SHAPES[name]._replace(n=n) for name in HEADS}
    case = lambda row: (row["shape"], row["inputs"])  # noqa: E731
    absent = {case(row) for row in clock.known if row.get("failed", "").startswith("ModuleNotFoundError")}
    kept = [row for row in clock.known if case(row) not in absent]  # a peer's wheel may have come since
    known = {case(row) for row in kept}
    yield from kept
    for name, shape in shapes.items():
        for inputs in INPUTS:
            if (name, inputs) in known:
                continue
            if time.monotonic() + CASE_SECONDS > clock.ends:
                return
            yield from case_rows(clock, name, shape, inputs)


def _family(n: int) -> Callable[[Clock], Iterator[Row]]:
    return lambda clock: all_cases(clock, n)


FAMILIES |= {f"cross_entropy_{n}": _family(n) for n in ROWS}
