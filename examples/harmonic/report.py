"""Stage `report`: the tables between the marks in README.md, and the pictures that results.json suffices for."""

from pathlib import Path
from statistics import median
from typing import Any

from . import plot

BEGIN, END = "<!-- {}:begin -->", "<!-- {}:end -->"


def report(results: dict[str, Any], folder: Path) -> None:
    """Whatever stages are in `results`."""
    readme = folder / "README.md"
    text = readme.read_text()
    for stage, found in results.items():
        text = filled(text, stage, where(found) + "\n\n" + TABLES[stage](found))
    readme.write_text(text)
    for stage, draw in (("modular", plot.modular), ("lm", plot.lm)):
        if stage in results:
            draw(results[stage], folder / f"{stage}.png")


def filled(text: str, stage: str, table: str) -> str:
    begin, end = BEGIN.format(stage), END.format(stage)
    before, _, rest = text.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise SystemExit(f"README.md needs a line {begin} and after it a line {end}")
    return f"{before}{begin}\n\n{table}\n\n{end}{after}"


def where(stage: dict[str, Any]) -> str:
    machine = stage["machine"]
    about = f"{machine['cpu']}, {machine['threads']} threads, torch {machine['torch']}, {stage['date']}"
    return f"{about}; {stage['seconds']:.0f} s."


def digits(stage: dict[str, Any]) -> str:
    rows = []
    for name, found in stage["found"].items():
        right = [f"{100 * found[k]:.1f} %" if k in found else "–" for k in ("train_accuracy", "test_accuracy")]
        rows.append([name, *right, f"{found['cosine']:.2f}", f"{found['distance']:.2f}"])
    head = ["", "train accuracy", "test accuracy", "cosine to class mean", "distance / norm of mean"]
    return f"{stage['images']} images, {stage['epochs']} epochs.\n\n" + markdown(head, rows)


def modular(stage: dict[str, Any]) -> str:
    """Medians over seeds; a seed that never generalises counts as later than all that do."""
    groups: dict[tuple[float, str], list[dict[str, Any]]] = {}
    for run in stage["runs"]:
        groups.setdefault((run["decay"], run["head"]), []).append(run)
    rows = []
    for (decay, head), runs in groups.items():
        reached = [run["generalises"] for run in runs if run["generalises"] is not None]
        middle = sorted(reached + [None] * (len(runs) - len(reached)), key=lambda s: (s is None, s))[len(runs) // 2]
        final = [median(run[which][-1] for run in runs) for which in ("train", "test")]
        shares = [median(run[which]["share"] for run in runs) for which in ("embedding", "centres")]
        step = "never" if middle is None else str(middle)
        rows.append([f"{head}, decay {decay:g}", step, f"{len(reached)} of {len(runs)}"])
        rows[-1] += [f"{100 * x:.0f} %" for x in (*final, min(run["test"][-1] for run in runs), *shares)]
    head = ["", "90 % of test pairs at step", "seeds that reach it", "train accuracy", "test accuracy", "lowest seed"]
    head += ["embedding: 2 components", "head's weight: 2 components"]
    return f"Medians over seeds, {stage['steps']} steps.\n\n" + markdown(head, rows)


def lm(stage: dict[str, Any]) -> str:
    caption = "{steps} steps of {rows} tokens, D={dim}, V={vocab}, float32; {held_out_tokens} held-out tokens."
    rows = []
    for name, found in stage["heads"].items():
        costs = [f"{found['step_ms']:.0f} ms", f"{found['head_ms']:.0f} ms", f"{found['head_mib']:.1f} MiB"]
        rows.append([name, f"{found['held_out_loss']:.3f}", *costs])
    head = ["", "held-out loss, nats", "step", "head in it", "head's peak memory"]
    return caption.format(**stage) + "\n\n" + markdown(head, rows)


TABLES = {"digits": digits, "modular": modular, "lm": lm}


def markdown(head: list[str], rows: list[list[str]]) -> str:
    rule = ["---"] + ["--:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows))
