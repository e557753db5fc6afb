"""The family `training`: a model of 100 M parameters trained with torch's head and with lossk's, in turns."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.gpu.families import Clock, Row, family

SECONDS = 240
MODEL = ["--seconds", str(SECONDS), "--vocab", "50000", "--text-mb", "40", "--dtype", "bfloat16", "--model", "100m"]
DRY_MODEL = ["--seconds", "0.5", "--vocab", "300", "--text-mb", "0.3"]


@family
def training(clock: Clock) -> Iterator[Row]:
    """`lossk demo` at that size; its figures and picture lie beside the rows: training-curves.json, training.png."""
    command = [sys.executable, "-m", "lossk.cli", "demo", "--device", clock.device]
    command += DRY_MODEL if clock.dry else MODEL
    path = os.pathsep.join(entry for entry in sys.path if entry)
    with tempfile.TemporaryDirectory() as out:
        subprocess.run([*command, "--out", out], check=True, env={**os.environ, "PYTHONPATH": path})
        figures = json.loads((Path(out) / "demo.json").read_text())
        for made, kept in (("demo.json", "training-curves.json"), ("demo.png", "training.png")):
            (clock.folder / kept).write_bytes((Path(out) / made).read_bytes())
    for name, head in figures["heads"].items():
        yield {
            "name": name,
            "parameters": figures["parameters"],
            "steps": figures["steps"],
            "tokens_per_step": figures["tokens_per_step"],
            "vocab": figures["vocab"],
            "step_ms": round(1e3 * head["step_seconds"], 3),
            "head_ms": round(1e3 * head["head_seconds"], 3),
            "head_peak_mib": round(head["head_peak_bytes"] / 2**20, 1),
            "validation_loss": round(head["validation_loss"], 5),
        }
