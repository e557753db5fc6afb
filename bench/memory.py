"""Peak memory of a call on a CPU, beside all that was there before it. Linux only.

The kernel keeps the high-water mark of a process's resident memory (VmHWM) and lowers it to the present value when
"5" is written to /proc/self/clear_refs. That sees torch's allocator and every malloc or mmap of an extension alike,
which torch's own memory events do not. Memory a program asked for and never touched does not count.
"""

import ctypes
import gc
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

MIB = 2**20


def _status_kib(*names: str) -> list[int]:
    """Fields of /proc/self/status, in KiB."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return [int(lines[name].split()[0]) for name in names]


def _return_free_memory() -> None:
    """Give what the allocator holds unused back to the system: reusing it would hide it from the high-water mark."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
    if trim is not None:
        trim(0)


def peak_mib(run: Callable[[], object]) -> float:
    """MiB by which resident memory rises at most while `run` runs, code pages read in meanwhile not counted."""
    _return_free_memory()
    Path("/proc/self/clear_refs").write_text("5")
    before, file_before = _status_kib("VmRSS", "RssFile")
    run()
    high, file_after = _status_kib("VmHWM", "RssFile")
    return (high - before - max(0, file_after - file_before)) * 1024 / MIB


def in_child(function: Callable, *args):
    """`function(*args)` in a fresh process: nothing that ran here before has left memory to reuse there."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()
