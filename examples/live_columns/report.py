"""Stage `report`: the tables between the marks in README.md, from results.json; plot.py has the picture."""

import math
from pathlib import Path
from statistics import fmean
from typing import Any

from .plot import METHOD, draw

BEGIN, END = "<!-- study:begin -->", "<!-- study:end -->"
COLUMNS = (
    "live", "dropped mass", "dlogits error (at most)", "dE error", "worst row (cosine)", "dC error",
    "worst row (cosine)", "vocabulary without gradient", "time",
)  # fmt: skip


def report(results: dict[str, Any], folder: Path) -> None:
    """Whatever stages are in `results`."""
    parts = []
    if "measure" in results:
        parts += [where(results["measure"]), *(errors(*b) for b in results["measure"]["batches"].items())]
    if "compare" in results:
        parts += [where(results["compare"]), trained(results["compare"])]
    readme = folder / "README.md"
    before, _, rest = readme.read_text().partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise SystemExit(f"{readme.name} needs a line {BEGIN} and after it a line {END}")
    readme.write_text(before + "\n\n".join([BEGIN, *parts, END]) + after)
    draw(results, folder / "live_columns.png")


def where(stage: dict[str, Any]) -> str:
    machine = stage["machine"]
    return f"{machine['cpu']}, {machine['threads']} threads, torch {machine['torch']}, {stage['date']}."


def errors(name: str, batch: dict[str, Any]) -> str:
    """One batch: a line for each method."""
    caption = (
        f"**{name}**: {batch['about']}; loss {batch['loss']:.2f} nats. "
        f"N={batch['rows']} D={batch['dim']} V={batch['vocab']}, matmul {batch['matmul_ms']:.0f} ms."
    )
    return caption + "\n\n" + markdown(["", *COLUMNS], [errors_row(m) for m in batch["methods"]])


def errors_row(m: dict[str, Any]) -> list[str]:
    setting = next((f", {key}={power(m[key])}" for key in ("tau", "eps") if key in m), "")
    predicted = f" ({percent(m['dlogits_error_predicted'])})" if "dlogits_error_predicted" in m else ""
    gradients = [
        cell
        for g in (m["dE"], m["dC"])
        for cell in (percent(g["error"]), f"{percent(g['worst_row'])} ({g['worst_cosine']:.3f})")
    ]
    return [
        METHOD[m["method"]] + setting,
        percent(m["live_share"]),
        percent(m["dropped_mass"]),
        percent(m["dlogits_error"]) + predicted if "dlogits_error" in m else "–",
        *gradients,
        percent(m["zero_rows"]),
        f"{m['matmul_times']:.2f}" if "matmul_times" in m else "–",
    ]


def trained(stage: dict[str, Any]) -> str:
    """Held-out losses: a line for each head, a column for each seed."""
    losses: dict[str, list[float]] = {}
    for run in stage["runs"]:
        losses.setdefault(run["head"], []).append(run["held_out_loss"])
    rows = []
    for head, own in losses.items():
        gaps = [a - b for a, b in zip(own, losses["exact"])]
        beside = "–" if head == "exact" else f"{min(gaps):+.4f} to {max(gaps):+.4f}"
        rows.append([METHOD[head], *(f"{loss:.4f}" for loss in (*own, fmean(own))), beside])
    caption = (
        f"Held-out loss in nats after {stage['steps']} steps of {stage['rows']} tokens, V={stage['vocab']}; "
        f"lossk with tau={power(stage['tau'])}, CCE with eps={power(stage['eps'])}."
    )
    seeds = [f"seed {run['seed']}" for run in stage["runs"] if run["head"] == "exact"]
    return caption + "\n\n" + markdown(["", *seeds, "mean", "less exact, same seed"], rows)


def power(number: float) -> str:
    return f"2^{math.log2(number):.0f}"


def percent(share: float) -> str:
    """Two significant digits, three decimals at most."""
    if share == 0 or share >= 0.1:
        return f"{100 * share:.0f} %"
    return "< 0.001 %" if share < 1e-5 else f"{100 * share:.{min(3, 1 - math.floor(math.log10(100 * share)))}f} %"


def markdown(head: list[str], rows: list[list[str]]) -> str:
    rule = ["---"] + ["--:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows))
