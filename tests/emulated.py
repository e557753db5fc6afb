"""CUDA kernels on a CPU, through the emulator, with torch's CPU tensors: for small shapes."""

import ctypes
import functools
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "emulator"
ELEMENTS = {torch.bfloat16: 0, torch.float16: 1}  # cuda/device/platform.h: Element


class Schedule(NamedTuple):
    """cuda/emulator/emulator.h: Schedule. Orders: fifo, lifo, random, priority. Timings: early, late, mixed."""

    seed: int = 1
    order: int = 0
    timing: int = 0
    resident: int = 1
    multiprocessors: int = 3
    skew: int = 0


SCHEDULES = [Schedule(), Schedule(1, 1, 1, 2, 2, 16), Schedule(2, 2, 2, 3, 4, 32), Schedule(3, 3, 1, 2, 1, 48)]


class _LseParams(ctypes.Structure):  # cuda/head/lse/params.h: LseParams
    _fields_ = [(name, ctypes.c_void_p) for name in ("input", "weight", "target", "partial", "lse", "target_logit")]
    _fields_ += [(name, ctypes.c_int) for name in ("n", "v", "d", "segment")]


@functools.cache
def library() -> ctypes.CDLL:
    """Built at its first use, and again where a source has changed."""
    cmake = shutil.which("cmake") or "cmake"
    if not (BUILD / "build.ninja").exists():
        subprocess.run(
            [cmake, "-G", "Ninja", "-S", ROOT / "tests" / "device", "-B", BUILD, "-DCMAKE_BUILD_TYPE=None"],
            check=True,
            capture_output=True,
        )
    subprocess.run([cmake, "--build", BUILD, "--target", "lossk_emulated"], check=True, capture_output=True)
    return ctypes.CDLL(str(BUILD / "liblossk_emulated.so"))


def lse(input: Tensor, weight: Tensor, target: Tensor, *, hopper: bool, segment: int, schedule: Schedule):
    """(lse [N], target_logit [N]) of input [N, D], weight [V, D] in bfloat16 or float16, by cuda/head/lse."""
    (n, d), v = input.shape, weight.shape[0]
    partial = torch.full((-(-v // segment), n, 2), torch.nan)
    lse, target_logit = torch.full((2, n), torch.nan)
    pointers = [x.data_ptr() for x in (input, weight, target, partial, lse, target_logit)]
    params = _LseParams(*pointers, n, v, d, segment)
    problem = ctypes.create_string_buffer(4096)
    library().lossk_emulated_schedule(ctypes.c_ulonglong(schedule.seed), *schedule[1:])
    if library().lossk_emulated_lse(
        hopper, ELEMENTS[input.dtype], ctypes.byref(params), problem, ctypes.c_size_t(len(problem))
    ):
        raise RuntimeError(problem.value.decode())
    return lse, target_logit
