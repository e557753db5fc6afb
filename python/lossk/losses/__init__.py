"""Losses of a vocabulary head without its logits, each a formula over row statistics (lossk.linear_stats)."""

from .squares import spherical_z_loss, squentropy, taylor_softmax
from .target import (
    aldr_kl,
    bootstrap,
    brier,
    comp_sum,
    dco,
    dice,
    focal,
    gce,
    ldr_kl,
    logit_anneal,
    mae,
    sce,
)

__all__ = [
    "aldr_kl",
    "bootstrap",
    "brier",
    "comp_sum",
    "dco",
    "dice",
    "focal",
    "gce",
    "ldr_kl",
    "logit_anneal",
    "mae",
    "sce",
    "spherical_z_loss",
    "squentropy",
    "taylor_softmax",
]
