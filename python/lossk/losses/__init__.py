"""Losses of a vocabulary head without its logits, each a formula over row statistics (lossk.linear_stats)."""

from .sets import decoupled_softmax, hl_gauss, ntl_mse, ntl_was
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
    "decoupled_softmax",
    "dice",
    "focal",
    "gce",
    "hl_gauss",
    "ldr_kl",
    "logit_anneal",
    "mae",
    "ntl_mse",
    "ntl_was",
    "sce",
    "spherical_z_loss",
    "squentropy",
    "taylor_softmax",
]
