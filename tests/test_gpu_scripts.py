"""The scripts for a machine with a GPU, without one: steps, their plans, benches and what is written of them."""

import io
import json
import math
import os
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from bench.gpu import __main__ as gpu
from bench.gpu import check, cross_entropy, harmonic, peers, record, trained
from bench.gpu.families import DRY_HEAD, FAMILIES, ROUNDS, Clock
from bench.gpu.steps import Step, log_file, run_steps, summary
from bench.shapes import SHAPES, Shape


def python(script: str) -> list[str]:
    return [sys.executable, "-c", script]


def test_a_failing_step_stops_only_what_needs_it(tmp_path, capsys):
    steps = [
        Step("build", [python("print('first')"), python("print('why'); exit(3)"), python("print('never')")], 30),
        Step("run", [python("print('never')")], 30, needs="build"),
        Step("missing", [["no-such-program"]], 30),
        Step("after", [python("import os; print(os.environ['GIVEN'])")], 30, environment={"GIVEN": "heard"}),
        Step("empty", [python("print('0 passed, 0 failed')")], 30, expects="1 passed"),
    ]
    outcomes = run_steps(steps, tmp_path, tmp_path)
    assert {o.name: o.result for o in outcomes} == {
        "build": "exit status 3",
        "run": "not run without build",
        "missing": "cannot run no-such-program",
        "after": "ok",
        "empty": "does not say '1 passed'",
    }
    log = log_file(tmp_path, "build").read_text()
    assert "first" in log and "never" not in log
    assert "heard" in log_file(tmp_path, "after").read_text()
    assert not log_file(tmp_path, "run").exists()
    assert "  why" in capsys.readouterr().out  # the end of the failed step's log
    assert summary(outcomes).splitlines()[0].split() == ["step", "result", "seconds"]
    assert len({len(line) for line in summary(outcomes).splitlines()}) == 1


def test_a_step_over_its_time_ends_with_its_children(tmp_path):
    script = "import subprocess; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); p.wait()"
    start = time.monotonic()
    [outcome] = run_steps([Step("slow", [python(script)], 1)], tmp_path, tmp_path)
    assert outcome.result == "over its time" and time.monotonic() - start < 20
    pid = int(log_file(tmp_path, "slow").read_text().split()[-1])
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":  # dead; whoever inherited it has not looked yet
            return
        time.sleep(0.05)
    pytest.fail("the child of a step outlived it")


def test_plans():
    hopper, ampere = check.steps_with((9, 0)), check.steps_with((8, 6))
    names = [step.name for step in hopper]
    assert names[:4] == ["build device tests", "conformance", "kernels", "build package"]
    assert names[4] == "pytest package" and "--device=cuda" in hopper[4].commands[0]
    assert set(names[5:]) == {f"{tool} {program}" for tool in check.SANITIZERS for program in check.PROGRAMS}
    assert "-DLOSSK_GPU=90a" in hopper[0].commands[0] and "-DLOSSK_GPU=80" in ampere[0].commands[0]
    assert "-Ccmake.define.LOSSK_SM=90" in hopper[3].commands[0]
    assert "-Ccmake.define.LOSSK_SM=80" in ampere[3].commands[0]
    assert check.architecture((10, 0)) == "100"
    lists = check.build_package("90a", 128).commands[0]
    assert "-Ccmake.define.CMAKE_CUDA_FLAGS=-DLOSSK_LIST_ROWS=128" in lists and f"{check.SITE}-128" in lists
    assert str(check.SITE) not in lists
    for part in check.PARTS:
        assert 0 < sum(step.limit for step in check.select(hopper, None, part)) <= 600
    assert [step.name for step in check.select(hopper, ["conformance"])] == ["conformance"]
    for step in hopper:
        assert 0 < step.limit < 600 and step.part in check.PARTS
        assert step.needs in ("", *names)
        if "--tool" in step.commands[0]:
            assert step.environment == {"LOSSK_SEEDS": "1"} and "--error-exitcode" in step.commands[0]
    assert [step.name for step in check.select(hopper, ["memcheck", "build device"])] == [
        "build device tests",
        "memcheck conformance",
        "memcheck kernels",
    ]


def test_without_a_gpu_the_check_says_what_was_not_run(monkeypatch, tmp_path, capsys):
    steps = [Step(name, [python("pass")], 30) for name in ("build device tests", "conformance")]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(check, "steps_without", lambda: steps)
    monkeypatch.setattr(check, "FOLDER", tmp_path)
    monkeypatch.setenv("PATH", os.environ["PATH"])
    assert gpu.main(["check"]) == 0
    assert capsys.readouterr().out.endswith("no CUDA device: 12 steps not run\n")
    assert gpu.main(["check", "--only", "nothing of this name"]) == 1
    steps.append(Step("collect tests", [python("exit(1)")], 30))
    assert gpu.main(["check"]) == 1


