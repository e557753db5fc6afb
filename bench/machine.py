"""What a measurement depends on, without anything that names the machine or its user."""

import os
import platform
from pathlib import Path

import torch


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def machine_info() -> dict:
    """CPU, threads and versions; `kernels` is what lossk's build says about this CPU."""
    import lossk

    return {
        "cpu": _cpu_model(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "kernels": lossk.build_info()["cpu"],
        "lossk": lossk.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
