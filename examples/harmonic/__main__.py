"""`python -m examples.harmonic [digits] [modular] [lm] [report]`: the experiments named, or all in this order."""

import argparse
import json
import os
import time
from datetime import date
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: spinning threads starve such small steps

from bench.machine import machine_info

from . import digits, lm, modular, plot
from .report import report

STAGES = ("digits", "modular", "lm", "report")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.harmonic", description=__doc__)
    parser.add_argument("stages", nargs="*", metavar="stage", help=" | ".join(STAGES))
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent, help="of results, pictures and README.md")
    parser.add_argument("--images", type=int, default=5000, help="digits: to train on")
    parser.add_argument("--epochs", type=int, default=30, help="digits")
    parser.add_argument("--modular-steps", type=int, default=3000, help="modular")
    parser.add_argument("--seeds", type=int, default=5, help="modular: 0, 1, ...")
    parser.add_argument("--megabytes", type=float, default=3.0, help="lm: of Python's standard library to read")
    parser.add_argument("--vocab", type=int, default=4096, help="lm: entries of the vocabulary")
    parser.add_argument("--lm-steps", type=int, default=200, help="lm")
    args = parser.parse_args(argv)
    if unknown := set(args.stages) - set(STAGES):
        parser.error(f"no such stage: {', '.join(sorted(unknown))}")

    def drawn_digits():
        facts, pictures = digits.run(images=args.images, epochs=args.epochs)
        plot.digits(pictures, facts, args.folder / "digits.png")
        return facts

    work = {
        "digits": drawn_digits,
        "modular": lambda: modular.run(steps=args.modular_steps, seeds=args.seeds),
        "lm": lambda: lm.run(megabytes=args.megabytes, vocab=args.vocab, steps=args.lm_steps),
    }
    path = args.folder / "results.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for stage in STAGES:
        if stage in work and stage in (args.stages or STAGES):
            begin = time.perf_counter()
            found = work[stage]()
            about = {"date": date.today().isoformat(), "machine": machine_info()}
            results[stage] = about | {"seconds": time.perf_counter() - begin} | found
            results = {name: results[name] for name in STAGES if name in results}  # in order, whatever ran first
            path.write_text(json.dumps(results, indent=1) + "\n")
    if "report" in (args.stages or STAGES):
        report(results, args.folder)


if __name__ == "__main__":
    main()
