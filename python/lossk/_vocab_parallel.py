"""A vocabulary sharded among the ranks of a process group, as tensor parallelism has it: what they tell each other.

Each has the same tokens and a shard of the columns. Of a token a shard's statistics are a few numbers, which all ranks
gather; what the whole vocabulary would have given is a formula of these, in float64, that each computes for itself. The
loss is then the same everywhere, and so is what comes back: a backward needs its own shard's share of it, and the sum
of what the shards say of the tokens.
"""

import torch
import torch.distributed as dist
from torch.autograd.function import once_differentiable

from . import _check


def check_group(op, group):
    if dist.is_available() and isinstance(group, dist.ProcessGroup):
        return
    if dist.is_available() and group == dist.GroupMember.NON_GROUP_MEMBER:  # what new_group gives to the others
        raise ValueError(f"{op}: group must have this process among its ranks, got {group}")
    raise TypeError(f"{op}: group must be None or a torch.distributed.ProcessGroup, got {type(group).__name__}")


class Shard:
    """This rank's columns of a vocabulary of `vocab`, from `first` on. On a GPU both are tensors, so that nobody waits
    for it."""

    def __init__(self, op, group, h):
        self.group, self.columns = group, h.linear_weight.shape[0]
        rank, sizes = dist.get_rank(group), (self.columns, h.shape.numel())
        sizes = torch.stack([h.input.new_full((), size, dtype=torch.int64) for size in sizes])
        columns, tokens = _gathered(sizes, group).unbind(1)
        self.first, self.vocab = columns[:rank].sum(), columns.sum()
        if _check.may_look(tokens):
            if (tokens != tokens[0]).any():
                raise ValueError(f"{op}: input must have the same tokens on all ranks of group, got {tokens.tolist()}")
            self.vocab = int(self.vocab)

    def class_weights(self, op, weight, h):
        """[vocab]; where nobody may look, nan if it is of another length."""
        known = not isinstance(self.vocab, torch.Tensor)
        _check.floats(op, "weight", weight, (self.vocab,) if known else weight.shape, h.input)
        return weight if known else torch.where(self.vocab == weight.shape[0], weight, torch.nan)

    def tokens(self, h):
        """An _arguments.Head whose tokens' gradients are those of the whole vocabulary."""
        return h._replace(**{name: sum_over_shards(getattr(h, name), self.group) for name in ("input", "scale")})

    def local(self, index):
        """Columns of the whole vocabulary as those of this shard, -1 where they are others'."""
        at = index - self.first
        return torch.where((at >= 0) & (at < self.columns) & (index >= 0), at, -1)

    def of(self, x):
        """This shard of x [vocab]."""
        return x[(self.first + torch.arange(self.columns, device=x.device)).clamp(max=max(x.shape[0] - 1, 0))]

    def gather(self, index, stats, logits, *others):
        """lse [N] and log p [N, K] of the whole vocabulary, from a shard's statistics and its logits at local(index),
        nan where index is beyond the vocabulary; and each shard's own lse and others [N]: [ranks, 1 + others, N].
        Trap: others must be the shard's own. What depends on other shards too would get a part of its gradient."""
        picked = torch.where(self.local(index) >= 0, logits, 0)
        own = torch.cat([torch.stack([lse_of(stats), *others]), picked.T.double()])
        shards = _Shards.apply(own, self.group)
        lse = shards[:, 0].logsumexp(0)
        logp = shards[:, 1 + len(others) :].sum(0).T - lse[:, None]
        return lse, torch.where(index < self.vocab, logp, torch.nan), shards[:, : 1 + len(others)]


def sum_over_shards(x, group):
    """x, whose gradient is the sum of those of all ranks."""
    return _Tokens.apply(x, group) if x is not None and x.requires_grad else x


def lse_of(stats):
    """float64: the float32 number and, where that is finite, what rounding left off it."""
    return stats[0].double() + stats[1].detach().nan_to_num(0.0).double()


def _gathered(x, group):
    """[ranks, *shape of x], in the order of the group's ranks."""
    x = x.contiguous()
    every = [torch.empty_like(x) for _ in range(dist.get_world_size(group))]
    dist.all_gather(every, x, group=group)
    return torch.stack(every)


class _Shards(torch.autograd.Function):
    """Every rank computes the same of the gathered numbers: what comes back to its own is the whole gradient."""

    @staticmethod
    def forward(ctx, own, group):
        ctx.rank = dist.get_rank(group)
        return _gathered(own, group)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        return grad[ctx.rank], None


class _Tokens(torch.autograd.Function):
    """Tokens that every rank has: their gradient is the sum of what the shards say, in float32 or wider."""

    @staticmethod
    def forward(ctx, x, group):
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        wide = torch.promote_types(grad.dtype, torch.float32)
        total = grad.to(wide, copy=True, memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=ctx.group)
        return total.to(grad.dtype), None
