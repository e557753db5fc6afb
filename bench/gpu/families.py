"""Families of GPU benches: a function of a Clock that returns rows; each family becomes one file of results."""

import math
import os
import random
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from bench.shapes import SHAPES, Shape
from bench.timing import ratio, spread

Row = dict[str, Any]
FAMILIES: dict[str, Callable[["Clock"], Iterable[Row]]] = {}
ROUNDS = 20
WARM_UP = 0.5  # seconds: a GPU that idled runs at a fifth of its clock


def family(run: Callable[["Clock"], Iterable[Row]]) -> Callable[["Clock"], Iterable[Row]]:
    """Registers `run` under its own name."""
    FAMILIES[run.__name__] = run
    return run


class Clock:
    """Times work on a GPU between two events; or, to try the benches out without one, little work on the CPU.

    `folder`: where results go, for what is no row. `known`: rows of an earlier run of the same family on the same
    commit, which a long family need not make again; `ends`: when such a family begins nothing new, by time.monotonic().
    """

    def __init__(self, device: str = "cuda", folder: Path = Path()):
        self.device, self.folder = device, folder
        self.dry = device == "cpu"
        self.known: list[Row] = []
        self.ends = math.inf

    def size(self, full: int, dry: int) -> int:
        return dry if self.dry else full

    def milliseconds(self, run: Callable[[], object], rounds: int = ROUNDS, warm_up: float = WARM_UP) -> list[float]:
        """Of each of the rounds, after a warm-up of so many seconds."""
        end = time.perf_counter() + (0 if self.dry else warm_up)
        if warm_up:
            run()
        while time.perf_counter() < end:
            run()
            self._wait()
        if self.dry:
            return [self._on_cpu(run) for _ in range(rounds)]
        events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(rounds)]
        torch.cuda._sleep(10_000_000)  # the GPU is busy until the first is queued: Python's time is not its time
        for start, stop in events:
            start.record()
            run()
            stop.record()
        self._wait()
        return [start.elapsed_time(stop) for start, stop in events]

    def interleaved(
        self, runs: Mapping[str, Callable[[], object]], rounds: int = ROUNDS, warm_up: float = WARM_UP
    ) -> dict[str, list[float]]:
        """Milliseconds of each of the runs in each of the rounds, in another order each round."""
        names = list(runs)
        times: dict[str, list[float]] = {name: [] for name in names}
        for run in runs.values():
            self.milliseconds(run, rounds=1, warm_up=warm_up)
        for i in range(2 if self.dry else rounds):
            for name in random.Random(i).sample(names, len(names)):
                times[name] += self.milliseconds(runs[name], rounds=1, warm_up=0)
        return times

    def peak_mib(self, run: Callable[[], object]) -> float:
        """What torch's allocator holds at most during one run, beside what it held before; 0 on a CPU."""
        if self.dry:
            run()
            return 0.0
        self._wait()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        self._wait()
        return (torch.cuda.max_memory_allocated() - before) / 2**20

    def _wait(self) -> None:
        if not self.dry:
            torch.cuda.synchronize()

    @staticmethod
    def _on_cpu(run: Callable[[], object]) -> float:
        start = time.perf_counter()
        run()
        return 1e3 * (time.perf_counter() - start)


def timed(milliseconds: list[float]) -> Row:
    return {"ms": round(statistics.median(milliseconds), 4), "spread": round(spread(milliseconds), 4)}


def matmul(clock: Clock) -> Row:
    n = clock.size(8192, 64)
    a, b, c = (torch.randn(n, n, device=clock.device).bfloat16() for _ in range(3))  # zeros would run faster
    product = timed(clock.milliseconds(lambda: torch.mm(a, b, out=c)))
    return {"name": "matmul bf16", "n": n, **product, "tflop_per_s": round(2 * n**3 / product["ms"] / 1e9, 4)}


def copy(clock: Clock) -> Row:
    size = clock.size(8 * 2**30, 2**16)
    source, target = (torch.ones(size, dtype=torch.uint8, device=clock.device) for _ in range(2))
    copied = timed(clock.milliseconds(lambda: target.copy_(source)))
    return {"name": "copy", "bytes": size, **copied, "tb_per_s": round(2 * size / copied["ms"] / 1e9, 4)}


