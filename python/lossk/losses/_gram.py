"""Sums over the vocabulary of logits and of their squares, from the weight's mean and D x D covariance alone."""

import torch

from .._head_ops import acc_dtype, weight_grad_dtype

_CHUNK_ELEMENTS = 1 << 22  # of the weight, widened at a time


def moments_of_weight(input, linear_weight, linear_bias=None):
    """Mean and variance over v of z = input linear_weight^T + linear_bias, each [N] in float32 (float64).

    mean = input m, variance = input G input^T with m the mean of the weight's rows and G their covariance: V D^2 +
    N D^2 operations where the logits take N V D, and no N x V buffer. Centred first, so that a mean far from 0 costs
    no digits.
    """
    acc = acc_dtype(input)
    mean, covariance, with_bias = _WeightMoments.apply(
        linear_weight, linear_bias, acc, weight_grad_dtype(linear_weight)
    )
    x = input.to(acc)
    variance = ((x @ covariance) * x).sum(-1)
    mean_logit = x @ mean
    if linear_bias is not None:
        centred = linear_bias - linear_bias.mean()
        variance = variance + 2 * (x @ with_bias) + centred.square().mean()
        mean_logit = mean_logit + linear_bias.mean()
    return mean_logit, variance.clamp(min=0)


class _WeightMoments(torch.autograd.Function):
    """m [D], G [D, D] = mean (w - m)(w - m)^T, and mean (b - mean b)(w - m) [D]; the weight is widened in chunks."""

    @staticmethod
    def forward(ctx, weight, bias, acc, grad_dtype):
        ctx.grad_dtype = grad_dtype
        vocab, dim = weight.shape
        mean = torch.zeros(dim, dtype=acc, device=weight.device)
        for rows, _ in _chunks(weight, acc):
            mean += rows.sum(0)
        mean = mean / max(vocab, 1)  # not in place: compiled by torch 2.11, the backward gets what it was before
        covariance = torch.zeros(dim, dim, dtype=acc, device=weight.device)
        with_bias = torch.zeros(dim if bias is not None else 0, dtype=acc, device=weight.device)
        centred = None if bias is None else bias - bias.mean()
        for rows, at in _chunks(weight, acc):
            rows = rows - mean
            covariance += rows.mT @ rows
            if bias is not None:
                with_bias += centred[at] @ rows
        ctx.save_for_backward(weight, bias, mean)
        return mean, covariance / max(vocab, 1), with_bias / max(vocab, 1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g_mean, g_covariance, g_bias):
        weight, bias, mean = ctx.saved_tensors
        acc, vocab = mean.dtype, max(weight.shape[0], 1)
        # sum_v (w - m) is 0, so m's own derivative within the centred sums is too
        both = (g_covariance + g_covariance.mT) / vocab
        centred = None if bias is None else bias - bias.mean()
        grad = torch.empty_like(weight, dtype=ctx.grad_dtype)
        grad_bias = None if bias is None else torch.empty_like(bias)
        for rows, at in _chunks(weight, acc):
            rows = rows - mean
            g = rows @ both + g_mean / vocab
            if bias is not None:
                g = g + centred[at, None] * (g_bias / vocab)
                grad_bias[at] = rows @ (g_bias / vocab)
            grad[at] = g.to(ctx.grad_dtype)
        return grad, grad_bias, None, None


def _chunks(weight, acc):
    step = max(_CHUNK_ELEMENTS // max(weight.shape[1], 1), 1)
    for first in range(0, weight.shape[0], step):
        at = slice(first, first + step)
        yield weight[at].to(acc), at


def sum_of_units(weight):
    """sum_v w_v / |w_v|, [D] in float32 (float64); a zero vector adds nothing."""
    return _SumOfUnits.apply(weight, acc_dtype(weight), weight_grad_dtype(weight))


class _SumOfUnits(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight, acc, grad_dtype):
        ctx.grad_dtype = grad_dtype
        ctx.save_for_backward(weight)
        total = torch.zeros(weight.shape[1], dtype=acc, device=weight.device)
        for rows, _ in _chunks(weight, acc):
            total += torch.nn.functional.normalize(rows, dim=1).sum(0)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        (weight,) = ctx.saved_tensors
        grad = torch.empty_like(weight, dtype=ctx.grad_dtype)
        for rows, at in _chunks(weight, g.dtype):
            length = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
            unit = rows / torch.where(length > 0, length, 1)
            across = g - (unit @ g)[:, None] * unit
            grad[at] = torch.where(length > 0, across / length, 0).to(ctx.grad_dtype)
        return grad, None, None
