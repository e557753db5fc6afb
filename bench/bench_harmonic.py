"""Harmonic heads in interleaved rounds, with what each takes of memory: by a product, and element by element."""

import math

import pytest

from bench import harmonic, memory
from bench.peak import float_additions
from bench.timing import Rounds


@pytest.mark.parametrize("group", ["by_product", "elementwise"])
def test_harmonic(benchmark, request, group):
    shape = harmonic.SHAPE if group == "by_product" else harmonic.ELEMENTWISE_SHAPE
    heads = harmonic.BY_PRODUCT if group == "by_product" else harmonic.ELEMENTWISE
    problem = harmonic.make(shape)
    runs = {name: harmonic.step(loss, problem) for name, loss in heads.items()}
    losses = {name: run() for name, run in runs.items()}
    ours = losses["lossk euclidean" if group == "by_product" else "lossk manhattan"]
    for theirs in {"torch.cdist", "as published", "torch.cdist, p = 1"} & losses.keys():
        assert math.isclose(ours, losses[theirs], rel_tol=0.01, abs_tol=1e-4), losses
    peaks = {name: memory.in_child(harmonic.peak_mib, name, shape) for name in runs}
    additions = float_additions()
    timed = Rounds(runs, target=next(name for name in runs if name.startswith("lossk") and "cross" not in name))
    benchmark.group = "harmonic"
    rounds = request.config.getoption("benchmark_min_rounds")
    benchmark.pedantic(timed.target, setup=timed.before, teardown=timed.after, rounds=rounds)
    info = {"family": "harmonic", "group": group, "dtype": "fp32", "shape": shape._asdict()}
    info["float_additions_per_second"] = round(max(additions, float_additions()))
    info["providers"] = harmonic.report(timed.seconds, losses, peaks)
    if group == "elementwise":
        share = harmonic.of_peak(timed.seconds["lossk manhattan"], shape, info["float_additions_per_second"])
        info["manhattan_of_peak"] = round(share, 3)
        for name in ("broadcast", "lossk manhattan"):
            peak = memory.in_child(harmonic.peak_mib, name, harmonic.BROADCAST_SHAPE)
            info[f"{name}, N=256 V=4096, peak_mib"] = round(peak, 1) if math.isfinite(peak) else None
    benchmark.extra_info.update(info)
