"""The figures of a demo as one picture."""

from itertools import accumulate
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .demo_report import MEBIBYTE, duration, saving, setting

# Okabe and Ito's colours: told apart with every kind of colour vision
COLOR = {"torch": "#E69F00", "lossk": "#0072B2"}
CALL = {"torch": "torch: F.cross_entropy(F.linear(h, w).float(), y)", "lossk": "lossk: linear_cross_entropy(h, w, y)"}
# The curves lie on each other: the first is drawn wide, so that it shows beside the second.
LINE = {"torch": {"linewidth": 5.0, "alpha": 0.55}, "lossk": {"linewidth": 1.6}}
INK, GRID = "#333333", "#E2E2E2"


def draw(figures: dict[str, Any], path: Path) -> Path:
    """Loss by step and by time above; time per step and the head's memory below."""
    figure = Figure(figsize=(12, 7.6), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)  # Agg, without touching the caller's pyplot
    figure.get_layout_engine().set(w_pad=0.15, h_pad=0.12)
    (by_step, by_time), (time_bars, memory_bars) = figure.subplots(2, 2, height_ratios=(2.3, 1))
    figure.suptitle(f"One small language model, two heads\n{setting(figures)}", color=INK)
    _curves(by_step, by_time, figures)
    _time(time_bars, figures)
    _memory(memory_bars, figures)
    figure.savefig(path, dpi=130)
    return path


def _curves(by_step: Axes, by_time: Axes, figures: dict[str, Any]) -> None:
    for name, head in figures["heads"].items():
        losses, seconds = head["per_step"]["loss"], list(accumulate(head["per_step"]["seconds"]))
        label = f"{CALL[name]}\nvalidation loss {head['validation_loss']:.4f}"
        by_step.plot(range(1, len(losses) + 1), losses, color=COLOR[name], label=label, **LINE[name])
        by_time.plot(seconds, losses, color=COLOR[name], label=name, **LINE[name])
    same, faster = figures["validation_loss_gap"] < 0.01, figures["torch_over_lossk"]["step_seconds"] > 1
    unit = "training loss (nats per token)"
    by_step.set(title="The same loss at every step" if same else "Loss by step", xlabel="step", ylabel=unit)
    by_time.set(title="Reached in less time" if faster else "Loss by time", xlabel="training time (s)", ylabel=unit)
    by_step.xaxis.set_major_locator(MaxNLocator(integer=True))
    by_time.set_xlim(left=0)
    for axes in (by_step, by_time):
        _plain(axes, "both")
        axes.legend(frameon=False, loc="upper right", fontsize=9, labelspacing=0.8)


def _time(axes: Axes, figures: dict[str, Any]) -> None:
    heads = figures["heads"]
    in_head = [head["head_seconds"] for head in heads.values()]
    rest = [head["step_seconds"] - head["head_seconds"] for head in heads.values()]
    colors = [COLOR[name] for name in heads]
    axes.barh(list(heads), in_head, color=colors, height=0.62)
    axes.barh(list(heads), rest, left=in_head, color="#C9C9C9", height=0.62)
    for row, (head, other) in enumerate(zip(in_head, rest)):
        words = f"  {duration(head)} in the head\n  {duration(head + other)} per step"
        axes.text(head + other, row, words, va="center")
    axes.set(
        title=f"Head, forward + backward: {saving(figures['torch_over_lossk']['head_seconds'])} time",
        xlabel="time per step (s), median: head in colour, the rest in grey",
    )
    _bars(axes, max(h + r for h, r in zip(in_head, rest)))


def _memory(axes: Axes, figures: dict[str, Any]) -> None:
    peaks = {name: head["head_peak_bytes"] / MEBIBYTE for name, head in figures["heads"].items()}
    axes.barh(list(peaks), list(peaks.values()), color=[COLOR[name] for name in peaks], height=0.62)
    for row, peak in enumerate(peaks.values()):
        axes.text(peak, row, f"  {peak:.0f} MiB", va="center")
    axes.set(
        title=f"Head, forward + backward: {saving(figures['torch_over_lossk']['head_peak_bytes'])} memory",
        xlabel="peak memory beside h and w (MiB), gradients included",
    )
    _bars(axes, max(peaks.values()))


def _bars(axes: Axes, longest: float) -> None:
    axes.invert_yaxis()  # torch above lossk, as in the table
    axes.set_xlim(0, longest * 1.42)  # room for the words behind the longest bar
    axes.tick_params(axis="y", length=0)
    _plain(axes, "x")


def _plain(axes: Axes, grid: str) -> None:
    axes.grid(axis=grid, color=GRID)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.title.set(fontweight="bold", fontsize=11.5, color=INK)
