"""Log-probabilities and distillation in interleaved rounds. What JSD takes at a large shape: python -m bench.heads."""

import math

import pytest

from bench import cce, heads, memory
from bench.timing import Rounds


@pytest.mark.parametrize("dtype", cce.DTYPES)
def test_heads(benchmark, request, dtype):
    problem = heads.make(heads.SHAPE, cce.DTYPES[dtype])
    runs = {name: heads.step(name, problem) for name in heads.PROVIDERS}
    losses = {name: run() for name, run in runs.items()}
    for kind in ("forward_kl", "jsd"):
        assert math.isclose(losses[f"lossk {kind}"], losses[f"torch {kind}, unfused"], rel_tol=0.03), losses
    peaks = {name: memory.in_child(heads.peak_mib, name, heads.SHAPE, dtype) for name in runs}
    timed = Rounds({cce.MATMUL: cce.matmul(problem)} | runs, target="lossk jsd")
    benchmark.group = "heads"
    rounds = request.config.getoption("benchmark_min_rounds")
    benchmark.pedantic(timed.target, setup=timed.before, teardown=timed.after, rounds=rounds)
    case = {"family": "heads", "dtype": dtype, "shape": heads.SHAPE._asdict()}
    benchmark.extra_info.update(case | heads.report(timed.seconds, losses, peaks))
