"""A head without a normaliser, each logit compared with the target's; z, shapes and dtypes as in head.py."""

from .losses._rows import Rows, reduction_of
from .losses.pairs import hinge_of, mw_of, psl_of, sigmoid_of

KINDS = ("sigmoid", "mw", "hinge", "psl")


def linear_pairwise(
    input, linear_weight, target, *, kind="sigmoid", bias=0.0, margin=1.0, activation="tanh", temperature=0.2,
    linear_bias=None, token_weight=None, softcap=None, scale=1.0, ignore_index=-100, reduction="mean",
):  # fmt: skip
    """Pairwise losses of a linear head without its logits, in one sweep over the vocabulary. Per token, y its target:

    sigmoid  sum_v log(1 + e^(-s_v (z_v + bias))), s = 1 at the target, -1 elsewhere
    mw       sum_{v != y} log(1 + e^(z_v - z_y)) / (V - 1)
    hinge    sum_{v != y} max(0, margin + z_v - z_y) / V
    psl      log sum_{v != y} f(z_v - z_y)^(1 / temperature), f(d) = 1 + tanh d, or max(0, 1 + d) for activation "relu"

    input [..., D], linear_weight [V, D], target [...] int64 (ignore_index: no loss, no cost), bias a number or a tensor
    [] with a gradient, temperature > 0, linear_bias [V], token_weight [...], scale a number or [...]. Returns float32
    (float64 for float64 inputs): a scalar, or [...] for reduction 'none'; 'mean' divides by the number of tokens not
    ignored, and is nan where all are. Gradients to input, linear_weight, linear_bias, scale, bias and token_weight.
    Products with the vocabulary: one forward (psl two), three backward. With unit vectors: lossk.losses.siglip, mw,
    psl. Errors as linear_cross_entropy.

    Sources: Zhai et al. 2023, Sigmoid Loss for Language Image Pre-Training, arXiv:2303.15343; Weston, Watkins 1999,
    Support Vector Machines for Multi-Class Pattern Recognition; mw and psl as in lossk.losses.
    """
    op = "linear_pairwise"
    if kind not in KINDS:
        raise ValueError(f"{op}: kind must be one of {list(KINDS)}, got {kind!r}")
    rows = Rows(op, input, linear_weight, target, linear_bias, scale, softcap, None, ignore_index)
    formulas = {
        "sigmoid": lambda: sigmoid_of(rows, bias),
        "mw": lambda: mw_of(rows),
        "hinge": lambda: hinge_of(rows, margin),
        "psl": lambda: psl_of(rows, activation, temperature),
    }
    return reduction_of(op, formulas[kind](), rows.active, rows.head, token_weight, reduction)
