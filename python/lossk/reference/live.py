"""Live columns: what a backward with tau makes of the gradient of the logits.

A block is 128 consecutive rows that count; a list is for one block, or for some of them together (list_rows: 128 on a
CPU, 1024 on a GPU). A column is live in a list where the mass Q_v = sum_i p_iv of one of its blocks is tau or more, or
where one of its rows picks it. Elsewhere g is replaced by rank one: the block's mass there, normalised, times what each
row's dead columns had, so that every row's sum of g is kept and no column is without gradient.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 128
DENSE = 0.7  # a list with a larger live share is all of the vocabulary


def block_sums(x: Tensor) -> Tensor:
    """[N, V] -> [ceil(N / 128), V]."""
    return F.pad(x, (0, 0, 0, -len(x) % BLOCK)).unflatten(0, (-1, BLOCK)).sum(1)


def live_columns(mass: Tensor, picked: Tensor, tau: float, list_rows: int = BLOCK) -> Tensor:
    """mass [blocks, V], picked [N, V] bool -> [blocks, V] bool."""
    live, blocks = (mass >= tau) | (block_sums(picked.double()) > 0), list_rows // BLOCK
    live = F.pad(live, (0, 0, 0, -len(live) % blocks)).unflatten(0, (-1, blocks)).any(1)
    live = live | (live.double().mean(1, keepdim=True) > DENSE)
    return live.repeat_interleave(blocks, 0)[: len(mass)]


def filtered(g: Tensor, mass: Tensor, live: Tensor, fill: bool) -> Tensor:
    """g [N, V] as a backward over live columns has it; fill=False drops the dead columns."""
    on = live.repeat_interleave(BLOCK, 0)[: len(g)]
    dead = mass * ~live
    dead = dead / dead.sum(1, keepdim=True).where(dead.any(1, keepdim=True), 1)
    missing = (g * ~on).sum(1, keepdim=True)
    return g * on + (missing * dead.repeat_interleave(BLOCK, 0)[: len(g)] if fill else 0)


def visit_live(
    u: Tensor, p: Tensor, picked: Tensor, active: Tensor, tau: float, fill: bool, mass: Tensor | None, list_rows: int
):
    """u [..., V] whose gradient is filtered; p, picked [..., V], active [...]. mass: that of p unless given."""
    p, picked = p[active], picked[active]
    mass = block_sums(p) if mass is None else mass[: -(-len(p) // BLOCK)].to(p)
    live = live_columns(mass, picked, tau, list_rows)

    def of_active_rows(g: Tensor) -> Tensor:
        result = torch.zeros_like(g)
        result[active] = filtered(g[active], mass, live, fill)
        return result

    u = u.view_as(u)
    if u.requires_grad:
        u.register_hook(of_active_rows)
    return u
