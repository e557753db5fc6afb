"""Families of GPU benches: a function of a Clock that returns rows; each family becomes one file of results."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from bench.timing import spread

Row = dict[str, Any]
FAMILIES: dict[str, Callable[["Clock"], list[Row]]] = {}
ROUNDS = 20
WARM_UP = 0.5  # seconds: a GPU that idled runs at a fifth of its clock


def family(run: Callable[["Clock"], list[Row]]) -> Callable[["Clock"], list[Row]]:
    """Registers `run` under its own name."""
    FAMILIES[run.__name__] = run
    return run


class Clock:
    """Times work on a GPU between two events; or, to try the benches out without one, little work on the CPU."""

    def __init__(self, device: str = "cuda"):
        self.device = device
        self.dry = device == "cpu"

    def size(self, full: int, dry: int) -> int:
        return dry if self.dry else full

    def milliseconds(self, run: Callable[[], object]) -> list[float]:
        """Of each of ROUNDS runs, after a warm-up."""
        end = time.perf_counter() + (0 if self.dry else WARM_UP)
        run()
        while time.perf_counter() < end:
            run()
            self._wait()
        if self.dry:
            return [self._on_cpu(run) for _ in range(ROUNDS)]
        events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(ROUNDS)]
        for start, stop in events:
            start.record()
            run()
            stop.record()
        self._wait()
        return [start.elapsed_time(stop) for start, stop in events]

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
