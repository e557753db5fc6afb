"""lossk: losses without logits. Fused vocabulary heads for PyTorch; see lossk.linear_cross_entropy."""

from . import losses, nn, policy, tokens
from ._library import build_info
from ._live import LiveReport, live_report
from .head import linear_cross_entropy
from .stats import LogP, Metrics, Stats, linear_logp, linear_metrics, linear_stats

__version__ = build_info()["version"]

__all__ = [
    "LiveReport",
    "LogP",
    "Metrics",
    "Stats",
    "build_info",
    "linear_cross_entropy",
    "linear_logp",
    "linear_metrics",
    "linear_stats",
    "live_report",
    "losses",
    "nn",
    "policy",
    "tokens",
]
