"""Log-probabilities and distillation in interleaved rounds, and what JSD takes where logits are 2 GiB a head."""

import math

import pytest

from bench import heads, memory
from bench.timing import Rounds


@pytest.mark.parametrize("dtype", heads.DTYPES)
def test_heads(benchmark, request, dtype):
    problem = heads.make(heads.SHAPE, heads.DTYPES[dtype])
    runs = {name: heads.step(name, problem) for name in heads.PROVIDERS}
    losses = {name: run() for name, run in runs.items()}
    for kind in ("forward_kl", "jsd"):
        assert math.isclose(losses[f"lossk {kind}"], losses[f"torch {kind}, unfused"], rel_tol=0.03), losses
    peaks = {name: memory.in_child(heads.peak_mib, name, heads.SHAPE, dtype) for name in runs}
    timed = Rounds({heads.MATMUL: heads.matmul(problem)} | runs, target="lossk jsd")
    benchmark.group = "heads"
    rounds = request.config.getoption("benchmark_min_rounds")
    benchmark.pedantic(timed.target, setup=timed.before, teardown=timed.after, rounds=rounds)
    case = {"family": "heads", "dtype": dtype, "shape": heads.SHAPE._asdict()}
    benchmark.extra_info.update(case | heads.report(timed.seconds, losses, peaks))


@pytest.mark.parametrize("dtype", heads.DTYPES)
def test_memory_of_jsd(benchmark, dtype):
    """Peaks in fresh processes: the time is that of measuring them."""
    names = ("lossk jsd", "torch jsd, unfused")

    def measure() -> dict[str, float]:
        return {name: round(memory.in_child(heads.peak_mib, name, heads.MEMORY_SHAPE, dtype), 1) for name in names}

    benchmark.group = "memory of jsd"
    peaks = benchmark.pedantic(measure, rounds=1)
    shape = heads.MEMORY_SHAPE
    gradients = (shape.n + shape.v) * shape.d * heads.DTYPES[dtype].itemsize / memory.MIB
    info = {"family": "jsd_memory", "dtype": dtype, "shape": shape._asdict(), "gradients_mib": round(gradients, 1)}
    benchmark.extra_info.update(info | {"peak_mib": peaks})
