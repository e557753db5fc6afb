"""Rows of a head whose target counts: the statistics that losses are formulas of, and what makes a formula a loss."""

import inspect
import math
from typing import NamedTuple

import torch

from .. import _arguments, _check
from .._head_ops import STATS
from ..stats import saved_statistics, statistics
from ._gather import rows_of_weight
from ._gram import moments_of_weight

COMMON = """
    input [..., D], linear_weight [V, D], target [...] int64 (ignore_index: no loss, no cost), linear_bias [V],
    token_weight [...] (a factor of each token's loss), scale and softcap of the logits and tau as in
    lossk.linear_cross_entropy. Returns float32 (float64 for float64 inputs): a scalar, or [...] for reduction 'none';
    'mean' divides by the number of tokens not ignored, and is nan where all are. Gradients to input, linear_weight,
    linear_bias, scale and token_weight. Errors as linear_cross_entropy.
    """


class Target(NamedTuple):
    """Each [N]; both differentiable."""

    logp: torch.Tensor  # log p_y
    log_rest: torch.Tensor  # log(1 - p_y), no less than the log of the smallest normal number


class Rows:
    """Statistics [N] of the rows, by need; an ignored row has those of two equal logits, finite in any formula."""

    def __init__(self, op, input, linear_weight, target, linear_bias, scale, softcap, tau, ignore_index):
        self.op, self.tau = op, tau
        self.head = _arguments.head(op, input, linear_weight, linear_bias, scale, softcap)
        self.vocab = linear_weight.shape[0]
        self.index, _ = _arguments.targets(op, self.head, self.vocab, target, None, ignore_index, 0.0)
        self.active = self.index[:, 0] >= 0

    @classmethod
    def of(cls, op, head, index, active):
        """Of a head that has been checked, with targets [N, 1] that have."""
        rows = cls.__new__(cls)
        rows.op, rows.tau, rows.head, rows.vocab = op, None, head, head.linear_weight.shape[0]
        rows.index, rows.active = index, active
        return rows

    # ---- statistics of the softmax

    def logp(self, *, divide=1.0, margin=0.0):
        """log p_y of z / divide, a number or [N], with margin taken off its target."""
        logp = statistics(
            self.op, self._scaled(divide), self.index, None, self.active, full=False, tau=self.tau, margin=margin
        )[2]
        return self.or_even(logp[:, 0], -math.log(2))

    def target(self, **how) -> Target:
        return self.target_and(**how)[0]

    def target_and(self, *names, divide=1.0, margin=0.0):
        """The target's, and of the statistics in _head_ops.STATS those that are named."""
        stats, _, logp, *_ = statistics(
            self.op, self._scaled(divide), self.index, None, self.active, full=True, tau=self.tau, margin=margin
        )
        rows = dict(zip(STATS, stats.unbind()))
        even = {"entropy": math.log(2), "lse": math.log(2), "lse2": math.log(2)}
        others = [self.or_even(rows[name], even[name]) for name in names]
        excl = (rows["lse_excl"] - rows["lse"]) + (excl_low(rows) - rows["lse_low"])
        logp, excl = (self.or_even(x, -math.log(2)) for x in (logp[:, 0], excl))
        return Target(logp, _log_rest(logp, excl.detach())), *others

    def best(self):
        """log p of the target and of the largest logit, by one forward: its sketch would know nothing of the latter."""
        if self.tau is not None:
            raise ValueError(f"{self.op}: tau must be None where the largest logit is a target, got {self.tau}")
        with torch.no_grad():
            stats, _, logp, argmax, *_ = statistics(self.op, self.head, self.index, None, self.active, full=True)
        rows = dict(zip(STATS, stats.unbind()))
        # Trap: argmax of a row that is not active names no column.
        index = torch.cat([self.index, torch.where(self.active, argmax, -1)[:, None]], 1)
        highest = (rows["max"] - rows["lse"]) - rows["lse_low"]
        logp = saved_statistics(
            self.head, index, self.active, torch.stack([logp[:, 0], highest], 1), rows["entropy"],
            torch.stack([rows["lse"], rows["lse_low"]]),
        )[0]  # fmt: skip
        return self.or_even(logp, -math.log(2)).unbind(1)

    # ---- what needs no product with the vocabulary

    def logit(self):
        """z_y."""
        h, at = self.head, self.target_column()
        z = (self.widened_input() * rows_of_weight(h.linear_weight, at)).sum(-1)
        if h.linear_bias is not None:
            z = z + h.linear_bias[at]
        z = z if h.scale is None else z * h.scale
        z = h.softcap * torch.tanh(z / h.softcap) if h.softcap else z
        return self.or_even(torch.where(self.index[:, 0] < self.vocab, z, math.nan), 0.0)

    def target_column(self):
        """y, or a column that is there where y is not: what may be indexed with."""
        return self.index[:, 0].clamp(0, max(self.vocab - 1, 0))

    def logits(self, columns):
        """z at these columns [C], the same for all rows: [N, C]."""
        return self.or_even(dense_logits(self.head, self.widened_input(), columns.long()), 0.0)

    def moments(self):
        """Mean and variance of each row's logits over the vocabulary."""
        h = self.head
        if h.softcap:
            raise ValueError(
                f"{self.op}: softcap must be None, for the sum of squares is not linear then, got {h.softcap}"
            )
        mean, variance = moments_of_weight(self.widened_input(), h.linear_weight, h.linear_bias)
        if h.scale is not None:
            mean, variance = h.scale * mean, h.scale**2 * variance
        return self.or_even(mean, 0.0), self.or_even(variance, 1.0)

    def widened_input(self):
        """Input in float32 (float64), 0 in rows that are not active, whatever they hold."""
        return widened(self.head, self.active)

    def keep(self, which):
        """Of the active rows only those [N] of `which` count."""
        self.active = self.active & which
        self.index = torch.where(self.active[:, None], self.index, -1)

    def or_even(self, x, value):
        active = self.active if x.dim() == 1 else self.active[:, None]
        return torch.where(active, x, value)

    def per_token(self, name, x):
        """A number, or a tensor of the rows' shape as [N]."""
        if isinstance(x, torch.Tensor):
            _check.floats(self.op, name, x, self.head.shape, self.head.input)
            return x.to(self.head.acc).reshape(-1)
        _check.number(self.op, name, x, expected="a finite number or a Tensor")
        return x

    def _scaled(self, divide):
        """The head of z / divide."""
        h = self.head
        if not isinstance(divide, torch.Tensor):
            if divide == 1:
                return h
        elif h.softcap:
            raise ValueError(f"{self.op}: softcap must be None where each token has a temperature, got {h.softcap}")
        scale = h.input.new_ones(self.index.shape[0], dtype=h.acc) if h.scale is None else h.scale
        # cap tanh(x / cap) / divide is the softcap of x / divide at cap / divide
        return h._replace(scale=scale / divide, softcap=h.softcap / divide if h.softcap else 0.0)


