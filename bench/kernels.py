"""CUDA kernels that no op calls yet, from Python: on a GPU's tensors, or on a CPU's through the emulator."""

import ctypes
import functools
import os
import subprocess
from typing import NamedTuple

import torch
from torch import Tensor

from bench.gpu.check import DEVICE_TESTS, ROOT, architecture, search_path

BUILD = {"cpu": ROOT / "build" / "emulator", "cuda": DEVICE_TESTS}
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


class LseParams(ctypes.Structure):  # cuda/head/lse/params.h
    _fields_ = [(name, ctypes.c_void_p) for name in ("input", "weight", "target", "partial", "lse", "target_logit")]
    _fields_ += [(name, ctypes.c_int) for name in ("n", "v", "d", "segment")]


class CceBackwardParams(ctypes.Structure):  # cuda/head/cce/params.h
    _fields_ = [
        (name, ctypes.c_void_p)
        for name in ["input", "weight", "target", "lse", "coef", "dlogits", "input_sum", "grad_input", "grad_weight"]
    ]
    _fields_ += [(name, ctypes.c_int) for name in ("n", "v", "d", "chunk")]


def paths(device: str) -> list[str]:
    """The kernels' ways of multiplying that this device has; the emulator has all."""
    has_wgmma = device == "cpu" or torch.cuda.get_device_capability()[0] == 9
    return ["mma_sync", "wgmma"] if has_wgmma else ["mma_sync"]


@functools.cache
def library(device: str) -> ctypes.CDLL:
    """Built at its first use, and again where a source has changed."""
    build = BUILD[device]
    configure = ["cmake", "-G", "Ninja", "-S", ROOT / "tests" / "device", "-B", build, "-DCMAKE_BUILD_TYPE=None"]
    if device == "cuda":
        configure.append(f"-DLOSSK_GPU={architecture(torch.cuda.get_device_capability())}")
    commands = [configure] * (not (build / "build.ninja").exists())
    for command in [*commands, ["cmake", "--build", build, "--target", "lossk_kernels"]]:
        ran = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"PATH": search_path()},
        )
        if ran.returncode:
            raise RuntimeError(f"cannot build the kernels:\n{ran.stdout[-4000:]}")
    return ctypes.CDLL(str(build / "liblossk_kernels.so"))


def _run(name: str, params: ctypes.Structure, like: Tensor, schedule: Schedule) -> None:
    kernels, device = library(like.device.type), like.device
    if device.type == "cpu":
        kernels.lossk_schedule(ctypes.c_ulonglong(schedule.seed), *schedule[1:])
    stream = torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else None
    problem = ctypes.create_string_buffer(4096)
    if kernels[name](
        ctypes.byref(params), ELEMENTS[like.dtype], ctypes.c_void_p(stream), problem, ctypes.c_size_t(len(problem))
    ):
        raise RuntimeError(problem.value.decode())


def lse(path: str, input: Tensor, weight: Tensor, target: Tensor, *, segment=4096, schedule=SCHEDULES[0]):
    """(lse [N], target_logit [N]) of input [N, D], weight [V, D] in bfloat16 or float16, by cuda/head/lse."""
    (n, d), v = input.shape, weight.shape[0]
    partial = torch.full((-(-v // segment), 2, n, 2), torch.nan, device=input.device)
    lse, target_logit = torch.full((2, n), torch.nan, device=input.device)
    pointers = [x.data_ptr() for x in (input, weight, target, partial, lse, target_logit)]
    _run(f"lossk_lse_{path}", LseParams(*pointers, n, v, d, segment), input, schedule)
    return lse, target_logit


def cce_backward(
    path: str,
    input: Tensor,
    weight: Tensor,
    target: Tensor,
    lse: Tensor,
    coef: Tensor,
    *,
    chunk=4096,
    schedule=SCHEDULES[0],
):
    """(d input [N, D], d weight [V, D]) of sum_i coef_i (lse_i - z_i,target_i), by cuda/head/cce."""
    (n, d), v = input.shape, weight.shape[0]
    dlogits = torch.full((n, chunk), torch.nan, device=input.device, dtype=input.dtype)
    total = torch.full((n, d), torch.nan, device=input.device)
    grads = torch.full_like(input, torch.nan), torch.full_like(weight, torch.nan)
    pointers = [x.data_ptr() for x in (input, weight, target, lse, coef, dlogits, total, *grads)]
    _run(f"lossk_cce_backward_{path}", CceBackwardParams(*pointers, n, v, d, chunk), input, schedule)
    return grads
