"""Some rows of the weight, read in float32 (float64), whose gradient is summed so too."""

import torch

from .._head_ops import acc_dtype, weight_grad_dtype


def rows_of_weight(weight, at):
    """weight[at] in float32 (float64), [..., D], where `at` may name a row many times.

    Indexing would round to the weight's dtype at each addition: of a token that is a thousand times a target, bfloat16
    keeps one digit of the gradient.
    """
    return _Gathered.apply(weight, at, acc_dtype(weight), weight_grad_dtype(weight))


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight, at, acc, grad_dtype):
        ctx.save_for_backward(at)
        ctx.shape, ctx.grad_dtype = weight.shape, grad_dtype
        return weight[at].to(acc, copy=True)  # compiled by torch 2.11, the result itself has no gradient

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        (at,) = ctx.saved_tensors
        at, g = at.flatten(), g.reshape(-1, ctx.shape[1])
        # Each sum lies in the first place that names its row; all that name it write the same then. No V x D in acc.
        places = torch.arange(len(at), device=at.device)
        first = at.new_full(ctx.shape[:1], len(at)).scatter_reduce(0, at, places, "amin")[at]
        sums = torch.zeros_like(g).index_put((first,), g, accumulate=True)
        grad = g.new_zeros(ctx.shape, dtype=ctx.grad_dtype)
        grad[at] = sums[first].to(ctx.grad_dtype)
        return grad, None, None, None
