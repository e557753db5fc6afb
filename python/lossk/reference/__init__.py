"""Every formula of lossk once, in plain torch: what the kernels must equal, with the logits in memory."""

from . import elementwise, live, losses
from .divergence import linear_divergence
from .harmonic import harmonic_logits, harmonic_loss
from .head import LogP, Stats, linear_cross_entropy, linear_logp, linear_stats, logits

__all__ = [
    "LogP",
    "Stats",
    "elementwise",
    "harmonic_logits",
    "harmonic_loss",
    "linear_cross_entropy",
    "linear_divergence",
    "linear_logp",
    "linear_stats",
    "live",
    "logits",
    "losses",
]
