"""The ops' CUDA kernels in the emulator, in place of the CPU's: pytest --device=emulator."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "emulator"


LIBRARY = "lossk_emulated"
replaced = False  # have the kernels been?


def build() -> Path:
    library = BUILD / f"lib{LIBRARY}.so"
    if "PYTEST_XDIST_WORKER" in os.environ:  # the process that started this one has built it
        return library
    environment = os.environ | {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    configure = ["cmake", "-G", "Ninja", "-S", ROOT / "tests" / "device", "-B", BUILD, "-DCMAKE_BUILD_TYPE=None"]
    for command in ([*configure, f"-DPython_EXECUTABLE={sys.executable}"], ["cmake", "--build", BUILD, "-t", LIBRARY]):
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode:
            raise RuntimeError(f"cannot build the emulated kernels:\n{done.stdout[-4000:]}{done.stderr[-2000:]}")
    return library


def replace_cpu_kernels() -> None:
    """LOSSK_KERNELS=mma_sync: those for any GPU, where Hopper's would run."""
    import lossk  # noqa: F401  # the schemas first

    global replaced
    library = build()
    torch.ops.load_library(library)
    ctypes.CDLL(str(library)).lossk_emulate()
    replaced = True
