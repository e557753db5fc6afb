"""Writes the committed results into README.md: `python -m bench.table`, or `--check` to see that they are there.

Every results/<device>/<family>.json with pytest-benchmark's cases becomes tables between the lines
`<!-- bench:<family>:begin -->` and `<!-- bench:<family>:end -->`; those of families that ran on a GPU, rows of the same
keys, all go between those of `gpu`.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

BENCH = Path(__file__).parent


def _seconds(ms: float) -> str:
    return f"{ms / 1e3:.2f} s" if ms >= 1e3 else f"{ms:.0f} ms"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def mode_table(cases: list[dict]) -> str:
    """One table for the cases (extra_info of pytest-benchmark) of one mode: a row per contender, a column per input."""
    dtypes = list(dict.fromkeys(c["dtype"] for c in cases))
    columns = [(c["dtype"], c["inputs"]) for c in cases]
    at = {(c["dtype"], c["inputs"]): c["providers"] for c in cases}
    names = list(dict.fromkeys(name for c in cases for name in c["providers"]))

    def entry(name: str, dtype: str, inputs: str) -> dict:
        return at[dtype, inputs].get(name, {})

    def time_cell(cell: dict) -> str:
        return f"{cell['matmul_times']:.2f} ({_seconds(cell['ms'])})" if cell else "–"

    def peak_cell(name: str, dtype: str, key: str) -> str:
        known = [e[key] for d, i in columns if d == dtype and key in (e := entry(name, d, i))]
        return f"{max(known):.0f}" if known else "–"

    head = [cases[0]["mode"].replace("+", " + ")]
    head += [f"{d} {i}" for d, i in columns] + [f"MiB, {d}" for d in dtypes]
    lines = [_row(head), _row(["---"] + ["--:"] * (len(head) - 1))]
    for name in names:
        label = next(p[name]["label"] for p in at.values() if name in p)
        cells = [time_cell(entry(name, *column)) for column in columns]
        peaks = [peak_cell(name, d, "peak_mib") for d in dtypes]
        lines.append(_row([f"**{label}**" if name.startswith("lossk") else label, *cells, *peaks]))
        if any("goal_matmul_times" in entry(name, *column) for column in columns):
            goals = [f"≤ {g}" if (g := entry(name, *c).get("goal_matmul_times")) else "" for c in columns]
            peaks = ["≤ " + peak_cell(name, d, "goal_peak_mib") for d in dtypes]
            lines.append(_row([f"*goal: {label}*", *goals, *peaks]))
    return "\n".join(lines)


def on_machine(machine: dict) -> str:
    kernels = machine["kernels"]
    kernels = kernels if isinstance(kernels, str) else json.dumps(kernels).replace('"', "").strip("{}[]")
    versions = f"torch {machine['torch']}, lossk {machine['lossk']}"
    return f"{machine['cpu']}, {machine['threads']} threads ({kernels}), {versions}"


def caption(machine: dict, cases: list[dict]) -> str:
    """Where and on what was measured, and how to read the tables."""
    first = cases[0]
    shape, work = first["shape"], first["work"]
    dtypes = dict.fromkeys(c["dtype"] for c in cases)
    matmul = {d: statistics.median(c["matmul_ms"] for c in cases if c["dtype"] == d) for d in dtypes}
    grads = {c["dtype"]: c["grads_mib"] for c in cases if c["grads_mib"]}
    inputs = {c["inputs"]: c["loss_nats"] for c in cases}
    return (
        f"{on_machine(machine)}; N={shape['n']} D={shape['d']} V={shape['v']}. "
        "Times are in units of one torch `input @ weight.T` of the same interleaved rounds ("
        + ", ".join(f"{d} {_seconds(ms)}" for d, ms in matmul.items())
        + "); multiplying alone takes 1 forward and 3 with both gradients. MiB is peak memory beside the inputs, "
        "gradients included (" + ", ".join(f"{d} {mib:.0f} MiB" for d, mib in grads.items()) + "); "
        f"the logits nobody needs are {work['logits_bytes'] / 2**20:.0f} MiB. "
        "Losses in nats: " + ", ".join(f"{k} {v:.2f}" for k, v in inputs.items()) + ". "
        "The mean should also be no slower than torch.compile of the unfused head."
    )


def live_facts(cases: list[dict]) -> list[str]:
    """A line for each contender that visits live columns only: how many, and what that does to the gradients."""
    lines = []
    for case in cases:
        for entry in case["providers"].values():
            if case["dtype"] == "fp32" and "live_share" in entry:
                lines.append(
                    f"{entry['label']}, {case['inputs']}: {100 * entry['live_share']:.1f} % of the columns visited; "
                    f"error of d input {100 * entry['input_grad_error']:.2g} %, "
                    f"of d weight {100 * entry['weight_grad_error']:.2g} %."
                )
    return ["- " + "\n- ".join(lines)] if lines else []


COLUMNS = {  # of a family that is one group of contenders: what an entry may have, and what the table calls it
    "ms": "time",
    "matmul_times": "matmul times",
    "goal_matmul_times": "goal",
    "over_cross_entropy": "over cross-entropy",
    "peak_mib": "MiB",
}


def group_table(case: dict) -> str:
    """One group of interleaved contenders, a row each, and below it what else was found."""
    entries = case["providers"]
    keys = [key for key in COLUMNS if any(key in entry for entry in entries.values())]

    def cell(entry: dict, key: str) -> str:
        if key not in entry:
            return ""
        value = entry[key]
        return {"ms": _seconds, "peak_mib": "{:.0f}".format}.get(key, "{:.2f}".format)(value)

    shape = case["shape"]
    lines = [_row([f"N={shape['n']} D={shape['d']} V={shape['v']}, {case['dtype']}", *(COLUMNS[key] for key in keys)])]
    lines.append(_row(["---"] + ["--:"] * len(keys)))
    for name, entry in entries.items():
        shown = f"**{name}**" if name.startswith("lossk") else name
        lines.append(_row([shown, *(cell(entry, key) for key in keys)]))
    known = {key: value for key, value in case.items() if isinstance(value, (int, float))}
    facts = [f"- {key.replace('_', ' ')}: {value:,}" for key, value in known.items()]
    return "\n".join(lines) + ("\n\n" + "\n".join(facts) if facts else "")


def gpu_section(path: Path) -> str:
    """The rows of one family: of contenders at several shapes a column for each, else a column for each key."""
    result = json.loads(path.read_text())
    machine, rows = result["machine"], result["rows"]
    head = (
        f"`{result['family']}`: {machine['gpu']}, driver {machine['driver']}, CUDA {machine['cuda']}, "
        f"torch {machine['torch']}, {machine['date']}, {machine['commit'][:10]}."
    )
    if any("times_matmul" in row for row in rows):
        return f"{head} Milliseconds, and in units of the matmul of the same rounds.\n\n{contender_table(rows)}"
    keys = list(dict.fromkeys(key for row in rows for key in row))
    lines = [
        head + "\n",
        _row([key.replace("_", " ") for key in keys]),
        _row(["---" if isinstance(rows[0].get(key, 0), str) else "--:" for key in keys]),
    ]
    return "\n".join(lines + [_row([str(row.get(key, "")) for key in keys]) for row in rows])


def contender_table(rows: list[dict]) -> str:
    """A row per contender and a column per shape and inputs, each shape's memory, and below what was filtered away."""
    place = lambda row: (row["shape"], row.get("inputs", ""))  # noqa: E731
    places, names = (list(dict.fromkeys(map(key, rows))) for key in (place, lambda row: row["name"]))
    at = {(row["name"], *place(row)): row for row in rows}
    remembered = [
        s for s in dict.fromkeys(s for s, _ in places) if any("peak_mib" in r for r in rows if r["shape"] == s)
    ]

    def cell(name: str, shape: str, inputs: str) -> str:
        row = at.get((name, shape, inputs), {})
        return f"{row['ms']:.1f} ({row['times_matmul']:.2f})" if "ms" in row else "–"

    def peak(name: str, shape: str) -> str:
        known = [row["peak_mib"] for row in rows if (row["name"], row["shape"]) == (name, shape) and "peak_mib" in row]
        return f"{max(known):.0f}" if known else "–"

    columns = ["ms (matmul times)", *(" ".join(filter(None, p)) for p in places), *(f"MiB, {s}" for s in remembered)]
    lines = [_row(columns), _row(["---"] + ["--:"] * (len(columns) - 1))]
    for name in names:
        if any("ms" in row for row in rows if row["name"] == name):
            cells = [*(cell(name, *p) for p in places), *(peak(name, s) for s in remembered)]
            lines.append(_row([f"**{name}**" if name.startswith("lossk") else name, *cells]))
    facts = [
        f"- {row['name']}, {' '.join(filter(None, place(row)))}: {100 * row['live_share']:.1f} % of the columns "
        f"visited (goal {row['goal_times_matmul']:.2f}); error of d input {100 * row['input_grad_error']:.2g} %, of d "
        f"weight {100 * row['weight_grad_error']:.2g} %."
        for row in rows
        if "live_share" in row
    ]
    failed = {row["name"]: row["failed"] for row in rows if "failed" in row}
    facts += [f"- Not measured here: {name} ({reason})." for name, reason in failed.items()]
    return "\n".join(lines) + ("\n\n" + "\n".join(facts) if facts else "")


