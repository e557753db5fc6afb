"""What a backward over live columns did, for those who ask."""

import contextlib
from typing import NamedTuple

import torch

BLOCK = 128  # tokens; Sketch::kRows in cpp/head/sketch.h

_listeners: list[list] = []


class LiveReport(NamedTuple):
    """One backward over live columns. A block is 128 consecutive tokens that are not ignored."""

    live_share: float  # of the vocabulary, mean over blocks
    dropped_mass: torch.Tensor  # [blocks]: probability in dead columns, mean over the block's tokens
    dlogits_error: float  # relative to the norm of dlogits; at most this without fill, and hardly ever more with it


@contextlib.contextmanager
def live_report():
    """Collect a LiveReport for every backward with tau that runs inside: `with lossk.live_report() as reports: ...`.

    live_share: how much of the vocabulary is recomputed; dropped_mass: what the fill stands for; dlogits_error: a bound
    from the sketch, |error|^2 <= sum over dead columns of (a block's mass)^2, exact where each dead column belongs to
    one token. Nothing is computed for it beforehand, and nothing is kept when no one listens. Eager mode only: a
    compiled backward does not report.
    """
    reports: list[LiveReport] = []
    _listeners.append(reports)
    try:
        yield reports
    finally:
        _listeners[:] = [other for other in _listeners if other is not reports]


def record(live):
    """live [4, blocks], of linear_live_backward in cpp/ops.cpp; blocks without rows are zero."""
    if not _listeners or type(live) is not torch.Tensor or live.is_meta:  # being traced
        return
    share, mass, error, norm = live[:, live.ne(0).any(0)].double()
    report = LiveReport(share.mean().item(), mass.float(), (error.sum() / norm.sum()).sqrt().item())
    for reports in _listeners:
        reports.append(report)
