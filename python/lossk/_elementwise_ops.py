"""Fakes and gradients of the ops of elementwise distances; schemas in cpp/ops.cpp, kinds in cpp/head/elementwise.h."""

import torch

from ._head_ops import acc_dtype, backward_grads, no_double_backward, only_wanted, wants_fp32_grad
from ._library import explain_missing_cuda

explain_missing_cuda("elementwise_stats", "elementwise_backward")

KINDS = (
    "manhattan", "bray_curtis", "bray_curtis_standard", "chebyshev", "smooth_chebyshev", "minkowski", "canberra",
    "canberra_robust", "canberra_weighted",
)  # fmt: skip


@torch.library.register_fake("lossk::elementwise_stats")
def _(input, *args):
    return input.new_empty((4, input.shape[0]), dtype=acc_dtype(input))


@torch.library.register_fake("lossk::elementwise_backward")
def _(input, linear_weight, *args):
    (by_input, by_weight, by_row, by_column), weight_grad_fp32 = args[-2:]
    # One number for each row or column, as a head's scale and bias.
    grads = backward_grads(input, linear_weight, (by_input, by_weight, by_column, by_row), weight_grad_fp32)
    return *grads[:2], grads[3], grads[2]


def _context(ctx, inputs, output):
    *tensors, ctx.kind, ctx.p, ctx.power, ctx.eps = inputs
    ctx.weight_grad_fp32 = wants_fp32_grad(tensors[1])
    ctx.save_for_backward(*tensors, output)


def _backward(ctx, g_stats):
    """Of lse, row 0, and sum z, row 1; the rest has no gradient: the target's distance, the low part of lse."""
    *tensors, stats = ctx.saved_tensors
    needs = [ctx.needs_input_grad[k] for k in (0, 1, 4, 5)]
    grads = torch.ops.lossk.elementwise_backward(
        *tensors, ctx.kind, ctx.p, ctx.power, ctx.eps, stats, g_stats[:2].contiguous(), needs, ctx.weight_grad_fp32
    )
    grad_input, grad_weight, *grad_terms = only_wanted(needs, grads)
    return grad_input, grad_weight, None, None, *grad_terms, *[None] * 4


torch.library.register_autograd("lossk::elementwise_stats", _backward, setup_context=_context)
torch.library.register_autograd("lossk::elementwise_backward", no_double_backward)
