"""The study's figures as one picture."""

from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

# Okabe and Ito's colours: told apart with every kind of colour vision
BATCH = {"init": "#999999", "early": "#E69F00", "trained": "#0072B2", "peaked": "#009E73"}
HEAD = {"torch": "#999999", "fill": "#0072B2", "cce": "#D55E00"}
METHOD = {
    "exact": "lossk, exact",
    "torch": "torch, exact",
    "fill": "lossk, fill",
    "drop": "lossk, drop",
    "cce": "CCE's tiles",
}
STYLE, SIZE = {"fill": "o-", "drop": "s--", "cce": "*"}, {"fill": 5, "drop": 5, "cce": 13}
TICKS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)
ROUNDING = 1e-6  # of float32, about; smaller errors are drawn here
INK, GRID = "#333333", "#E2E2E2"


def draw(results: dict[str, Any], path: Path) -> None:
    """Gradient error and time by live share, and what the error does to training."""
    figure = Figure(figsize=(15, 5), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)  # Agg, without touching the caller's pyplot
    figure.get_layout_engine().set(w_pad=0.15)
    error, time, training = figure.subplots(1, 3)
    if "measure" in results:
        by_live_share(error, time, results["measure"]["batches"])
    if "compare" in results:
        gaps(training, results["compare"])
    for axes in (error, time, training):
        axes.grid(color=GRID)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.title.set(fontweight="bold", fontsize=11.5, color=INK)
    figure.savefig(path, dpi=130)


def by_live_share(error: Axes, time: Axes, batches: dict[str, Any]) -> None:
    for name, batch in batches.items():
        methods, color = batch["methods"], BATCH[name]
        for method, style in STYLE.items():
            points = [m for m in methods if m["method"] == method]
            live, wrong = [m["live_share"] for m in points], [max(m["dE"]["error"], ROUNDING) for m in points]
            error.plot(live, wrong, style, color=color, markersize=SIZE[method])
            if method == "fill":
                time.plot(live, [m["matmul_times"] for m in points], style, color=color, markersize=SIZE[method])
        time.axhline(next(m["matmul_times"] for m in methods if m["method"] == "exact"), color=color, linestyle=":")
        error.plot([], [], "o", color=color, label=f"{name}, {batch['loss']:.1f} nats")
    for method, style in STYLE.items():
        error.plot([], [], style, color=INK, markersize=SIZE[method], label=METHOD[method])
    time.plot([], [], STYLE["fill"], color=INK, label=METHOD["fill"])
    time.plot([], [], ":", color=INK, label=METHOD["exact"])

    lowest = min(m["live_share"] for batch in batches.values() for m in batch["methods"])
    error.set(title="Error of dE", xlabel="live share of columns or tiles", ylabel="relative error (10⁻⁶: rounding)")
    error.set(xscale="log", yscale="log", xticks=[t for t in TICKS if t > lowest / 2])
    error.minorticks_off()
    error.legend(frameon=False, fontsize=8.5, loc="lower left")
    time.set(title="Forward + backward", xlabel="live share of columns", ylabel="time / time of input @ weight.T")
    time.set(xlim=(0, 1.03), ylim=(0, None))
    time.legend(frameon=False, fontsize=8.5, loc="lower right")
    for axes in (error, time):
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=None))


def gaps(axes: Axes, stage: dict[str, Any]) -> None:
    """Training loss less that of the exact head with the same seed: the batches' own noise cancels."""
    curves = {(run["head"], run["seed"]): run["curve"] for run in stage["runs"]}
    for head, color in HEAD.items():
        seeds = [seed for name, seed in curves if name == head]
        differences = [[a - b for a, b in zip(curves[head, seed], curves["exact", seed])] for seed in seeds]
        steps = [stage["steps"] * (i + 1) / len(differences[0]) for i in range(len(differences[0]))]
        for difference in differences:
            axes.plot(steps, difference, color=color, linewidth=0.7, alpha=0.6)
        axes.plot(steps, [fmean(at) for at in zip(*differences)], color=color, linewidth=2, label=METHOD[head])
    axes.set(title="Training loss less lossk's exact", xlabel="step", ylabel="nats per token, same seed and batches")
    axes.legend(frameon=False, fontsize=9)
