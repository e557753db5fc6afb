"""Fakes and gradients of the ops of distance heads; schemas in cpp/ops.cpp, formulas in cpp/head/distance.h."""

import torch

from . import _elementwise_ops, _live  # noqa: F401  # the former's ops too
from ._head_ops import (
    acc_dtype,
    backward_grads,
    blocks_of,
    grads_like,
    no_double_backward,
    only_wanted,
    register_fused,
    wants_fp32_grad,
)  # fmt: skip
from ._library import explain_missing_cuda

explain_missing_cuda("harmonic_stats", "harmonic_backward", "harmonic_live_backward", "harmonic_forward")

LSE, LSE_LOW, SLOPE, SUM_Z = range(4)  # rows of harmonic_stats


def _points(needs_grad):
    return [*needs_grad, False, False]


@torch.library.register_fake("lossk::harmonic_stats")
def _(input, linear_weight, rows, columns, index, active, kind, power, dense, tau, fill):
    n = input.shape[0]
    stats = input.new_empty((4, n), dtype=acc_dtype(input))
    return stats, input.new_empty((blocks_of(n) if tau else 0, linear_weight.shape[0]), dtype=torch.bfloat16)


@torch.library.register_fake("lossk::harmonic_backward")
def _(input, linear_weight, *args):
    return backward_grads(input, linear_weight, _points(args[-2]), args[-1])[:2]


@torch.library.register_fake("lossk::harmonic_live_backward")
def _(input, linear_weight, *args):
    grads = backward_grads(input, linear_weight, _points(args[-2]), args[-1])[:2]
    return *grads, input.new_empty((4, blocks_of(input.shape[0])), dtype=torch.float32)


@torch.library.register_fake("lossk::harmonic_forward")
def _(input, linear_weight, *args):
    acc = acc_dtype(input)
    loss, lse = input.new_empty((), dtype=acc), input.new_empty(input.shape[0], dtype=acc)
    return loss, lse, *grads_like(input, linear_weight, _points(args[-1]), acc, acc)[:2]


def _stats_context(ctx, inputs, output):
    *tensors, ctx.kind, ctx.power, ctx.dense, ctx.tau, ctx.fill = inputs
    stats, sketch = output
    ctx.weight_grad_fp32 = wants_fp32_grad(tensors[1])
    ctx.mark_non_differentiable(sketch)
    ctx.save_for_backward(*tensors, stats, sketch)


def _stats_backward(ctx, g_stats, _):
    *tensors, stats, sketch = ctx.saved_tensors
    vocab = tensors[1].shape[0]
    # The target's z is 0 because the others are relative to it: lse's gradient is p - onehot, that of their sum 1 - V
    # onehot.
    at_target, rows = g_stats[LSE], [g_stats[LSE]]
    if ctx.dense:
        rows.append(g_stats[SUM_Z])
        at_target = at_target + vocab * g_stats[SUM_Z]
    coefs = (torch.stack(rows), at_target.unsqueeze(1))
    needs = list(ctx.needs_input_grad[:2])
    head, last = (*tensors, ctx.kind, ctx.power), (needs, ctx.weight_grad_fp32)
    if ctx.tau:
        *grads, live = torch.ops.lossk.harmonic_live_backward(*head, stats, sketch, *coefs, ctx.tau, ctx.fill, *last)
        _live.record(live)
    else:
        grads = torch.ops.lossk.harmonic_backward(*head, stats[:2], *coefs, *last)
    return *only_wanted(needs, grads), *[None] * 9


torch.library.register_autograd("lossk::harmonic_stats", _stats_backward, setup_context=_stats_context)
torch.library.register_autograd("lossk::harmonic_backward", no_double_backward)
torch.library.register_autograd("lossk::harmonic_live_backward", no_double_backward)
register_fused("lossk::harmonic_forward")
