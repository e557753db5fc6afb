"""Fakes and gradients of the head's ops; schemas in cpp/ops.cpp."""

import torch

from . import _keep, _live
from ._library import build_info, explain_missing_cuda

# Rows of linear_stats' first output; without `full`, the first three. low: what float32 leaves off the row before.
STATS = (
    "lse", "lse_low", "slope", "lse_excl", "lse_excl_low", "mean_logit", "entropy", "lse2", "aux_mean", "aux_logp",
    "max", "min",
)  # fmt: skip

explain_missing_cuda("linear_stats", "linear_stats_backward", "linear_live_backward", "cce_forward")


def acc_dtype(input):
    """What statistics, losses and sums are kept in."""
    return torch.float64 if input.dtype == torch.float64 else torch.float32


def wants_fp32_grad(weight):
    """torch >= 2.13 lets a leaf ask for gradients wider than itself: weight.grad_dtype = torch.float32."""
    half = weight.dtype in (torch.bfloat16, torch.float16)
    return half and weight.is_leaf and getattr(weight, "grad_dtype", None) == torch.float32


# What a CPU multiplies so fast that logits are made again sooner than d weight is added up in float32.
_FAST_PRODUCTS = (torch.bfloat16,) if build_info()["cpu"]["bfloat16"] == "amxbf16" else ()


def gradient_in_forward(input):
    """Is cce_forward, which has the gradients ready but keeps d weight in float32, all of it, what is faster?"""
    return input.device.type == "cpu" and input.dtype not in _FAST_PRODUCTS


def weight_grad_dtype(weight):
    return torch.float32 if wants_fp32_grad(weight) else weight.dtype


@torch.library.register_fake("lossk::linear_stats")
def _(input, linear_weight, linear_bias, scale, index, aux, active, softcap, margin, full, tau, fill, keep):
    n, k = input.shape[0], 0 if index is None else index.shape[1]
    new = lambda *shape: input.new_empty(shape, dtype=acc_dtype(input))  # noqa: E731
    argmax = input.new_empty(n if full else 0, dtype=torch.int64)
    sketch = input.new_empty((blocks_of(n) if tau else 0, linear_weight.shape[0]), dtype=torch.bfloat16)
    kept = input.new_empty((n, _keep.line(keep)), dtype=torch.int16)
    return new(len(STATS) if full else 3, n), new(n, k), new(n, k), argmax, sketch, kept


