"""The measuring instruments themselves: a timer, a memory meter, a table and a guard that can be trusted."""

import json
import math

import pytest
import torch

from bench import cce, check, memory, problems, table, timing
from bench.shapes import SHAPES, Shape, cce_work

SMALL = Shape(n=96, d=32, v=512, reason="test")


def test_timer_sees_a_thing_as_fast_as_itself_and_twice_it_as_half_as_fast():
    # Python alone: on a busy machine the threads of a matmul wait for one another, which says nothing about the timer.
    once, twice = (lambda: sum(range(20_000))), (lambda: sum(range(40_000)))
    seconds = timing.interleave({"a": once, "b": once, "2a": twice}, rounds=31)
    assert timing.ratio(seconds["b"], seconds["a"]) == pytest.approx(1, rel=0.25)
    assert timing.ratio(seconds["2a"], seconds["a"]) == pytest.approx(2, rel=0.35)


def test_timer_rotates_and_runs_everyone_once_a_round():
    seen = []
    rounds = timing.Rounds({name: (lambda name=name: seen.append(name)) for name in "abc"}, target="b")
    for _ in range(3):
        rounds.before()
        rounds.target()
        rounds.after()
    assert "".join(seen) == "abc" + "bca" + "cab"
    assert {name: len(s) for name, s in rounds.seconds.items()} == {"a": 3, "b": 3, "c": 3}
    with pytest.raises(ValueError, match="target must be one of"):
        timing.Rounds({"a": lambda: None}, target="z")


def test_ratio_is_within_rounds():
    # The machine slows down threefold in the middle; the ratio within each round stays 2.
    assert timing.ratio([2.0, 6.0, 2.0, 6.0], [1.0, 3.0, 1.0, 3.0]) == 2
    assert timing.spread([1.0, 1.0, 1.0, 1.0]) == 0


@pytest.mark.parametrize("mib", [24, 96])
def test_memory_meter_sees_what_is_touched_and_freed_again(mib):
    allocate = lambda: torch.empty(mib * memory.MIB, dtype=torch.uint8).fill_(1)[0].item()  # noqa: E731
    allocate()
    assert memory.peak_mib(allocate) == pytest.approx(mib, abs=3)
    assert memory.peak_mib(lambda: None) == pytest.approx(0, abs=3)


def test_peaked_problem_looks_trained_and_random_flat():
    shape = Shape(n=256, d=256, v=4096, reason="test")
    nats = {}
    for inputs in problems.INPUTS:
        p = problems.make(shape, torch.float32, inputs)
        again = problems.make(shape, torch.float32, inputs)
        assert torch.equal(p.input, again.input) and torch.equal(p.target, again.target)
        nats[inputs] = cce.step(cce.PROVIDERS["torch_unfused"], p, "forward")()
    assert nats["peaked"] < 3.5
    assert nats["random"] == pytest.approx(math.log(shape.v) + 0.5, rel=0.05)


@pytest.mark.parametrize("name", ["lossk", "lossk_none", "torch_unfused"])
def test_contenders_compute_the_same_loss_and_drop_their_gradients(name):
    p = problems.make(SMALL, torch.float32, "peaked")
    expected = cce.step(cce.PROVIDERS["torch_unfused"], p, "forward")()
    for mode in cce.MODES:
        assert cce.step(cce.PROVIDERS[name], p, mode)() == pytest.approx(expected, rel=1e-4)
    assert p.input.grad is None and p.weight.grad is None


def test_a_peer_that_does_not_run_is_noted_without_paths_and_lossk_failing_is_an_error():
    def broken() -> float:
        raise RuntimeError("no compiler at /opt/tools/bin/g++\nmore")

    losses, notes = cce.ready({"torch_compile": broken, "torch_unfused": lambda: 2.5})
    assert losses == {"torch_unfused": 2.5}
    assert notes == {"torch_compile": "RuntimeError: no compiler at .../g++"}
    with pytest.raises(RuntimeError, match="no compiler"):
        cce.ready({"lossk": broken})


def test_work_counts_products():
    shape = SHAPES["cpu-reference"]
    assert cce_work(shape, 4, backward=True)["flop"] == 3 * cce_work(shape, 4, backward=False)["flop"]
    assert cce_work(shape, 4, backward=False)["logits_bytes"] == 256 * memory.MIB


