"""The families `harmonic` and `elementwise`: heads of distances beside cross-entropy and what torch has."""

import functools
import subprocess
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from bench import harmonic as heads
from bench.gpu.families import DRY_HEAD, Clock, Row, by_path, family, paths, timed
from bench.harmonic import Problem
from bench.shapes import SHAPES, Shape
from bench.timing import ratio

LANES = 128  # of an SM: additions a clock
ELEMENTWISE_SHAPE = Shape(4096, 1024, 32768, "a tenth of a second for manhattan at the machine's peak")
ROUNDS = 7


def make(clock: Clock, shape: Shape) -> Problem:
    p = heads.make(shape)
    leaves = (x.detach().to(clock.device).bfloat16().requires_grad_() for x in (p.input, p.weight))
    return Problem(*leaves, p.target.to(clock.device))


def in_float32(loss: Callable[[Problem], Tensor], p: Problem) -> Tensor:
    """torch.cdist takes nothing shorter, and squared distances by products mean nothing in bfloat16."""
    return loss(Problem(p.input.float(), p.weight.float(), p.target))


def contenders(clock: Clock, table: dict, p: Problem) -> dict[str, Callable[[], object]]:
    runs = {}
    for name, loss in table.items():
        ours = name.startswith("lossk")
        run = functools.partial(loss if ours else functools.partial(in_float32, loss), p)
        gradients = lambda run=run: torch.autograd.grad(run(), (p.input, p.weight))  # noqa: E731
        for path in paths(clock) if ours else [""]:
            runs[f"{name} {path}".strip()] = by_path(path, gradients) if ours else gradients
    return runs


def base_of(run: str) -> str:
    """The cross-entropy that another of lossk's heads is called like; "" for all else."""
    head, _, path = run.rpartition(" ")
    if not run.startswith("lossk") or heads.CROSS_ENTROPY in run:
        return ""
    way = head.partition(", ")[2]
    return f"{heads.CROSS_ENTROPY}, {way} {path}" if way else f"{heads.CROSS_ENTROPY} {path}"


def rows_of(clock: Clock, shape_name: str, runs: dict[str, Callable[[], object]]) -> Iterator[Row]:
    """A peer that finds no memory is a row without a time."""
    peaks, failed = {}, {}
    for name, run in runs.items():
        try:
            run()
            peaks[name] = round(clock.peak_mib(run), 1)
        except torch.OutOfMemoryError:
            if name.startswith("lossk"):
                raise
            failed[name] = "out of memory"
    times = clock.interleaved({name: run for name, run in runs.items() if name in peaks}, ROUNDS)
    for name in runs:
        row = {"name": name, "shape": shape_name}
        if name in failed:
            yield row | {"failed": failed[name]}
            continue
        row |= timed(times[name]) | {"peak_mib": peaks[name]}
        if (base := base_of(name)) in times:
            row |= {"over_cross_entropy": round(ratio(times[name], times[base]), 4), "goal": heads.GOAL}
        yield row


@family
def harmonic(clock: Clock) -> Iterator[Row]:
    """Euclidean and cosine heads over lossk's cross-entropy called the same way, torch.cdist, and as published."""
    name, shape = ("dry", DRY_HEAD) if clock.dry else ("reference", SHAPES["reference"])
    p = make(clock, shape)
    yield from rows_of(clock, name, contenders(clock, heads.BY_PRODUCT, p))


def additions_per_second() -> float:
    """Of the GPU's float lanes at its highest clock."""
    query = ["nvidia-smi", "--query-gpu=clocks.max.sm", "--format=csv,noheader,nounits"]
    clock = float(subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0]) * 1e6
    return torch.cuda.get_device_properties().multi_processor_count * LANES * clock


@family
def elementwise(clock: Clock) -> Iterator[Row]:
    """Distances that no product makes; manhattan's share of the machine's additions at 10 an element."""
    name, shape = ("dry", DRY_HEAD) if clock.dry else ("elementwise", ELEMENTWISE_SHAPE)
    runs = contenders(clock, heads.ELEMENTWISE, make(clock, shape))
    for row in rows_of(clock, name, runs):
        if "manhattan" in row["name"] and not clock.dry:
            row["of_peak"] = round(heads.of_peak([row["ms"] / 1e3], shape, additions_per_second()), 4)
            row["goal_of_peak"] = 0.6
        yield row