def section(path: Path) -> str:
    """All tables of one result file."""
    result = json.loads(path.read_text())
    cases = [b["extra_info"] for b in result["benchmarks"]]
    if not cases:
        raise SystemExit(f"{path}: no cases; did the measurement fail?")
    if "mode" not in cases[0]:
        return "\n\n".join([on_machine(result["machine_info"]) + ".", *(group_table(case) for case in cases)])
    parts = [caption(result["machine_info"], cases)]
    parts += [mode_table([c for c in cases if c["mode"] == m]) for m in dict.fromkeys(c["mode"] for c in cases)]
    parts += live_facts(cases)
    labels = {name: entry["label"] for c in cases for name, entry in c["providers"].items()}
    notes = {labels.get(name, name): note for c in cases for name, note in c["notes"].items()}
    parts += [f"Not measured here: {label} ({note})." for label, note in notes.items()]
    return "\n\n".join(parts)


def fill(text: str, family: str, content: str) -> str:
    """`text` with `content` between the markers of `family`."""
    begin, end = f"<!-- bench:{family}:begin -->", f"<!-- bench:{family}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise SystemExit(f"README needs one line {begin} and after it one line {end}, to hold the {family} results")
    return text[: text.index(begin) + len(begin)] + f"\n\n{content}\n\n" + text[text.index(end) :]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.table", description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 where the tables are behind")
    parser.add_argument("--readme", type=Path, default=BENCH.parent / "README.md")
    parser.add_argument("--results", type=Path, default=BENCH / "results")
    args = parser.parse_args(argv)

    sections: dict[str, list[str]] = {}
    for path in sorted(args.results.glob("*/*.json")):
        result = json.loads(path.read_text())
        if "benchmarks" in result:
            sections.setdefault(path.stem, []).append(section(path))
        elif "rows" in result:
            sections.setdefault("gpu", []).append(gpu_section(path))
    if not sections:
        raise SystemExit(f"no results under {args.results}")
    old = new = args.readme.read_text()
    for family, parts in sections.items():
        new = fill(new, family, "\n\n".join(parts))
    if args.check:
        if new != old:
            print(f"{args.readme.name} is behind bench/results: run python -m bench.table", file=sys.stderr)
        return int(new != old)
    args.readme.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
