"""Fused cross-entropy against its peers. A case is a group of contenders timed in interleaved rounds.

pytest-benchmark times lossk; its neighbours run in the setup and teardown of the same rounds. Their ratios to one
matmul, peak memory and the goals are in each case's extra_info. More rounds: --benchmark-min-rounds; other shapes of
bench/shapes.py: --shape.
"""

import functools
import math

import pytest

from bench import cce, memory, problems
from bench.shapes import SHAPES
from bench.timing import Rounds

make = functools.lru_cache(maxsize=2)(problems.make)  # both modes of a case use the same problem


@pytest.mark.parametrize("mode", cce.MODES)
@pytest.mark.parametrize("inputs", problems.INPUTS)
@pytest.mark.parametrize("dtype", cce.DTYPES)
def test_cce(benchmark, request, dtype, inputs, mode):
    shape = SHAPES[request.config.getoption("shape")]
    problem = make(shape, cce.DTYPES[dtype], inputs)
    runs = {name: cce.step(provider, problem, mode) for name, provider in cce.contenders(mode).items()}
    losses, notes = cce.ready(runs)
    for name, loss in losses.items():  # 3 %: torch's chunks return the loss itself in bf16
        assert math.isclose(loss, losses["lossk"], rel_tol=0.03), f"{name} computes another loss: {losses}"

    peaks = {name: memory.in_child(cce.peak_mib, name, shape, dtype, inputs, mode) for name in losses}
    facts = {name: cce.live_facts(problem, tau) for name in losses if (tau := cce.PROVIDERS[name].tau)}
    timed = Rounds({cce.MATMUL: cce.matmul(problem)} | {name: runs[name] for name in losses}, target="lossk")
    benchmark.group = f"cce {mode}"
    benchmark.pedantic(
        timed.target,
        setup=timed.before,
        teardown=timed.after,
        rounds=request.config.getoption("benchmark_min_rounds"),
    )
    case = {"family": "cce", "mode": mode, "dtype": dtype, "inputs": inputs, "loss_nats": round(losses["lossk"], 4)}
    benchmark.extra_info.update(case | cce.report(timed.seconds, shape, dtype, inputs, mode, peaks, facts), notes=notes)
