"""Fakes and gradients of the ops that compare logits; schemas in cpp/ops.cpp, kinds in cpp/head/compare.h."""

import torch

from ._head_ops import acc_dtype, backward_grads, no_double_backward, only_wanted, wants_fp32_grad
from ._library import explain_missing_cuda

explain_missing_cuda(
    "linear_divergence", "linear_divergence_backward", "linear_pairwise", "linear_pairwise_backward", "linear_topk",
    "linear_sample",
)  # fmt: skip


# ---- linear_divergence -----------------------------------------------------------------------------------------------

OF_PROBABILITIES = ("forward_kl", "reverse_kl", "mean", "jsd", "skew_kl", "alpha", "tvd")


def divergence(student, teacher, active, kind, beta):
    """[N] of two _arguments.Head, 0 in rows that are not active."""
    stats = torch.ops.lossk.linear_divergence(
        *student[:4], *teacher[:4], active, student.softcap, teacher.softcap, kind, float(beta)
    )
    # Its gradient goes by A alone: of probabilities the backward takes that of A + B for it.
    return stats[4] + stats[5].detach() if kind in OF_PROBABILITIES else stats[4]


@torch.library.register_fake("lossk::linear_divergence")
def _(input, *args):
    return input.new_empty((6, input.shape[0]), dtype=acc_dtype(input))


@torch.library.register_fake("lossk::linear_divergence_backward")
def _(input, linear_weight, linear_bias, scale, teacher_input, teacher_weight, *args):
    needs, fp32 = args[-2:]
    return (
        *backward_grads(input, linear_weight, needs[:4], fp32[0]),
        *backward_grads(teacher_input, teacher_weight, needs[4:], fp32[1]),
    )


def _divergence_context(ctx, inputs, output):
    *tensors, ctx.softcap, ctx.teacher_softcap, ctx.kind, ctx.beta = inputs
    ctx.weight_grad_fp32 = [wants_fp32_grad(tensors[1]), wants_fp32_grad(tensors[5])]
    ctx.save_for_backward(*tensors, output)


def _divergence_backward(ctx, g_stats):
    *tensors, stats = ctx.saved_tensors
    needs = list(ctx.needs_input_grad[:8])
    grads = torch.ops.lossk.linear_divergence_backward(
        *tensors, ctx.softcap, ctx.teacher_softcap, ctx.kind, ctx.beta, stats, g_stats[4].contiguous(), needs,
        ctx.weight_grad_fp32,
    )  # fmt: skip
    return *only_wanted(needs, grads), *[None] * 5


torch.library.register_autograd("lossk::linear_divergence", _divergence_backward, setup_context=_divergence_context)
torch.library.register_autograd("lossk::linear_divergence_backward", no_double_backward)


# ---- linear_pairwise -------------------------------------------------------------------------------------------------


def pairwise_sums(h, offset, skip, active, *, kind, beta=1.0, shift=None):
    """[N]: sum over the columns but skip [N] (None: over all) of kind's function of z - offset [N], differentiable also
    by offset; `shift` [N], of the psl kinds, is not. 0 in rows that are not active.
    """
    offset = torch.stack([offset, torch.zeros_like(offset) if shift is None else shift.detach()])
    return torch.ops.lossk.linear_pairwise(*h[:4], offset, skip, active, h.softcap, kind, float(beta))[0]


@torch.library.register_fake("lossk::linear_pairwise")
def _(input, *args):
    return input.new_empty((2, input.shape[0]), dtype=acc_dtype(input))


@torch.library.register_fake("lossk::linear_pairwise_backward")
def _(input, linear_weight, *args):
    return backward_grads(input, linear_weight, *args[-2:])


def _pairwise_context(ctx, inputs, output):
    *tensors, ctx.softcap, ctx.kind, ctx.beta = inputs
    ctx.weight_grad_fp32 = wants_fp32_grad(tensors[1])
    ctx.save_for_backward(*tensors, output)


def _pairwise_backward(ctx, g_sums):
    *tensors, sums = ctx.saved_tensors
    needs, g_offset = list(ctx.needs_input_grad[:4]), None
    grads = torch.ops.lossk.linear_pairwise_backward(
        *tensors, ctx.softcap, ctx.kind, ctx.beta, g_sums[0].contiguous(), needs, ctx.weight_grad_fp32
    )
    if ctx.needs_input_grad[4]:
        g_offset = torch.stack([-g_sums[0] * sums[1], torch.zeros_like(sums[1])])
    return *only_wanted(needs, grads), g_offset, *[None] * 5


torch.library.register_autograd("lossk::linear_pairwise", _pairwise_backward, setup_context=_pairwise_context)
torch.library.register_autograd("lossk::linear_pairwise_backward", no_double_backward)


# ---- linear_topk, linear_sample --------------------------------------------------------------------------------------


@torch.library.register_fake("lossk::linear_topk")
def _(input, linear_weight, linear_bias, scale, active, softcap, k):
    new = lambda *shape: input.new_empty(shape, dtype=acc_dtype(input))  # noqa: E731
    return new(input.shape[0], k), input.new_empty((input.shape[0], k), dtype=torch.int64), new(input.shape[0])


@torch.library.register_fake("lossk::linear_sample")
def _(input, linear_weight, linear_bias, scale, softcap, seed):
    n = input.shape[0]
    return input.new_empty(n, dtype=torch.int64), input.new_empty(n, dtype=acc_dtype(input))