def result_file(tmp_path, lossk_seconds=3.0):
    """A result of the shape that bench_cce.py leaves, with made-up times."""
    benchmarks = []
    for dtype in cce.DTYPES:
        for mode in cce.MODES:
            names = [name for name in cce.contenders(mode) if name != "cut_cross_entropy"]
            seconds = {cce.MATMUL: [1.0] * 5} | {name: [lossk_seconds] * 5 for name in names}
            peaks = dict.fromkeys(names, 150.0)
            facts = {"lossk_live8": {"live_share": 0.0221, "input_grad_error": 0.0014, "weight_grad_error": 0.0044}}
            info = cce.report(seconds, SHAPES["cpu-reference"], dtype, "peaked", mode, peaks, facts)
            info |= {"family": "cce", "mode": mode, "dtype": dtype, "inputs": "peaked", "loss_nats": 2.6}
            benchmarks.append({"extra_info": info | {"notes": {"cut_cross_entropy": "ImportError: none"}}})
    machine = {"cpu": "Test CPU", "threads": 2, "kernels": ["avx2"], "torch": "2.13", "lossk": "0"}
    path = tmp_path / "results" / "cpu" / "cce.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine_info": machine, "benchmarks": benchmarks}))
    (path.parent / "baseline.json").write_text("{}")


def test_live_columns_are_measured_and_have_goals_on_peaked_logits():
    shape, tiny = SHAPES["cpu-reference"], SHAPES["cpu-short"]._replace(n=256, d=32, v=1024)
    assert cce.goal("lossk_live8", shape, "bf16", "peaked", "forward+backward")["goal_matmul_times"] == 1.5
    assert not cce.goal("lossk_live8", shape, "bf16", "random", "forward+backward")
    assert not cce.goal("lossk", tiny, "bf16", "peaked", "forward+backward")
    problem = problems.make(tiny, torch.bfloat16, "peaked")
    fast, careful = (cce.live_facts(problem, tau) for tau in (2.0**-2, 2.0**-6))
    assert 0 < fast["live_share"] < careful["live_share"] < 1
    assert fast["input_grad_error"] > careful["input_grad_error"] > 0
    assert fast["weight_grad_error"] > careful["weight_grad_error"] > 0


def test_table_fills_the_readme_and_knows_when_it_is_behind(tmp_path, capsys):
    readme = tmp_path / "README.md"
    args = ["--readme", str(readme), "--results", str(tmp_path / "results")]
    result_file(tmp_path)
    readme.write_text("# A\n")
    with pytest.raises(SystemExit, match="bench:cce:begin"):
        table.main(args)
    readme.write_text("# A\n<!-- bench:cce:begin -->\nold\n<!-- bench:cce:end -->\nrest\n")
    assert table.main([*args, "--check"]) == 1 and "is behind" in capsys.readouterr().err
    assert table.main(args) == 0 and table.main([*args, "--check"]) == 0
    text = readme.read_text()
    assert text.startswith("# A\n") and text.endswith("rest\n") and "old" not in text
    assert "| **lossk, mean** | 3.00 (3.00 s) | 3.00 (3.00 s) | 150 | 150 |" in text
    assert "| *goal: lossk, mean* | ≤ 3.2 | ≤ 3.5 | ≤ 166 | ≤ 166 |" in text
    assert "| *goal: lossk, live columns, τ = 2^-8* | ≤ 1.3 | ≤ 1.5 | ≤ 137 | ≤ 137 |" in text
    assert "- lossk, live columns, τ = 2^-8, peaked: 2.2 % of the columns visited; error of d input 0.14 %, of" in text
    assert "Not measured here: cut_cross_entropy (ImportError: none)." in text
    result_file(tmp_path, lossk_seconds=4.0)
    assert table.main([*args, "--check"]) == 1