def test_with_a_gpu_the_check_is_for_its_architecture(monkeypatch, tmp_path, capsys):
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(
        check, "steps_with", lambda capability: asked.append(capability) or [Step("a", [python("pass")], 30)]
    )
    monkeypatch.setattr(check, "FOLDER", tmp_path)
    monkeypatch.setenv("PATH", os.environ["PATH"])
    assert gpu.main(["check"]) == 0 and asked == [(9, 0)]
    assert "no CUDA device" not in capsys.readouterr().out


def test_without_a_gpu_the_benches_run_dry_and_write_no_results(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(record, "ROOT", tmp_path)
    monkeypatch.setattr(record, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(record, "DRY_RESULTS", tmp_path / "dry")
    assert gpu.main(["bench", "--commit", "abc"]) == 0
    assert "no CUDA device" in capsys.readouterr().out
    assert not (tmp_path / "results").exists()
    result = json.loads((tmp_path / "dry" / "ceilings.json").read_text())
    assert result["machine"].keys() == {"gpu", "driver", "cuda", "torch", "date", "commit"}
    assert result["machine"]["commit"] == "abc"
    assert [row["name"] for row in result["rows"]] == ["matmul bf16", "copy"]
    assert all(row["ms"] > 0 for row in result["rows"])
    written = {path.stem for path in (tmp_path / "dry").glob("*.json")}
    assert written == FAMILIES.keys() | {"training-curves"} and (tmp_path / "dry" / "training.png").exists()
    for name in FAMILIES:
        rows = json.loads((tmp_path / "dry" / f"{name}.json").read_text())["rows"]
        assert rows and all("name" in row and "failed" not in row for row in rows)
    with pytest.raises(SystemExit, match="no family nothing"):
        gpu.main(["bench", "--only", "nothing"])


def test_a_long_family_goes_on_where_it_ended(monkeypatch, tmp_path, capsys):
    made = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(record, "ROOT", tmp_path)
    monkeypatch.setattr(record, "DRY_RESULTS", tmp_path)
    monkeypatch.setattr(
        cross_entropy,
        "case_rows",
        lambda clock, name, shape, inputs: made.append(inputs) or [{"shape": name, "inputs": inputs}],
    )
    bench = lambda *more: gpu.main(["bench", "--only", "cross_entropy_2048", "--commit", "abc", *more])  # noqa: E731
    assert bench("--minutes", "0.1") == 0 and made == []  # a case takes longer
    monkeypatch.setattr(cross_entropy, "CASE_SECONDS", -60)
    monkeypatch.setattr(cross_entropy, "INPUTS", {"trained": None})
    assert bench() == 0 and made == ["trained"]
    monkeypatch.setattr(cross_entropy, "INPUTS", {"trained": None, "random": None})
    assert bench() == 0 and made == ["trained", "random"]
    rows = json.loads((tmp_path / "cross_entropy_2048.json").read_text())["rows"]
    assert [row["inputs"] for row in rows] == ["trained", "random"]
    assert gpu.main(["bench", "--only", "cross_entropy_2048", "--commit", "another"]) == 0 and len(made) == 4
    assert gpu.main(["bench", "--only", "ceilings", "--minutes", "-1"]) == 1
    assert "ceilings: not begun" in capsys.readouterr().out


def test_a_peer_that_fails_is_a_row_and_lossk_failing_an_error(monkeypatch):
    def broken(p):
        raise ImportError("no peer of that name")

    def wrong(p):
        return cross_entropy._lossk(p) + 1

    monkeypatch.setattr(cross_entropy, "DRY_PEERS", ("broken", "wrong"))
    monkeypatch.setattr(cross_entropy, "PEERS", {"broken": broken, "wrong": wrong})
    shape = DRY_HEAD._replace(n=33)
    rows = {row["name"]: row for row in cross_entropy.case_rows(Clock("cpu"), "dry", shape, "trained")}
    assert rows["broken"]["failed"] == "ImportError: no peer of that name" and "ms" not in rows["broken"]
    assert "where torch's is" in rows["wrong"]["failed"] and "wrong, forward" not in rows
    assert rows["lossk, mean"]["ms"] > 0 and rows["lossk, mean"]["weight_grad_error"] < 0.01
    monkeypatch.setitem(cross_entropy.OURS, "lossk, mean", lambda p: cross_entropy._lossk(p, tau=0.5, fill=False))
    with pytest.raises(AssertionError, match="errors of lossk's exact gradients"):
        cross_entropy.case_rows(Clock("cpu"), "dry", shape, "trained")
    monkeypatch.setitem(cross_entropy.OURS, "lossk, mean", broken)
    with pytest.raises(ImportError):
        cross_entropy.case_rows(Clock("cpu"), "dry", shape, "trained")


def test_a_trained_models_head_in_other_sizes(tmp_path):
    model = trained.load(trained.DRY, torch.device("cpu"), tmp_path)
    again = trained.load(trained.DRY._replace(steps=-1), torch.device("cpu"), tmp_path)  # not trained again
    assert torch.equal(model.hidden, again.hidden) and model.loss == again.loss
    entries, idle = trained.DRY.tokens + trained.DRY.idle, trained.DRY.idle
    assert 1 < model.loss < math.log(entries) - 0.5  # it has learned something
    own = model.hidden.float() @ model.weight.float().T
    assert F.cross_entropy(own, model.target).item() == pytest.approx(model.loss, rel=0.01)
    shape = Shape(100, 96, 500, "wider, more entries, fewer rows")
    rows, weight = trained.head(model, shape, idle)
    assert rows.shape == (100, 96) and weight.shape == (500, 96)
    logits = rows @ weight.T
    torch.testing.assert_close(logits[:, :entries], own[:100], rtol=1e-4, atol=1e-4)
    closest = (logits[:, entries:, None] - own[:100, None, -idle:]).abs().mean(0).min(1).values
    assert 0 < closest.max() < 1.0  # each other entry is about like one of the idle ones
    for bad in (shape._replace(n=200), shape._replace(d=63), shape._replace(v=entries - 1)):
        with pytest.raises(ValueError, match="the model has 128 rows"):
            trained.head(model, bad, idle)
    for size in (SHAPES[name] for name in cross_entropy.HEADS):
        assert size.d >= trained.FULL.dim and size.v >= trained.FULL.tokens + trained.FULL.idle
    assert trained.FULL.rows == max(cross_entropy.ROWS)


def test_wheels_are_cut_and_joined(tmp_path):
    whole, contents = tmp_path / "wheels" / "whole", {}
    for name, size in {"a.whl": 10, "b.whl": 500, "c.whl": 1}.items():
        with zipfile.ZipFile(made := io.BytesIO(), "w") as wheel:
            wheel.writestr("content", bytes(size))
        contents[name] = made.getvalue()
    whole.mkdir(parents=True)
    for name, content in contents.items():
        (whole / name).write_bytes(content)
    folders = peers.divide(whole, tmp_path / "wheels", part=200)
    assert not whole.exists() and len(folders) > 2
    assert all(sum(path.stat().st_size for path in folder.iterdir()) <= 200 for folder in folders)
    made = peers.join(tmp_path / "wheels", tmp_path / "joined")
    assert {path.name: path.read_bytes() for path in made} == contents
    for piece in sorted((tmp_path / "wheels").glob("*/b.whl.*")):
        content = piece.read_bytes()
        piece.unlink()
        with pytest.raises(ValueError, match=r"b\.whl: pieces are missing"):
            peers.join(tmp_path / "wheels", tmp_path / "joined")
        piece.write_bytes(content)


def test_the_runs_say_what_they_are():
    script = str(check.ROOT / "bench" / "gpu" / "runs.sh")
    said = subprocess.run(["bash", script, "no such run"], capture_output=True, text=True)
    assert said.returncode == 2 and not said.stderr
    for run in ("pack", "check", "ops", "heads", "training", "profile", "compare"):
        assert f"runs.sh {run} " in said.stdout and f"\n{run}() {{\n" in Path(script).read_text()
    families = set(re.findall(r"--only (\w+)", Path(script).read_text()))
    assert families == FAMILIES.keys() - {"live_lists"}  # two more builds: for a run of its own


def test_what_a_harmonic_head_is_compared_with():
    base = harmonic.base_of
    assert base("lossk cosine, τ = 2^-8 wgmma") == "lossk cross-entropy, τ = 2^-8 wgmma"
    assert base("lossk euclidean mma_sync") == "lossk cross-entropy mma_sync"
    assert base("lossk cross-entropy, per token wgmma") == base("torch.cdist") == ""


def test_a_family_that_fails_does_not_stop_the_others(monkeypatch, tmp_path, capsys):
    def broken(clock: Clock) -> list:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(record, "ROOT", tmp_path)
    monkeypatch.setattr(record, "DRY_RESULTS", tmp_path)
    monkeypatch.setattr(record, "FAMILIES", {"broken": broken, "sound": lambda clock: [{"name": "x", "ms": 1}]})
    assert record.run_bench() == 1
    assert "out of memory" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["sound.json"]


@pytest.mark.parametrize(
    "gpu_name, folder",
    [("NVIDIA H200", "h200"), ("NVIDIA H100 80GB HBM3", "h100-80gb-hbm3"), ("NVIDIA GeForce RTX 4090", "rtx-4090")],
)
def test_results_lie_in_a_folder_of_the_gpus_name(gpu_name, folder):
    assert record.folder_name(gpu_name) == folder


def test_commit(monkeypatch, tmp_path):
    assert re.fullmatch(r"unknown|[0-9a-f]{40}( and changes)?", record.git_commit())
    monkeypatch.setattr(record, "ROOT", tmp_path)  # a copy without git
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert record.git_commit() == "unknown"


def test_clock_times_each_round_after_a_warm_up():
    runs = []
    assert len(Clock("cpu").milliseconds(lambda: runs.append(time.sleep(0.001)))) == ROUNDS
    assert len(runs) == ROUNDS + 1
    assert min(Clock("cpu").milliseconds(lambda: time.sleep(0.002))) >= 2
    assert "ceilings" in FAMILIES
