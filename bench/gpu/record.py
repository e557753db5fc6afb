"""Results of the families as JSON, with what they depend on and nothing that names the machine or its user."""

import importlib.util
import json
import math
import re
import subprocess
import sys
import time
import traceback
from datetime import datetime, timezone
from pathlib import Path

import torch

from bench.gpu import cross_entropy, distillation, harmonic, lists, live, training  # noqa: F401  register their families
from bench.gpu.check import FOLDER, NO_DEVICE, ROOT, SITE, architecture, build_package
from bench.gpu.families import FAMILIES, Clock
from bench.gpu.peers import make_available
from bench.gpu.steps import run_steps, summary

RESULTS = ROOT / "bench" / "results"
DRY_RESULTS = FOLDER / "bench"


def folder_name(gpu: str) -> str:
    """NVIDIA H200 -> h200."""
    words = re.findall(r"[a-z0-9.]+", gpu.lower())
    return "-".join(word for word in words if word not in ("nvidia", "geforce", "graphics", "device"))


def _say(*command: str) -> str | None:
    try:
        run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    except OSError:
        return None
    return run.stdout.strip() if run.returncode == 0 else None


def git_commit() -> str:
    git = ("git", "-c", "safe.directory=*")  # a copy that belongs to someone else is as good
    commit = _say(*git, "rev-parse", "HEAD")
    if not commit:
        return "unknown"
    changed = _say(*git, "status", "--porcelain", "--", ".", ":!bench/results")
    return f"{commit} and changes" if changed else commit


def machine(commit: str | None = None) -> dict:
    there = torch.cuda.is_available()
    driver = _say("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader") if there else None
    return {
        "gpu": torch.cuda.get_device_name() if there else None,
        "driver": driver.splitlines()[0] if driver else None,
        "cuda": torch.version.cuda,
        "torch": torch.__version__,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "commit": commit or git_commit(),
    }


def write(folder: Path, name: str, facts: dict, rows: list[dict]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"family": name, "machine": facts, "rows": rows}, indent=2) + "\n")
    return path


def have_package() -> bool:
    """lossk for this GPU: where it is not installed, it is built as the check builds it."""
    if importlib.util.find_spec("lossk") is None:
        if not (SITE / "lossk").exists():
            outcomes = run_steps([build_package(architecture(torch.cuda.get_device_capability()))], FOLDER, ROOT)
            print(summary(outcomes))
            if not outcomes[0].ok:
                return False
        sys.path.insert(0, str(SITE))
    return True


def known_rows(path: Path, facts: dict) -> list[dict]:
    """What is written there already of the same commit on the same machine's kind."""
    if not path.exists():
        return []
    found = json.loads(path.read_text())
    same = all(found["machine"].get(key) == facts[key] for key in ("gpu", "torch", "commit"))
    return found["rows"] if same and facts["commit"] != "unknown" and "changes" not in facts["commit"] else []


def run_family(name: str, clock: Clock, folder: Path, facts: dict) -> None:
    """Writes after each row, so that what ends early has lost nothing."""
    path, rows = folder / f"{name}.json", []
    clock.known = known_rows(path, facts)
    for row in FAMILIES[name](clock):
        rows.append(row)
        write(folder, name, facts, rows)
        print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    print(f"{name}: {path.relative_to(ROOT)}", flush=True)


def run_bench(only: list[str] | None = None, commit: str | None = None, minutes: float = math.inf) -> int:
    """Every family in turn; one that fails does not stop the others, and none begins when the minutes are over."""
    unknown = set(only or ()) - set(FAMILIES)
    if unknown:
        raise SystemExit(f"no family {', '.join(sorted(unknown))}; there are {', '.join(FAMILIES)}")
    facts = machine(commit)
    if facts["gpu"]:
        folder = RESULTS / folder_name(facts["gpu"])
        clock = Clock("cuda", folder)
        if not have_package():
            return 1
        make_available()
    else:
        print(f"{NO_DEVICE}: a dry run on the CPU, whose numbers mean nothing")
        folder = DRY_RESULTS
        clock = Clock("cpu", folder)
    folder.mkdir(parents=True, exist_ok=True)
    failed, clock.ends = 0, time.monotonic() + 60 * minutes
    for name in only or FAMILIES:
        if time.monotonic() > clock.ends:
            print(f"{name}: not begun, the time is over")
            failed += 1
            continue
        try:
            run_family(name, clock, folder, facts)
        except Exception:
            traceback.print_exc(file=sys.stdout)
            failed += 1
    return int(failed > 0)
