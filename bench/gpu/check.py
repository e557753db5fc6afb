"""Everything that needs a GPU to be checked; where there is none, what can be checked without."""

import importlib.util
import os
import sys
from pathlib import Path

from bench.gpu.steps import Step, run_steps, summary

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "gpu"
DEVICE_TESTS, PACKAGE, SITE = FOLDER / "device", FOLDER / "package", FOLDER / "site"
PROGRAMS = ("conformance", "kernels")
SANITIZERS = ("memcheck", "initcheck", "racecheck", "synccheck")
WORKERS = 8  # of pytest, where it knows of them: most of a test's time is Python's
NO_DEVICE = "no CUDA device"
BUILD_TESTS, BUILD_PACKAGE = "build device tests", "build package"
PARTS = ("device", "package", "memory", "races")
# racecheck sees neither that an mbarrier orders a plain bulk copy before the loads that follow, nor barrier.arrive.
UNSEEN = ("Ring", "fence_mbarrier_init", "bulk_load", "barrier_arrive")
NO_HAZARDS = {("racecheck", "conformance"): [word for test in UNSEEN for word in ("--except", test)]}


def architecture(capability: tuple[int, int]) -> str:
    """What to compile for. Code for 8.0 runs on every 8.x; Hopper's own instructions need the a."""
    major, minor = capability
    return {8: "80", 9: "90a"}.get(major, f"{major}{minor}")


def search_path() -> str:
    """Programs of the Python that runs this first, cmake and ninja above all: its folder may not be on the path."""
    cuda = "/usr/local/cuda/bin"  # where it mostly is, last
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath), cuda])


def build_tests(arch: str) -> Step:
    folder = str(DEVICE_TESTS)
    configure = ["cmake", "-S", "tests/device", "-B", folder, "-G", "Ninja", f"-DLOSSK_GPU={arch}"]
    configure.append("-DCMAKE_BUILD_TYPE=Release")  # the loops that kernels are compared with take longer than they
    return Step(BUILD_TESTS, [configure, ["cmake", "--build", folder]], 300, "device")


def build_package(arch: str, list_rows: int | None = None) -> Step:
    """Into SITE, against the torch that runs this; or, with lists of live columns for so many rows, beside it."""
    suffix = f"-{list_rows}" if list_rows else ""
    install = [sys.executable, "-m", "pip", "install", "--verbose", "--no-build-isolation", "--no-deps", "--no-index"]
    install += ["--no-compile", "--upgrade", "--target", f"{SITE}{suffix}", f"-Cbuild-dir={PACKAGE}{suffix}"]
    if list_rows:
        install += [f"-Ccmake.define.CMAKE_{of}_FLAGS=-DLOSSK_LIST_ROWS={list_rows}" for of in ("CUDA", "CXX")]
    install += ["-Ccmake.define.LOSSK_CUDA=ON", f"-Ccmake.define.LOSSK_SM={arch.rstrip('a')}", "."]
    return Step(f"{BUILD_PACKAGE}{suffix}", [install], 240, "package")


def pytest(device: str, *arguments: str) -> list[str]:
    command = [sys.executable, "-m", "pytest", "-m", "not slow", f"--device={device}", "-q", *arguments]
    if importlib.util.find_spec("torch_abi_audit") is None:  # a GPU does not change the ABI: audited elsewhere
        command.append("--ignore=tests/test_build.py")
    if importlib.util.find_spec("xdist") is not None:
        command += ["-n", str(WORKERS)]
    return command


def sanitize(tool: str, program: str, *arguments: str) -> Step:
    command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "1", str(DEVICE_TESTS / program), *arguments]
    seeds = {"LOSSK_SEEDS": "1"}  # each kernel takes tens of times as long
    part = "memory" if tool in ("memcheck", "initcheck") else "races"
    return Step(f"{tool} {program}", [command], 140, part, " 0 failed", BUILD_TESTS, seeds)


def steps_with(capability: tuple[int, int]) -> list[Step]:
    """On a GPU of this compute capability. The steps of a part take ten minutes at most."""
    arch = architecture(capability)
    steps = [build_tests(arch)]
    for name in PROGRAMS:
        steps.append(Step(name, [[str(DEVICE_TESTS / name)]], 120, "device", " 0 failed", BUILD_TESTS))
    steps.append(build_package(arch))
    built = {"needs": BUILD_PACKAGE, "environment": {"PYTHONPATH": str(SITE)}}
    steps.append(Step("pytest package", [pytest("cuda")], 360, "package", **built))
    steps += [sanitize(tool, name, *NO_HAZARDS.get((tool, name), [])) for tool in SANITIZERS for name in PROGRAMS]
    return steps


def steps_without() -> list[Step]:
    """Without a GPU: the programs compile, load and notice; the tests are found."""
    run = [Step(name, [[str(DEVICE_TESTS / name)]], 60, expects=NO_DEVICE, needs=BUILD_TESTS) for name in PROGRAMS]
    return [build_tests("90a"), *run, Step("collect tests", [pytest("cuda", "--collect-only")], limit=120)]


def select(steps: list[Step], only: list[str] | None, part: str | None = None) -> list[Step]:
    """Those of the part, and of them those named, or with the words in their names."""
    steps = [step for step in steps if part in (None, step.part)]
    named = [step for step in steps if step.name in (only or ())]
    return named or [step for step in steps if not only or any(word in step.name for word in only)]


def run_check(only: list[str] | None = None, part: str | None = None) -> int:
    import torch

    os.environ["PATH"] = search_path()
    there = torch.cuda.is_available()
    steps = steps_with(torch.cuda.get_device_capability()) if there else steps_without()
    outcomes = run_steps(select(steps, only, part if there else None), FOLDER, ROOT)
    print("\n" + summary(outcomes))
    if not there:
        unseen = {step.name for step in select(steps_with((9, 0)), only, part)} - {BUILD_TESTS}
        print(f"{NO_DEVICE}: {len(unseen)} steps not run")
    return int(not outcomes or not all(outcome.ok for outcome in outcomes))
