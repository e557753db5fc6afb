"""The pictures: weights as images, accuracies and principal components, training curves."""

from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from .glyphs import CLASSES, SIDE

# Okabe and Ito's colours: told apart with every kind of colour vision
HEAD = {"cross-entropy": "#D55E00", "harmonic": "#0072B2"}
LM = dict(zip(("#D55E00", "#E69F00", "#999999", "#009E73", "#0072B2"), ("-", "--", ":", "-", "-")))
INK, GRID = "#333333", "#E2E2E2"


def canvas(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)  # Agg, without touching the caller's pyplot
    return figure


def dress(axes: Axes, title: str, **labels: Any) -> None:
    axes.set(**labels)
    axes.set_title(title, fontweight="bold", fontsize=10.5, color=INK)
    axes.grid(color=GRID)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def digits(pictures: dict[str, Tensor], facts: dict[str, Any], path: Path) -> None:
    """A row for the means and one for each head; blue is positive, red negative, white zero, each image by itself."""
    figure = canvas(11, 1.1 * len(pictures) + 0.3)
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02)
    for row, (name, weight) in zip(figure.subplots(len(pictures), CLASSES), pictures.items()):
        for axes, image in zip(row, weight):
            largest = image.abs().max().item()
            axes.imshow(image.view(SIDE, SIDE).numpy(), cmap="RdBu", vmin=-largest, vmax=largest)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_color(GRID)
        found = facts["found"].get(name)
        label = name.replace(", ", "\n") + (f"\ncosine to mean {found['cosine']:.2f}" if found else "\nof the class")
        row[0].set_ylabel(label, rotation=0, ha="right", va="center", color=INK)
    figure.savefig(path, dpi=110)


def modular(stage: dict[str, Any], path: Path) -> None:
    """Accuracies of the runs with the largest weight decay, and what the first seed's two sets of vectors look like."""
    largest = max(run["decay"] for run in stage["runs"])
    runs = {head: [r for r in stage["runs"] if (r["head"], r["decay"]) == (head, largest)] for head in HEAD}
    figure = canvas(15, 7.2)
    grid = figure.add_gridspec(2, 4)
    curves = figure.add_subplot(grid[:, :2])
    for head, own in runs.items():
        steps = [stage["every"] * i for i in range(len(own[0]["test"]))]
        for run in own:
            curves.plot(steps, run["test"], color=HEAD[head], linewidth=0.7, alpha=0.5)
        for which, style in (("test", "-"), ("train", ":")):
            at = [median(a) for a in zip(*(run[which] for run in own))]
            curves.plot(steps, at, style, color=HEAD[head], linewidth=2.2, label=f"{head}, {which}")
    title = f"a + b mod {stage['modulus']}, weight decay {largest:g}: each seed's test accuracy, and medians"
    dress(curves, title, xlabel="step", ylabel="accuracy", ylim=(0, 1.03))
    curves.yaxis.set_major_formatter(PercentFormatter(1))
    curves.legend(frameon=False, loc="lower right")
    for column, (head, own) in enumerate(runs.items(), 2):
        for row, what in enumerate(("embedding", "centres")):
            axes = figure.add_subplot(grid[row, column])
            found = own[0][what]
            for number, (x, y) in enumerate(found["points"]):
                axes.text(x, y, str(number), color=HEAD[head], fontsize=8, ha="center", va="center")
            reach = 1.15 * max(abs(x) for point in found["points"] for x in point)
            name = {"embedding": "embedding", "centres": "head's weight"}[what]
            title = f"{head}, {name}:\n{found['share']:.0%} of variance, seed {own[0]['seed']}"
            dress(axes, title, xlim=(-reach, reach), ylim=(-reach, reach))
            axes.set(aspect="equal", xlabel="first principal component", ylabel="second")
            axes.locator_params(nbins=5)
    figure.savefig(path, dpi=95)


def lm(stage: dict[str, Any], path: Path) -> None:
    figure = canvas(9, 5)
    axes = figure.subplots()
    for (name, found), (color, style) in zip(stage["heads"].items(), LM.items()):
        steps = [stage["curve_steps"] * (i + 0.5) for i in range(len(found["curve"]))]
        axes.plot(steps, found["curve"], style, color=color, label=f"{name}: {found['held_out_loss']:.2f} held out")
    dress(axes, f"Small language model, V={stage['vocab']}", xlabel="step", ylabel="training loss, nats per token")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)