def test_table_of_one_group_and_of_a_gpu(tmp_path):
    entries = {
        "lossk cosine": {"ms": 1200.0, "over_cross_entropy": 1.05, "peak_mib": 150.4},
        "torch.cdist": {"ms": 90.0, "peak_mib": 1300.0},
    }
    case = {"family": "harmonic", "dtype": "fp32", "shape": SHAPES["cpu-short"]._asdict(), "share": 0.6}
    machine = {"cpu": "Test CPU", "threads": 2, "kernels": "avx2", "torch": "2.13", "lossk": "0"}
    gpu = {"gpu": "GPU", "driver": "1.2", "cuda": "13.0", "torch": "2.11", "date": "today", "commit": "a" * 40}
    results = {
        "cpu/harmonic": {"machine_info": machine, "benchmarks": [{"extra_info": case | {"providers": entries}}]},
        "h200/head": {
            "family": "head",
            "machine": gpu,
            "rows": [{"name": "matmul", "ms": 1.5}, {"name": "copy", "ms": 1.6, "tb_per_s": 4.3}],
        },
        "h200/live": {
            "family": "live",
            "machine": gpu,
            "rows": [
                {"name": "matmul", "shape": "a", "ms": 2.0, "times_matmul": 1.0},
                {"name": "lossk", "shape": "a", "ms": 3.0, "times_matmul": 1.5, "peak_mib": 99.6}
                | {"live_share": 0.1, "goal_times_matmul": 1.48, "input_grad_error": 0.01, "weight_grad_error": 0.002},
                {"name": "peer", "shape": "a", "failed": "ImportError: none"},
                {"name": "matmul", "shape": "b", "ms": 4.0, "times_matmul": 1.0},
            ],
        },
    }
    for name, result in results.items():
        path = tmp_path / "results" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result))
    readme = tmp_path / "README.md"
    readme.write_text("".join(f"<!-- bench:{f}:begin -->\n<!-- bench:{f}:end -->\n" for f in ("harmonic", "gpu")))
    assert table.main(["--readme", str(readme), "--results", str(tmp_path / "results")]) == 0
    text = readme.read_text()
    assert "| N=1024 D=512 V=16384, fp32 | time | over cross-entropy | MiB |" in text
    assert "| **lossk cosine** | 1.20 s | 1.05 | 150 |\n| torch.cdist | 90 ms |  | 1300 |\n\n- share: 0.6" in text
    assert "`head`: GPU, driver 1.2, CUDA 13.0, torch 2.11, today, aaaaaaaaaa." in text
    assert "| name | ms | tb per s |\n| --- | --: | --: |\n| matmul | 1.5 |  |\n| copy | 1.6 | 4.3 |" in text
    assert (
        "| ms (matmul times) | a | b | MiB, a |\n| --- | --: | --: | --: |\n| matmul | 2.0 (1.00) | 4.0 (1.00) | – |"
        in text
    )
    assert (
        "| **lossk** | 3.0 (1.50) | – | 100 |\n\n- lossk, a: 10.0 % of the columns visited (goal 1.48); error of"
        in text
    )
    assert "- Not measured here: peer (ImportError: none)." in text


def test_the_readme_has_the_committed_results():
    assert table.main(["--check"]) == 0


QUIET = {
    "forward / matmul": 1.0,
    "mean / matmul": 3.1,
    "per-token / matmul": 4.2,
    "mean / forward": 3.1,
    "per-token / mean": 1.35,
    "workspace MiB": 40.0,
}


@pytest.fixture
def baseline(tmp_path):
    path = tmp_path / "baseline.json"
    assert check.main(["--update", "--baseline", str(path)], lambda dtype: dict(QUIET)) == 0
    return path


@pytest.mark.parametrize(
    ("change", "code"),
    [({}, 0), ({"mean / matmul": 3.1 * 1.2}, 0), ({"mean / matmul": 3.1 * 1.3}, 1), ({"workspace MiB": 81.0}, 1)],
)
def test_guard_fails_beyond_the_tolerance_only(baseline, capsys, change, code):
    assert check.main(["--baseline", str(baseline)], lambda dtype: QUIET | change) == code
    assert ("TOO MUCH" in capsys.readouterr().out) == bool(code)


def test_guard_measures_a_noisy_set_again(baseline):
    times = iter([9.0, 9.0, 3.1, 3.1])
    assert check.main(["--baseline", str(baseline)], lambda dtype: QUIET | {"mean / matmul": next(times)}) == 0


def test_guard_on_another_machine_checks_what_holds_everywhere(baseline, capsys):
    saved = json.loads(baseline.read_text())
    saved["machine"]["cpu"] = "another"
    baseline.write_text(json.dumps(saved))
    assert check.main(["--baseline", str(baseline)], lambda dtype: QUIET | {"mean / matmul": 9.0}) == 0
    assert "another kind of machine" in capsys.readouterr().out
    assert check.main(["--baseline", str(baseline)], lambda dtype: QUIET | {"mean / forward": 9.0}) == 1
