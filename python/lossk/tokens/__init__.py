"""Which tokens a loss should look at, and how much: masks and weights from targets, losses and statistics.

All without gradient. Per token [..., T] unless said; mask [..., T]: the tokens that count (None: all); masks that are
returned are bool, and weights 0 where a token does not count.
"""

from .advantages import Hapo, clip_cov_mask, empg, hapo, kl_cov_mask, steer_weight, step_radius
from .selection import goldfish_mask, loss_reweight, paced_weight, sstoken_mask, tip_weights

__all__ = [
    "Hapo",
    "clip_cov_mask",
    "empg",
    "goldfish_mask",
    "hapo",
    "kl_cov_mask",
    "loss_reweight",
    "paced_weight",
    "sstoken_mask",
    "steer_weight",
    "step_radius",
    "tip_weights",
]
