"""The most memory a head holds at once, in bytes, beside its inputs h and w; the gradients dh and dw count."""

import ctypes
import gc
import json
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

WARM_UP_ROWS = 8


def head_peak_bytes(head: Callable[[Tensor, Tensor, Tensor], Tensor], h: Tensor, w: Tensor, y: Tensor) -> int:
    """Peak of one forward and backward of `head`, alone.

    CUDA: the allocator's own peak. CPU: measured twice, and the larger taken: torch's profiler sees every tensor but
    not what a kernel allocates by itself; the process's resident high-water mark (Linux) sees that, but not memory
    which the process already had and does not give back.
    """
    h, w = h.detach().requires_grad_(), w.detach().requires_grad_()

    def call(rows: int) -> None:
        head(h[:rows], w, y[:rows]).backward()
        h.grad = w.grad = None  # after, not before: what one call leaves must not be the next one's start
        gc.collect()

    call(WARM_UP_ROWS)  # thread pools, code and workspaces that stay are not the batch's
    if h.is_cuda:
        before = torch.cuda.memory_allocated(h.device)
        torch.cuda.reset_peak_memory_stats(h.device)
        call(len(h))
        return torch.cuda.max_memory_allocated(h.device) - before
    return max(_resident_peak(lambda: call(len(h))), _tensor_peak(lambda: call(len(h))))


def _resident_peak(call: Callable[[], None]) -> int:
    status = Path("/proc/self/status")
    # What the allocator holds unused (glibc's) must go back first: from there a call would take without a rise.
    getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark back to what is resident now
        before = _kibibytes(status, "VmRSS")
    except (OSError, ValueError):
        return 0
    call()
    return (_kibibytes(status, "VmHWM") - before) * 1024


def _kibibytes(status: Path, key: str) -> int:
    found = re.search(rf"^{key}:\s*(\d+) kB$", status.read_text(), re.MULTILINE)
    if not found:
        raise ValueError(key)
    return int(found[1])


def _tensor_peak(call: Callable[[], None]) -> int:
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler greets on stderr otherwise
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        call()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        trace.export_chrome_trace(str(path))
        events = json.loads(path.read_text(errors="replace"))["traceEvents"]
    held = peak = 0
    for event in sorted((e for e in events if e.get("name") == "[memory]"), key=lambda e: e["ts"]):
        held += int(event["args"]["Bytes"])
        peak = max(peak, held)
    return peak
