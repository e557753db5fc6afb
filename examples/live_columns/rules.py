"""Which columns a filtered backward visits, and the gradients it then gives: dense, in the dtype of its inputs.

For cross-entropy dlogits = (P - onehot) / N; a rule turns P - onehot, the residual [N, V], into a mask
[ceil(N / ROWS), V] of the columns that are live in each block of rows.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

ROWS = COLUMNS = 128  # of a block; a tile of CCE's is ROWS x COLUMNS


class Gradients(NamedTuple):
    """Gradients of the mean loss, and what is wrong with the dlogits they come from."""

    hidden: Tensor  # [N, D]
    weight: Tensor  # [V, D]
    dropped: float = 0.0  # mean over the rows of |P - onehot| in dead columns
    dlogits_error: float = 0.0  # in norm, relative


def residual(hidden: Tensor, weight: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """P - onehot [N, V], and the mean loss."""
    z = hidden @ weight.T
    rows, lse = torch.arange(len(z)), z.logsumexp(1)
    loss = (lse - z[rows, target]).mean()
    z.sub_(lse[:, None]).exp_()
    z[rows, target] -= 1
    return z, loss


def live_columns(residual: Tensor, target: Tensor, tau: float) -> Tensor:
    """lossk's rule: live where the block's rows together give a token the probability tau, or have it as target."""
    live = torch.stack([block.sum(0) for block in residual.split(ROWS)]) >= tau
    live[torch.arange(len(target)) // ROWS, target] = True
    return live


def live_tiles(hidden: Tensor, weight: Tensor, residual: Tensor, eps: float) -> Tensor:
    """CCE's rule: a tile is skipped iff every |P - onehot| in it is below eps; tokens sorted by their mean logit."""
    order = (weight @ hidden.mean(0)).argsort()
    largest = torch.stack([block.abs().amax(0) for block in residual.split(ROWS)])[:, order]
    tiles = F.pad(largest, (0, -len(order) % COLUMNS)).unflatten(1, (-1, COLUMNS)).amax(2) >= eps
    live = torch.empty_like(largest, dtype=torch.bool)
    live[:, order] = tiles.repeat_interleave(COLUMNS, 1)[:, : len(order)]
    return live


def exact(hidden: Tensor, weight: Tensor, residual: Tensor) -> Gradients:
    return Gradients(residual @ weight / len(hidden), residual.T @ hidden / len(hidden))


def filtered(hidden: Tensor, weight: Tensor, residual: Tensor, live: Tensor, fill: bool = False) -> Gradients:
    """Dead columns are left out, or filled: by the block's rank-one matrix with the same row and column sums."""
    d_hidden, d_weight = torch.empty_like(hidden), torch.zeros_like(weight)
    dropped = wrong = 0.0
    for h, dh, block, on in zip(hidden.split(ROWS), d_hidden.split(ROWS), residual.split(ROWS), live):
        kept, dead = block[:, on], block[:, ~on]
        dropped += dead.abs().sum().item()
        dh[:] = kept @ weight[on]
        d_weight[on] += kept.T @ h
        if fill:
            by_row, by_column = dead.sum(1), dead.sum(0)
            by_column /= by_column.sum().clamp_min(torch.finfo(dead.dtype).tiny)
            dh += by_row.outer(by_column @ weight[~on])
            d_weight[~on] += by_column.outer(by_row @ h)
            dead -= by_row.outer(by_column)
        wrong += dead.square().sum().item()
    n = len(hidden)
    return Gradients(d_hidden / n, d_weight / n, dropped / n, wrong**0.5 / residual.norm().item())
