"""The regression guard: `python -m bench.check` measures a short set again and fails where lossk got slower.

A time says nothing on another day, a ratio within a run does. Two kinds of limits:

* against the committed baseline: lossk's times over a torch matmul of the same rounds. They hold only on the kind of
  machine the baseline is from, for torch's matmul is fast on one CPU and slow on another.
* fixed: lossk's times over one another, whose ideal is a count of products, and memory. They hold everywhere.

Noise makes things slower, hardly ever faster: a set beyond a limit is measured again, and the best ratio counts.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from bench import cce, memory, problems, timing
from bench.machine import machine_info
from bench.shapes import SHAPES

BASELINE = Path(__file__).parent / "results" / "cpu" / "baseline.json"
SHAPE = SHAPES["cpu-short"]
MEMORY_SHAPE = SHAPES["cpu-reference"]  # large enough that a second copy of a gradient is beyond the limit
ROUNDS = 9
TRIES = 3
TOLERANCE = 0.25  # of a baseline ratio

# Twice the ideal, which counts products of the size of the logits: three in the mean against one in the forward, and
# four where the logits are computed again for a per-token upstream gradient.
FIXED = {"mean / forward": 2 * 3.0, "per-token / mean": 2 * 4 / 3, "workspace MiB": 1.25 * cce.GOAL_WORKSPACE_MIB}

RUNS = {
    "forward": ("lossk", "forward"),
    "mean": ("lossk", "forward+backward"),
    "per-token": ("lossk_none", "forward+backward"),
    "live": ("lossk_live8", "forward+backward"),
}


class Verdict(NamedTuple):
    """One measured quantity beside its limit; `baseline` is None for a fixed limit."""

    name: str
    value: float
    baseline: float | None
    limit: float

    @property
    def ok(self) -> bool:
        return self.value <= self.limit


def measure(dtype: str) -> dict[str, float]:
    """Ratios within one run, and the largest workspace beside fp32 gradients of the backwards, in MiB."""
    problem = problems.make(SHAPE, cce.DTYPES[dtype], "peaked")
    runs = {name: cce.step(cce.PROVIDERS[p], problem, mode) for name, (p, mode) in RUNS.items()}
    seconds = timing.interleave({cce.MATMUL: cce.matmul(problem)} | runs, ROUNDS)
    result = {f"{name} / matmul": timing.ratio(seconds[name], seconds[cce.MATMUL]) for name in RUNS}
    result["mean / forward"] = timing.ratio(seconds["mean"], seconds["forward"])
    result["per-token / mean"] = timing.ratio(seconds["per-token"], seconds["mean"])
    backward = "forward+backward"
    peaks = [
        memory.in_child(cce.peak_mib, provider, MEMORY_SHAPE, dtype, "random", backward)
        for provider in ("lossk", "lossk_none", "lossk_live12")
    ]
    return result | {"workspace MiB": max(peaks) - cce.grads_mib(MEMORY_SHAPE, 4, backward)}


def judge(measured: dict[str, float], baseline: dict[str, float] | None, tolerance: float) -> list[Verdict]:
    """Each measured quantity against its limits; without a baseline only the fixed ones."""
    verdicts = [Verdict(name, measured[name], None, limit) for name, limit in FIXED.items()]
    for name, base in (baseline or {}).items():
        verdicts.append(Verdict(name, measured[name], base, base * (1 + tolerance)))
    return verdicts


def best_of(tries: int, dtype: str, baseline: dict | None, tolerance: float, measure: Callable) -> list[Verdict]:
    """Verdicts of `dtype`, measured until all are within their limits, at most `tries` times."""
    best: dict[str, float] = {}
    for _ in range(tries):
        best = {name: min(value, best.get(name, value)) for name, value in measure(dtype).items()}
        verdicts = judge(best, baseline, tolerance)
        if all(v.ok for v in verdicts):
            break
    return verdicts


def _show(dtype: str, v: Verdict) -> str:
    base = "" if v.baseline is None else f"{v.baseline:.2f}"
    hint = "" if v.baseline is None or v.value > v.baseline * (1 - TOLERANCE) else "  (faster: update the baseline?)"
    return f"{dtype:5} {v.name:18} {v.value:8.2f} {base:>9} {v.limit:8.2f}  {'ok' if v.ok else 'TOO MUCH'}{hint}"


def update(path: Path, machine: dict, measure: Callable) -> None:
    """Write the median of a few measurements as the new baseline."""
    ratios = {}
    for dtype in cce.DTYPES:
        sets = [measure(dtype) for _ in range(TRIES)]
        ratios[dtype] = {n: round(statistics.median(s[n] for s in sets), 3) for n in sets[0] if n not in FIXED}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine, "tolerance": TOLERANCE, "ratios": ratios}, indent=2) + "\n")


def main(argv: list[str] | None = None, measure: Callable[[str], dict[str, float]] = measure) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.check", description=__doc__.splitlines()[0])
    parser.add_argument("--update", action="store_true", help="measure and write the baseline")
    parser.add_argument("--baseline", type=Path, default=BASELINE)
    args = parser.parse_args(argv)

    # A patch release of Python or lossk itself is no reason to call two machines different.
    machine = {key: machine_info()[key] for key in ("cpu", "threads", "kernels", "torch")}
    if args.update:
        update(args.baseline, machine, measure)
        print(f"wrote {args.baseline.name}")
        return 0
    if not args.baseline.exists():
        raise SystemExit(f"no baseline {args.baseline.name}: make one with python -m bench.check --update")
    baseline = json.loads(args.baseline.read_text())
    ratios, tolerance = baseline["ratios"], baseline["tolerance"]
    other = [key for key in machine if machine[key] != baseline["machine"][key]]
    if other:
        ratios = {}
        print("The baseline is from another kind of machine; only the limits that hold everywhere are checked.")
        for key in other:
            print(f"  {key}: {machine[key]} here, {baseline['machine'][key]} in the baseline")

    print(f"{'':5} {'':18} {'measured':>8} {'baseline':>9} {'limit':>8}")
    failed = 0
    for dtype in cce.DTYPES:
        verdicts = best_of(TRIES, dtype, ratios.get(dtype), tolerance, measure)
        print("\n".join(_show(dtype, v) for v in verdicts), flush=True)
        failed += sum(not v.ok for v in verdicts)
    print(f"{failed} beyond the limit, after {TRIES} tries" if failed else "all within their limits")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