def blocks_of(rows):
    return -(-rows // _live.BLOCK)


def grads_like(input, linear_weight, needs_grad, input_dtype, weight_dtype):
    acc = acc_dtype(input)
    shapes = (input.shape, linear_weight.shape, linear_weight.shape[:1], input.shape[:1])
    return tuple(
        input.new_empty(shape if need else (0,), dtype=dtype)
        for need, shape, dtype in zip(needs_grad, shapes, (input_dtype, weight_dtype, acc, acc))
    )


def backward_grads(input, linear_weight, needs_grad, weight_grad_fp32):
    weight_dtype = acc_dtype(input) if weight_grad_fp32 else linear_weight.dtype
    return grads_like(input, linear_weight, needs_grad, input.dtype, weight_dtype)


@torch.library.register_fake("lossk::linear_stats_backward")
def _(input, linear_weight, *args):
    return backward_grads(input, linear_weight, *args[-2:])


@torch.library.register_fake("lossk::linear_live_backward")
def _(input, linear_weight, *args):
    grads = backward_grads(input, linear_weight, *args[-2:])
    return *grads, input.new_empty((4, blocks_of(input.shape[0])), dtype=torch.float32)


@torch.library.register_fake("lossk::cce_forward")
def _(input, linear_weight, *args):
    acc = acc_dtype(input)
    loss, lse = input.new_empty((), dtype=acc), input.new_empty(input.shape[0], dtype=acc)
    return loss, lse, *grads_like(input, linear_weight, args[-1], acc, acc)


def only_wanted(needs_grad, grads):
    return tuple(grad if need else None for need, grad in zip(needs_grad, grads))


# ---- linear_stats ----------------------------------------------------------------------------------------------------


def _stats_context(ctx, inputs, output):
    *tensors, ctx.softcap, ctx.margin, ctx.full, ctx.tau, ctx.fill, ctx.keep = inputs
    stats, logits, _, argmax, sketch, kept = output
    ctx.weight_grad_fp32 = wants_fp32_grad(tensors[1])
    ctx.mark_non_differentiable(argmax, sketch, kept)
    ctx.save_for_backward(*tensors, stats, sketch, *((logits, kept) if ctx.keep else (None, None)))


def _stats_backward(ctx, g_stats, g_logits, g_logp, *_):
    *tensors, stats, sketch, logits, kept = ctx.saved_tensors
    index, aux = tensors[4], tensors[5]
    if ctx.full:
        lse, _, _, _, _, _, entropy, lse2, aux_mean, *_ = stats.unbind()
        g_lse, _, _, g_excl, _, g_mean, g_entropy, g_lse2, g_aux_mean, g_aux_logp, *_ = g_stats.unbind()
        aux_sum = tensors[1].shape[0] if aux is None else aux.sum()
        # d mean_logit / dz = p (1 + log p + entropy), d entropy / dz = -p (log p + entropy): no large z that cancels
        a0 = g_lse + g_mean * (1 + entropy) - g_entropy * entropy - g_aux_mean * aux_mean - g_aux_logp * aux_sum
        a2 = 2 * g_lse2 * torch.exp(2 * lse - lse2)
        rows = [a0, g_mean - g_entropy, a2, g_aux_mean, g_excl, g_aux_logp]
    else:
        rows = [g_stats[0]]
    rows[0] = rows[0] - g_logp.sum(1)
    row_coef, index_coef = torch.stack(rows), None if index is None else -(g_logits + g_logp)
    needs = ctx.needs_input_grad[:4]
    head, last = (*tensors, ctx.softcap, ctx.margin), (list(needs), ctx.weight_grad_fp32)
    if ctx.tau:
        *grads, live = torch.ops.lossk.linear_live_backward(
            *head, stats, sketch, row_coef, index_coef, ctx.tau, ctx.fill, *last
        )
        _live.record(live)
    else:
        lse_excl = stats[3:5] if ctx.full else None
        of_kept = (logits, kept, ctx.keep)
        grads = torch.ops.lossk.linear_stats_backward(*head, stats[:2], lse_excl, row_coef, index_coef, *of_kept, *last)
    return *only_wanted(needs, grads), *[None] * 9


torch.library.register_autograd("lossk::linear_stats", _stats_backward, setup_context=_stats_context)


# ---- no second derivative --------------------------------------------------------------------------------------------


def no_double_backward(ctx, *grads):
    raise RuntimeError(
        "lossk: the gradient of a fused head (linear_cross_entropy, linear_stats, linear_divergence, ...) cannot be "
        "differentiated again; where second derivatives are needed, use torch.nn.functional.cross_entropy"
    )


class _Last(torch.autograd.Function):
    """A gradient that depends on its inputs, but whose own gradient is an error."""

    @staticmethod
    def forward(ctx, grad, *inputs):
        return grad.view_as(grad)

    backward = staticmethod(no_double_backward)


torch.library.register_autograd("lossk::linear_stats_backward", no_double_backward)
torch.library.register_autograd("lossk::linear_live_backward", no_double_backward)


# ---- cce_forward -----------------------------------------------------------------------------------------------------


def _fused_context(ctx, inputs, output):
    ctx.dtypes = [inputs[0].dtype, weight_grad_dtype(inputs[1]), acc_dtype(inputs[0]), acc_dtype(inputs[0])]
    ctx.needs, ctx.arguments = inputs[-1], len(inputs)
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)  # else zeros of the size of each output, [V, D] among them
    ctx.save_for_backward(*output[2:], *inputs[: len(ctx.needs)])


def _scaled(grad, upstream, dtype):
    # loss.backward() sends exactly 1: no copy of [V, D] then. A graph being traced, or a GPU, cannot look. Where the
    # graph is retained the caller must not get the saved gradient itself: autograd would add the next one into it.
    if type(upstream) is torch.Tensor and upstream.device.type == "cpu" and not _graph_is_kept() and upstream == 1:
        return grad.to(dtype)
    return (grad * upstream).to(dtype)


def _graph_is_kept():
    ask = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)
    return True if ask is None else ask()


def _fused_backward(ctx, g_loss, *_):
    if g_loss is None:
        return (None,) * ctx.arguments
    tensors, count = ctx.saved_tensors, len(ctx.needs)  # once: a checkpoint makes them again each time
    saved, inputs = tensors[:count], tensors[count:]
    grads = [_scaled(grad, g_loss, dtype) if need else None for need, grad, dtype in zip(ctx.needs, saved, ctx.dtypes)]
    if torch.is_grad_enabled():  # create_graph: the saved gradients would pass for constants
        grads = [None if grad is None else _Last.apply(grad, *inputs) for grad in grads]
    return *grads, *[None] * (ctx.arguments - count)


def register_fused(op):
    """Autograd of an op whose forward has made its gradients, (loss, _, *gradients by its first tensors), and whose
    last argument says which of these are wanted."""
    torch.library.register_autograd(op, _fused_backward, setup_context=_fused_context)


register_fused("lossk::cce_forward")
