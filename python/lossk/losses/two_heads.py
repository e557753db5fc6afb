"""Losses with a second head beside the one that is trained: a teacher's, or costs between tokens."""

import torch
import torch.nn.functional as F

from .. import _arguments, _check
from .._compare_ops import divergence
from .._head_ops import STATS
from ..stats import statistics
from ._rows import Rows, excl_low, head_loss


@head_loss
def emo(rows, cost_embedding=None, mode="emo1"):
    """Earth mover's distance optimisation: mass on a token costs by how unlike the target it is, not all alike.

    DEMD = 1 - sum_v p_v cos(c_v, c_y) + p_y, the last term without a gradient; CE the cross-entropy. mode "demd":
    DEMD; "emo1": (CE + [CE / DEMD] DEMD) / 2, as the paper; "emo2": DEMD + [DEMD / CE] CE; no gradient in brackets.

    cost_embedding [V, C], constant; None: linear_weight as it stands. Products with the vocabulary: 2 forward and 4
    backward, and those of the cross-entropy (all but "demd" have its gradient). Not with tau.
    Source: Ren et al. 2023, EMO: Earth Mover Distance Optimization for Auto-Regressive Language Modeling,
    arXiv:2310.04691.
    """
    if mode not in ("demd", "emo1", "emo2"):
        raise ValueError(f"{rows.op}: mode must be 'demd', 'emo1' or 'emo2', got {mode!r}")
    _check_vocabulary(rows)
    if rows.tau is not None:
        raise ValueError(f"{rows.op}: tau must be None, for the costs decay with no probability, got {rows.tau}")
    h = rows.head
    cost = h.linear_weight if cost_embedding is None else cost_embedding
    _check.tensor(rows.op, "cost_embedding", cost)
    _check.floats(rows.op, "cost_embedding", cost, (rows.vocab, *cost.shape[-1:]), h.input)
    cost = F.normalize(cost.detach().to(h.acc), dim=-1).to(h.input.dtype)
    at_target = cost[rows.target_column()]
    costs = _arguments.Head(at_target, cost, None, None, 0.0, h.acc, h.shape)
    likeness = rows.or_even(divergence(h, costs, rows.active, "mean", 0.0), 1.0)
    logp = rows.logp()
    demd = 1 - likeness + logp.detach().exp()
    if mode == "demd":
        return demd
    ce = -logp
    if mode == "emo1":
        return (ce + (ce / (demd + _LEAST)).detach() * demd) / 2
    return demd + (demd / (ce + _LEAST)).detach() * ce


_LEAST = 1e-10  # the authors'


def _check_vocabulary(rows):
    if rows.vocab == 0:
        raise ValueError(f"{rows.op}: linear_weight must have rows, got {list(rows.head.linear_weight.shape)}")


@head_loss
def plackett_luce_distill(
    rows, teacher_input, teacher_linear_weight, k=10, temperature=4.0, teacher_linear_bias=None, teacher_softcap=None
):  # fmt: skip
    """The teacher's ranking by a Plackett-Luce model: the target first, then the teacher's k best in their order.

    sum_i a_i (log sum_{j >= i} e^z_{pi_j} - z_{pi_i}), pi = (y, the teacher's k largest but y), the inner sum over all
    columns that are not before i; a_i = softmax(u / temperature) at pi_i, u the teacher's logits.

    teacher_input [..., D'], teacher_linear_weight [V, D'], a constant; 1 <= k <= 128. The paper sums over the whole
    ranking, whose later terms have little weight. One product with the teacher's vocabulary beside the head's own.
    Source: Bassam et al. 2025, PLD: A Choice-Theoretic List-Wise Knowledge Distillation, arXiv:2506.12542.
    """
    op = rows.op
    _check_vocabulary(rows)
    scale = _arguments.one_over(op, "temperature", temperature)
    teacher_input, teacher_linear_weight = (
        x.detach() if isinstance(x, torch.Tensor) else x for x in (teacher_input, teacher_linear_weight)
    )
    taught_by = (teacher_input, teacher_linear_weight, teacher_linear_bias, scale, teacher_softcap)
    teacher = _arguments.head(op, *taught_by, "temperature", prefix="teacher_")
    _arguments.same_rows_and_vocabulary(op, rows.head, teacher)
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= 128:
        raise ValueError(f"{op}: k must be an int in [1, 128], got {k!r}")
    with torch.no_grad():
        values, best, lse = torch.ops.lossk.linear_topk(*teacher[:4], rows.active, teacher.softcap, min(k, rows.vocab))
        of_target = Rows.of(op, teacher, rows.index, rows.active).logit()
        values = torch.cat([of_target[:, None], values], 1)
        index = torch.cat([rows.index, torch.where(best == rows.index, -1, best)], 1)
        present = rows.active[:, None] & (index >= 0)
        share = torch.where(present, (values - lse[:, None]).exp(), 0)
    stats, z, *_ = statistics(op, rows.head, index, None, rows.active, full=True, tau=rows.tau)
    found = dict(zip(STATS, stats.unbind()))
    rest = found["lse_excl"] + excl_low(found)
    least = torch.finfo(z.dtype).min / 4  # finite, so that its gradient is 0 and not nan
    terms = torch.cat([torch.where(present, z, least), torch.where(rest.isneginf(), least, rest)[:, None]], 1)
    from_here_on = terms.flip(1).logcumsumexp(1).flip(1)[:, :-1]
    return (share * torch.where(present, from_here_on - z, 0)).sum(1)