def widened(h, active):
    """The input as it is summed in; a row that is not active may hold anything, and is 0."""
    return torch.where(active[:, None], h.input, 0).to(h.acc)


def dense_logits(h, input, columns=None):
    """z of an input already widened, at a few columns of the vocabulary or at all of them."""
    weight, bias = h.linear_weight, h.linear_bias
    if columns is None:
        weight = weight.to(h.acc)
    else:
        weight, bias = rows_of_weight(weight, columns), None if bias is None else bias[columns]
    z = input @ weight.mT
    if bias is not None:
        z = z + bias
    if h.scale is not None:
        z = z * h.scale[:, None]
    return h.softcap * torch.tanh(z / h.softcap) if h.softcap else z


def excl_low(rows):
    """What lse_excl's rounding left off; it is -inf where all columns are excluded, and leaves nan."""
    return torch.where(rows["lse_excl"] == -math.inf, 0, rows["lse_excl_low"])


def _log_rest(logp, excl):
    """log(1 - p) with d/d logp = -p / (1 - p); excl is right where p is large, logp where it is small."""
    least = math.log(torch.finfo(logp.dtype).tiny)
    known = logp.detach()
    value = torch.where(known < -1, torch.log1p(-known.clamp(max=-1).exp()), excl).clamp(min=least, max=0)
    slope = torch.where(value > least, -(known - value).exp(), 0)
    return with_slope(logp, torch.where(known.isnan(), known, value), slope)


def one_minus_exp(x):
    """1 - e^x. Trap: of torch.expm1 the gradient is its result + 1, which loses e^x where that is small."""
    return with_slope(x, -torch.expm1(x.detach()), -torch.exp(x.detach()))


def with_slope(x, value, slope):
    """value, with the gradient slope by x."""
    return _WithSlope.apply(x, value, slope)


class _WithSlope(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, value, slope):
        ctx.save_for_backward(slope)
        return value.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        (slope,) = ctx.saved_tensors
        return grad * slope, None, None


def reduction_of(op, loss, active, h, token_weight, reduction):
    """loss [N] of the rows that count, as `reduction` says."""
    _check.reduction(op, reduction)
    if token_weight is not None:
        _check.floats(op, "token_weight", token_weight, h.shape, h.input)
        loss = loss * token_weight.to(h.acc).reshape(-1)
    loss = torch.where(active, loss, 0)
    if reduction == "none":
        return loss.view(h.shape)
    return loss.sum() if reduction == "sum" else loss.sum() / active.sum()


def head_loss(formula):
    """formula(rows, **own) -> [N] as a loss of (input, linear_weight, target, **own, and what all of them take)."""
    op = formula.__name__

    def loss(
        input, linear_weight, target, *, linear_bias=None, token_weight=None, softcap=None, scale=1.0, tau=None,
        ignore_index=-100, reduction="mean", **own,
    ):  # fmt: skip
        rows = Rows(op, input, linear_weight, target, linear_bias, scale, softcap, tau, ignore_index)
        loss = formula(rows, **own)
        return reduction_of(op, loss, rows.active, rows.head, token_weight, reduction)

    return loss_of_formula(loss, formula, COMMON)


def loss_of_formula(loss, formula, common):
    """loss with the name, the own parameters and the docstring of its formula, and what `common` says of all."""
    shared = list(inspect.signature(loss).parameters.values())[:-1]
    own = [p.replace(kind=p.KEYWORD_ONLY) for p in list(inspect.signature(formula).parameters.values())[1:]]
    loss.__signature__ = inspect.Signature(shared[:3] + own + shared[3:])
    loss.__name__ = loss.__qualname__ = formula.__name__
    loss.__module__ = formula.__module__
    loss.__doc__ = f"{inspect.cleandoc(formula.__doc__)}\n\n{inspect.cleandoc(common)}"
    return loss
