"""The family `live_lists`: the bench `live` with lists of live columns for other numbers of rows, which are constants.

`python -m bench.gpu.lists DEVICE` prints its rows with the package that it finds, for a process of its own.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from bench.gpu.check import FOLDER, ROOT, architecture, build_package
from bench.gpu.families import Clock, Row, family
from bench.gpu.live import live
from bench.gpu.steps import run_steps

LIST_ROWS = (128, 512)  # beside the default of cuda/head/live/params.h, which the bench `live` has


def rows_with(site: Path | None, device: str) -> list[Row]:
    """`live` in a process that finds the package in site."""
    path = [str(site)] if site else []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path + [entry for entry in sys.path if entry])}
    command = [sys.executable, "-m", "bench.gpu.lists", device]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    if run.returncode != 0:
        raise RuntimeError(run.stderr[-2000:])
    return json.loads(run.stdout.splitlines()[-1])


@family
def live_lists(clock: Clock) -> Iterator[Row]:
    """A package built for each number of rows, minutes each; a dry run has the one that is there."""
    for rows in LIST_ROWS:
        site = None if clock.dry else FOLDER / f"site-{rows}"
        if site is not None and not site.exists():
            step = build_package(architecture(torch.cuda.get_device_capability()), rows)
            if not run_steps([step], FOLDER, ROOT)[0].ok:
                raise RuntimeError(f"no package with lists of {rows} rows")
        for row in rows_with(site, clock.device):
            yield row | {"list_rows": rows}


if __name__ == "__main__":
    print(json.dumps(live(Clock(sys.argv[1]))))
