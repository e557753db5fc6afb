"""lossk: losses without logits. Fused vocabulary heads for PyTorch; see lossk.linear_cross_entropy."""

import torch  # first: lossk._C needs libtorch_cpu.so to be loaded

from . import _library
from . import _head_ops  # noqa: F401  registers fakes and gradients
from . import nn
from .head import LogP, Stats, linear_cross_entropy, linear_logp, linear_stats

__version__ = _library.build_info()["version"]
build_info = _library.build_info

__all__ = [
    "LogP",
    "Stats",
    "build_info",
    "linear_cross_entropy",
    "linear_logp",
    "linear_stats",
    "nn",
]
del torch
