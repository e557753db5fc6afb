"""lossk: losses without logits. Fused vocabulary heads for PyTorch; see lossk.linear_cross_entropy."""

from . import harmonic, losses, nn, policy, tokens
from ._keep import keep_logits
from ._library import build_info
from ._live import LiveReport, live_report
from .divergence import linear_divergence
from .head import linear_cross_entropy
from .largest import Range, Sample, TopK, linear_range, linear_rank, linear_sample, linear_topk
from .pairwise import linear_pairwise
from .stats import LogP, Metrics, Stats, linear_logp, linear_metrics, linear_stats

__version__ = build_info()["version"]

__all__ = [
    "LiveReport",
    "LogP",
    "Metrics",
    "Range",
    "Sample",
    "Stats",
    "TopK",
    "build_info",
    "harmonic",
    "keep_logits",
    "linear_cross_entropy",
    "linear_divergence",
    "linear_logp",
    "linear_metrics",
    "linear_pairwise",
    "linear_range",
    "linear_rank",
    "linear_sample",
    "linear_stats",
    "linear_topk",
    "live_report",
    "losses",
    "nn",
    "policy",
    "tokens",
]
