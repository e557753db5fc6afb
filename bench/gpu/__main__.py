"""`python -m bench.gpu check|bench|peers`: no environment of its own, no downloads; `--only` runs a part."""

import argparse
import importlib.util
import math
import signal
import sys
import threading

from bench.gpu.check import PARTS, run_check
from bench.gpu.peers import download

MISSING = "has no torch: name a Python that has it, as in make gpu-check PYTHON=.venv/bin/python"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="device tests, package, tests and sanitizers")
    check.add_argument("--part", choices=PARTS, help="ten minutes at most; device, which builds the tests, first")
    check.add_argument(
        "--only", action="append", metavar="STEP", help="the step of this name, or those with this in it; repeatable"
    )
    bench = commands.add_parser("bench", help="every family of benches, into bench/results")
    bench.add_argument("--only", action="append", metavar="FAMILY", help="this family; repeatable")
    bench.add_argument("--minutes", type=float, default=math.inf, help="begin no case or family after so many")
    bench.add_argument("--commit", help="what is measured, where git is not there to ask")
    peers = commands.add_parser("peers", help="the peers' wheels into build/peers, for a machine without a network")
    peers.add_argument("--python", default="3.12", help="the version of Python there")
    args = parser.parse_args(argv)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the children of a step end with it
    if args.command == "peers":
        download(args.python)
        return 0
    if importlib.util.find_spec("torch") is None:
        raise SystemExit(f"{sys.executable} {MISSING}")
    if args.command == "check":
        return run_check(args.only, args.part)
    from bench.gpu.record import run_bench

    return run_bench(args.only, args.commit, args.minutes)


if __name__ == "__main__":
    sys.exit(main())