@family
def ceilings(clock: Clock) -> list[Row]:
    """What torch gets out of the GPU: a bf16 matmul, and a copy, which reads and writes each byte."""
    return [matmul(clock), copy(clock)]


HEADS = ("reference", "llama-3-8b", "qwen3.5-35b-a3b")
DRY_HEAD = Shape(64, 64, 300, "a few tiles")


def paths(clock: Clock) -> list[str]:
    """The head's ways of multiplying here; see LOSSK_KERNELS in CONTRIBUTING.md."""
    if clock.dry:
        return ["cpu"]
    return ["wgmma", "mma_sync"] if torch.cuda.get_device_capability() == (9, 0) else ["mma_sync"]


def by_path(path: str, run: Callable[[], object]) -> Callable[[], object]:
    def chosen() -> object:
        if path not in ("wgmma_alone", "mma_sync"):
            return run()
        os.environ["LOSSK_KERNELS"] = path
        try:
            return run()
        finally:
            del os.environ["LOSSK_KERNELS"]

    return chosen


def keeping(run: Callable[..., object]) -> Callable[..., object]:
    """The same, with all logits kept from forward to backward."""

    def kept(*args: object) -> object:
        import lossk

        with lossk.keep_logits():
            return run(*args)

    return kept


def head_rows(clock: Clock, shape_name: str, shape: Shape) -> list[Row]:
    """Each op beside the matmul that the logits take, in the same rounds: so many products it takes at best."""
    import lossk

    n, d, v, _ = shape
    input, weight = (torch.randn(size, device=clock.device).mul(d**-0.25).bfloat16() for size in ((n, d), (v, d)))
    target = torch.randint(v, (n,), device=clock.device)
    index, coef = target[:, None], torch.full((1, n), 1 / n, device=clock.device)
    logits = torch.empty(n, v, device=clock.device, dtype=torch.bfloat16)
    head, plain = (input, weight, None, None, index, None, None), (0.0, 0.0)
    stats = lambda: torch.ops.lossk.linear_stats(*head, *plain, False, 0.0, True, 0)  # noqa: E731
    found, picked, *_ = stats()
    torch.testing.assert_close(picked[:, 0], (input.float() * weight[target].float()).sum(1), rtol=1e-3, atol=1e-3)
    last = (found[:2], None, coef, coef.T.contiguous(), None, None, 0, [True, True, False, False], False)
    leaves = input.clone().requires_grad_(), weight.clone().requires_grad_()
    loss = lambda: torch.autograd.grad(lossk.linear_cross_entropy(*leaves, target), leaves)  # noqa: E731
    runs = {"matmul": (1, lambda: torch.mm(input, weight.T, out=logits))}
    alone = ["wgmma_alone"] if "wgmma" in paths(clock) else []  # what clusters are worth
    for path in paths(clock) + alone:
        runs[f"linear_stats {path}"] = 1, by_path(path, stats)
        runs[f"linear_stats_backward {path}"] = (
            3,
            by_path(path, lambda: torch.ops.lossk.linear_stats_backward(*head, *plain, *last)),
        )
        runs[f"linear_cross_entropy {path}"] = 4, by_path(path, loss)
        runs[f"linear_cross_entropy, logits kept, {path}"] = 3, by_path(path, keeping(loss))
    times = clock.interleaved({name: run for name, (_, run) in runs.items()})
    return [
        {
            "name": name,
            "shape": shape_name,
            **timed(milliseconds),
            "tflop_per_s": round(products * 2 * n * d * v / statistics.median(milliseconds) / 1e9, 4),
            "times_matmul": round(ratio(milliseconds, times["matmul"]), 4),
        }
        for (name, (products, _)), milliseconds in zip(runs.items(), times.values(), strict=True)
    ]


@family
def head(clock: Clock) -> Iterator[Row]:
    """cuda/head: statistics of a head's logits, their gradients, and cross-entropy with both; no logits stored."""
    shapes = {"dry": DRY_HEAD} if clock.dry else {name: SHAPES[name] for name in HEADS}
    for name, shape in shapes.items():
        yield from head_rows(clock, name, shape)
