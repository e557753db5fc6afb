"""Memory for time: logits that the forward keeps for the backward."""

import contextlib

from . import _check

_share = 0.0

_TILE, _MOST_SEGMENTS = 256, 128  # kColumnsInSegment and kMostSegments in cuda/head/stats/params.h


@contextlib.contextmanager
def keep_logits(share=1.0):
    """Keep this share of the logits, 2 bytes each, from forward to backward: `with lossk.keep_logits(): loss = ...`.

    On a GPU the exact backward multiplies for the logits again, a product of the four that a loss and its gradients
    take. Inside the block, forwards keep those of the first `share` of the vocabulary, 0 <= share <= 1, and their
    backwards, inside or not, leave that much of the product out: 2.06 share N V bytes more for up to a fourth of the
    time. With share = 1 this is the memory of an unfused head in half precision, but not its rounding: z is kept as 13
    bits of how far it lies below a maximum near it, nothing beyond 64 nats; statistics, and z at the targets, have all
    their bits. Gradients are deterministic, but not those of share = 0 bit by bit.

    For linear_cross_entropy, linear_logp, linear_stats and the losses made of them. It changes nothing on a CPU, in
    float32, with softcap, tau or `saved`, where `scale` requires grad, and for distances, divergences and
    linear_pairwise. The share is the process's, for one thread at a time. A function that torch.utils.checkpoint runs
    again wants the block inside it. ValueError, TypeError if share is not a number in [0, 1].
    """
    _check.number("keep_logits", "share", share, 0, 1, "a number in [0, 1]")
    global _share
    before, _share = _share, float(share)
    try:
        yield
    finally:
        _share = before


def columns(h, tau):
    """How many columns' logits linear_stats is to keep of an _arguments.Head: whole segments, or all."""
    vocab, half = h.linear_weight.shape[0], h.input.dtype.itemsize == 2
    scaled = h.scale is not None and h.scale.requires_grad  # its gradient wants logits without it
    if not _share or not half or h.softcap or tau or scaled or not _can_keep(h.input):
        return 0
    segment = round_up(-(-max(vocab, 1) // _MOST_SEGMENTS), _TILE)
    return vocab if _share == 1 else int(_share * vocab) // segment * segment


def _can_keep(input):
    return input.device.type == "cuda"


def line(columns):
    """16-bit numbers of a row: its logits, and a float32 reference for each 64 of them, whole tiles' at a time."""
    return round_up(columns, 8) + 2 * round_up(-(-columns // 64), 4)


def round_up(x, unit):
    return -(-x // unit) * unit
