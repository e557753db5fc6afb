"""Losses of a vocabulary head without its logits, each a formula over row statistics (lossk.linear_stats)."""

from .batch import opl, unpg
from .contrastive import dcl, info_nce, multi_similarity, siglip, soft_info_nce
from .margins import adaface, arcface, cosface
from .pairs import mw, psl
from .sets import decoupled_softmax, hl_gauss, ntl_mse, ntl_was
from .squares import cosine_linear, spherical_softmax, spherical_z_loss, squared_error, squentropy, taylor_softmax
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
from .two_heads import emo, plackett_luce_distill

__all__ = [
    "adaface",
    "aldr_kl",
    "arcface",
    "bootstrap",
    "brier",
    "comp_sum",
    "cosface",
    "cosine_linear",
    "dcl",
    "dco",
    "decoupled_softmax",
    "dice",
    "emo",
    "focal",
    "gce",
    "hl_gauss",
    "info_nce",
    "ldr_kl",
    "logit_anneal",
    "mae",
    "multi_similarity",
    "mw",
    "ntl_mse",
    "ntl_was",
    "opl",
    "plackett_luce_distill",
    "psl",
    "sce",
    "siglip",
    "soft_info_nce",
    "spherical_softmax",
    "spherical_z_loss",
    "squared_error",
    "squentropy",
    "taylor_softmax",
    "unpg",
]
