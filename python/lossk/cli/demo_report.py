"""The figures of a demo as a dictionary (and JSON file), and as a table."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from rich.table import Table

from .. import __version__
from .demo_model import Run
from .machine import device_name

if TYPE_CHECKING:
    from .demo import Options

MEBIBYTE = 2**20
COMPARED = ("step_seconds", "head_seconds", "head_peak_bytes")
HEADERS = (
    "time\nper step",
    "time in head\nforward +\nbackward",
    "peak memory of head\nwith dh and dw,\nwithout h and w",
    "validation\nloss\n(nats/token)",
)
COUNTED = "one forward and backward of the head alone: gradients dh and dw counted, inputs h and w not"


def collect(
    runs: dict[str, Run],
    peaks: dict[str, int],
    scores: dict[str, float],
    options: Options,
    **facts: Any,
) -> dict[str, Any]:
    """All figures; seconds are medians over the steps, the first left out: it also pays for allocations."""
    heads = {
        name: {
            "step_seconds": median(run.step_seconds[1:] or run.step_seconds),
            "head_seconds": median(run.head_seconds[1:] or run.head_seconds),
            "head_peak_bytes": peaks[name],
            "validation_loss": scores[name],
            "per_step": {"loss": run.losses, "seconds": run.step_seconds, "head_seconds": run.head_seconds},
        }
        for name, run in runs.items()
    }
    ours, theirs = heads["lossk"], heads["torch"]
    return {
        "lossk": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": device_name(options.device),
        "dtype": str(options.dtype).removeprefix("torch."),
        "options": {key: str(value) for key, value in asdict(options).items()},
        **facts,
        "steps": len(runs["torch"].losses),
        "head_peak_counts": COUNTED,
        "heads": heads,
        "torch_over_lossk": {key: theirs[key] / ours[key] for key in COMPARED},
        "validation_loss_gap": abs(ours["validation_loss"] / theirs["validation_loss"] - 1),
    }


def table(figures: dict[str, Any]) -> Table:
    """One line per head and a last one with what lossk saves."""
    made = Table(
        title=setting(figures),
        caption=f"times are medians over the steps; validation: {figures['held_out_tokens']} tokens, torch for both",
        title_style="bold",
    )
    made.add_column("head")
    for title in HEADERS:
        made.add_column(title, justify="right")
    for name, head in figures["heads"].items():
        made.add_row(
            name,
            duration(head["step_seconds"]),
            duration(head["head_seconds"]),
            f"{head['head_peak_bytes'] / MEBIBYTE:.1f} MiB",
            f"{head['validation_loss']:.4f}",
        )
    made.add_section()
    ratio = figures["torch_over_lossk"]
    made.add_row("lossk needs", *(saving(r) for r in ratio.values()), f"{figures['validation_loss_gap']:.3%} apart")
    return made


def setting(figures: dict[str, Any]) -> str:
    """Two lines: what was trained, and where."""
    cut = " (stopped early)" if figures["interrupted"] else ""
    return (
        f"{figures['steps']} steps{cut} of {figures['tokens_per_step']} tokens, "
        f"vocabulary {figures['vocab']}, {figures['dtype']}\n{figures['device']}"
    )


def saving(ratio: float) -> str:
    """In words, how much less (or more) lossk needs than torch; `ratio` is torch / lossk."""
    if 1 / 1.05 < ratio < 1.05:
        return "about as much"
    return f"{ratio:.1f}× less" if ratio >= 1 else f"{1 / ratio:.1f}× more"


def duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.{0 if seconds >= 0.1 else 1}f} ms"


def save(figures: dict[str, Any], path: Path) -> Path:
    path.write_text(json.dumps(figures, indent=1) + "\n")
    return path
