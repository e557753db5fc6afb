"""Steps, each with its time limit and its log; one that fails does not stop the others."""

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

LAST_LINES = 15  # of a failed step's log


class Step(NamedTuple):
    name: str
    commands: list[list[str]]  # one after the other, until one fails
    limit: int  # seconds, for all of them
    part: str = ""
    expects: str = ""  # in the log: a program that finds nothing to do succeeds too
    needs: str = ""  # a step without which this one would run something stale
    environment: Mapping[str, str] = {}


class Outcome(NamedTuple):
    name: str
    result: str  # "ok", or why not
    seconds: float

    @property
    def ok(self) -> bool:
        return self.result == "ok"


def log_file(folder: Path, name: str) -> Path:
    return folder / f"{name.replace(' ', '-')}.log"


def run_command(command: list[str], log: Path, limit: float, environment: Mapping[str, str], cwd: Path) -> str:
    """Appends the command and what it prints to `log`; "ok", or why not."""
    with log.open("a") as out:
        print("$", *command, file=out, flush=True)
        try:  # a session of its own, so that its children end with it
            child = subprocess.Popen(
                command, stdout=out, stderr=subprocess.STDOUT, env=environment, cwd=cwd, start_new_session=True
            )
        except OSError as error:
            print(error, file=out)
            return f"cannot run {Path(command[0]).name}"
        try:
            status = child.wait(timeout=max(limit, 0))
        except subprocess.TimeoutExpired:
            return "over its time"
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
    return "ok" if status == 0 else f"exit status {status}"


def run_step(step: Step, folder: Path, cwd: Path) -> Outcome:
    folder.mkdir(parents=True, exist_ok=True)
    log = log_file(folder, step.name)
    log.unlink(missing_ok=True)
    start, result = time.monotonic(), "ok"
    for command in step.commands:
        left = step.limit - (time.monotonic() - start)
        result = run_command(command, log, left, {**os.environ, **step.environment}, cwd)
        if result != "ok":
            break
    if result == "ok" and step.expects not in log.read_text(errors="replace"):
        result = f"does not say {step.expects!r}"
    return Outcome(step.name, result, time.monotonic() - start)


def run_steps(steps: Iterable[Step], folder: Path, cwd: Path) -> list[Outcome]:
    """All of them, with the end of the log of each that failed."""
    outcomes: dict[str, Outcome] = {}
    for step in steps:
        before = outcomes.get(step.needs)
        if before is not None and not before.ok:
            outcomes[step.name] = Outcome(step.name, f"not run without {step.needs}", 0)
            continue
        print(f"{step.name} ...", flush=True)
        outcomes[step.name] = outcome = run_step(step, folder, cwd)
        if not outcome.ok:
            log = log_file(folder, step.name)
            last = log.read_text(errors="replace").splitlines()[-LAST_LINES:]
            print(f"{outcome.result}; the end of {log.name}:", *(f"  {line}" for line in last), sep="\n", flush=True)
    return list(outcomes.values())


def summary(outcomes: list[Outcome]) -> str:
    width = max([len("step"), *(len(o.name) for o in outcomes)])
    rows = [("step", "result", "seconds"), *((o.name, o.result, f"{o.seconds:.1f}") for o in outcomes)]
    other = max(len(result) for _, result, _ in rows)
    return "\n".join(f"{name:{width}}  {result:{other}}  {seconds:>7}" for name, result, seconds in rows)
