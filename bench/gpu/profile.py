"""`python -m bench.gpu.profile [SHAPE [N [CALL]]]`: where the time of a head's forward and backward goes, by kernel.

With a call, recompute, kept, live or all_live, that one alone, once and not profiled: for ncu.
"""

import sys
import time
from collections import defaultdict
from collections.abc import Callable

import lossk
import torch
from torch.profiler import ProfilerActivity, profile

from bench import problems
from bench.gpu.families import keeping
from bench.shapes import SHAPES


def calls(p: problems.Problem) -> dict[str, Callable[[], object]]:
    def gradients(**options: object) -> object:
        return torch.autograd.grad(lossk.linear_cross_entropy(*p[:3], **options), p[:2])

    every = {
        "recompute": gradients,
        "live": lambda: gradients(tau=2.0**-8),
        "all_live": lambda: gradients(tau=2.0**-40),
    }
    # An older library, to compare with, may not have it.
    return every | ({"kept": keeping(gradients)} if hasattr(lossk, "keep_logits") else {})


def kernels_of(run: Callable[[], object], repeat: int = 3) -> None:
    """Each kernel's launches and milliseconds, and what is between them, of one run; and a run's time without the
    profiler, which slows the host down."""
    run()
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(repeat):
        run()
    torch.cuda.synchronize()
    alone = (time.perf_counter() - started) * 1e3 / repeat
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as recorded:
        for _ in range(repeat):
            run()
        torch.cuda.synchronize()
    times, counts = defaultdict(float), defaultdict(int)
    events = [e for e in recorded.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    for event in events:
        times[event.name] += event.time_range.elapsed_us() / 1e3 / repeat
        counts[event.name] += 1
    whole = (max(e.time_range.end for e in events) - min(e.time_range.start for e in events)) / 1e3 / repeat
    kernels = f"{sum(times.values()):.3f} in kernels, {len(events) // repeat} launches"
    print(f"{alone:9.3f} ms a run; {whole:.3f} under the profiler, {kernels}")
    for name in sorted(times, key=times.get, reverse=True)[:12]:
        print(f"{times[name]:9.3f} ms {counts[name] // repeat:5} x  {name[:150]}")


def main(shape: str = "reference", n: str = "", only: str = "") -> None:
    made = problems.make(SHAPES[shape]._replace(n=int(n or SHAPES[shape].n)), torch.bfloat16, "peaked", device="cuda")
    for name, run in calls(made).items():
        if name == only:
            run()
            torch.cuda.synchronize()
        elif not only:
            print(name)
            kernels_of(run)


if __name__ == "__main__":
    main(*sys.argv[1:])
