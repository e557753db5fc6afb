"""The most vector instructions this machine does: what kernels without products are measured against."""

import ctypes
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import torch


def float_additions(seconds: float = 0.3) -> float:
    """Float additions a second of as many threads as torch has: two vector instructions a clock on most cores."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "peak.so"
        source = Path(__file__).with_name("vector_peak.cpp")
        subprocess.run(["g++", "-O3", "-march=native", "-shared", "-fPIC", source, "-o", library], check=True)
        add = ctypes.CDLL(str(library)).add
    add.restype, add.argtypes = ctypes.c_int64, [ctypes.c_int64, ctypes.POINTER(ctypes.c_float)]

    rounds, threads = int(seconds * 3e8), torch.get_num_threads()
    best = 0.0
    for _ in range(3):  # the first wakes the clock up
        done = [0] * threads
        out = (ctypes.c_float * threads)()

        def work(k, done=done, out=out):
            done[k] = add(rounds, ctypes.pointer(ctypes.c_float.from_buffer(out, 4 * k)))

        workers = [threading.Thread(target=work, args=(k,)) for k in range(threads)]
        start = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        best = max(best, sum(done) / (time.perf_counter() - start))
    return best
