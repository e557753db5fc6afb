"""`python -m examples.live_columns [train] [measure] [compare] [report]`: the stages named, or all in this order."""

import argparse
import json
from datetime import date
from pathlib import Path

from bench.machine import machine_info

from . import lm
from .compare import compare
from .measure import measure
from .report import report

STAGES = ("train", "measure", "compare", "report")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.live_columns", description=__doc__)
    parser.add_argument("stages", nargs="*", metavar="stage", help=" | ".join(STAGES))
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent, help="of results, picture and README.md")
    parser.add_argument("--megabytes", type=float, default=10.0, help="of Python's standard library to read")
    parser.add_argument("--vocab", type=int, default=32768, help="train: entries of the vocabulary")
    parser.add_argument("--seed", type=int, default=0, help="train: for weights, batches and drawn targets")
    parser.add_argument("--steps", type=int, default=2000, help="train: of 2048 tokens")
    parser.add_argument("--rounds", type=int, default=5, help="measure: of interleaved timing")
    parser.add_argument("--compare-steps", type=int, default=500, help="compare: of 1024 tokens")
    parser.add_argument("--seeds", type=int, default=3, help="compare: 0, 1, ...")
    args = parser.parse_args(argv)
    if unknown := set(args.stages) - set(STAGES):
        parser.error(f"no such stage: {', '.join(sorted(unknown))}")

    cache, path = args.folder / ".cache", args.folder / "results.json"
    work = {
        "train": lambda: lm.train(cache, args.megabytes, args.vocab, args.steps, args.seed),
        "measure": lambda: measure(cache, args.rounds),
        "compare": lambda: compare(args.megabytes, args.compare_steps, args.seeds),
    }
    results = json.loads(path.read_text()) if path.exists() else {}
    for stage in STAGES:
        if stage in work and stage in (args.stages or STAGES):
            results[stage] = {"date": date.today().isoformat(), "machine": machine_info()} | work[stage]()
            path.write_text(json.dumps(results, indent=1) + "\n")
    if "report" in (args.stages or STAGES):
        report(results, args.folder)


if __name__ == "__main__":
    main()
