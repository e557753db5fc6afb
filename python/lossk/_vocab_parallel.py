"""A vocabulary that is cut among the processes of a group: what they tell each other.

Each has the same rows and a slice of the columns. Of a row a slice's statistics are a few numbers, which all processes
gather; what the whole vocabulary would have given is a formula of these, in float64, that each computes for itself. The
loss is then the same everywhere, and so is what comes back: a backward only needs its own slice's share of it, and the
sum of what the slices say of the rows.
"""

import torch
import torch.distributed as dist
from torch.autograd.function import once_differentiable

from . import _check


class Part:
    """This process's columns, [first, first + rows of its weight) of `vocab`."""

    def __init__(self, op, group, weight):
        if not (dist.is_available() and isinstance(group, dist.ProcessGroup)):
            raise TypeError(f"{op}: group must be None or a torch.distributed.ProcessGroup, got {type(group).__name__}")
        self.group, self.columns = group, weight.shape[0]
        rank = dist.get_rank(group)
        if rank < 0:
            raise ValueError(f"{op}: group must have this process among its ranks")
        sizes = _gathered(torch.tensor([self.columns], device=weight.device), group)[:, 0]
        self.first, vocab = sizes[:rank].sum(), sizes.sum()
        self.vocab = int(vocab) if _check.may_look(vocab) else vocab

    def length(self, like):
        """The vocabulary's, or that of a traced `like`. On a GPU this waits for it: with a wrong one an index would be
        out of bounds."""
        return like.shape[0] if torch.compiler.is_compiling() else int(self.vocab)

    def rows(self, h):
        """An _arguments.Head whose rows' gradients are those of the whole vocabulary."""
        own = lambda x: _Rows.apply(x, self.group) if x is not None and x.requires_grad else x  # noqa: E731
        return h._replace(input=own(h.input), scale=own(h.scale))

    def local(self, index):
        """Columns of the whole vocabulary as those of this slice, -1 where they are others'."""
        at = index - self.first
        return torch.where((at >= 0) & (at < self.columns) & (index >= 0), at, -1)

    def slice(self, x):
        """This slice of x [vocab]."""
        return x[self.first + torch.arange(self.columns, device=x.device)]

    def gather(self, index, stats, logits, *others):
        """lse [N] and log p [N, K] of the whole vocabulary, from a slice's statistics and its logits at local(index),
        nan where index is beyond the vocabulary; and each slice's own lse and others [N]: [ranks, 1 + others, N].
        Trap: others must be the slice's own. What depends on other slices too would get a part of its gradient."""
        picked = torch.where(self.local(index) >= 0, logits, 0)
        own = torch.cat([torch.stack([lse_of(stats), *others]), picked.T.double()])
        parts = _Slices.apply(own, self.group)
        lse = parts[:, 0].logsumexp(0)
        logp = parts[:, 1 + len(others) :].sum(0).T - lse[:, None]
        return lse, torch.where(index < self.vocab, logp, torch.nan), parts[:, : 1 + len(others)]


def lse_of(stats):
    """In float64: a second number has what rounding left off the first, nan where that is -inf."""
    return stats[0].double() + stats[1].detach().nan_to_num(0.0).double()


def _gathered(x, group):
    """[ranks, *shape of x], in the order of the ranks."""
    parts = [torch.empty_like(x) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, x.contiguous(), group=group)
    return torch.stack(parts)


class _Slices(torch.autograd.Function):
    """Every process computes the same of the gathered numbers: what comes back to its own is the whole gradient."""

    @staticmethod
    def forward(ctx, own, group):
        ctx.rank = dist.get_rank(group)
        return _gathered(own, group)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        return grad[ctx.rank], None


class _Rows(torch.autograd.Function):
    """Rows that every process has: their gradient is the sum of what the slices say."""

    @staticmethod
    def forward(ctx, x, group):
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        grad = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad, group=ctx.group)
        return grad, None
