"""What every head takes, checked, as the ops take it."""

from typing import NamedTuple

import torch

from . import _check
from ._head_ops import acc_dtype


class Head(NamedTuple):
    """Checked arguments as the ops take them: rows flattened, float32 (float64) beside the two matrices."""

    input: torch.Tensor
    linear_weight: torch.Tensor
    linear_bias: torch.Tensor | None
    scale: torch.Tensor | None
    softcap: float
    acc: torch.dtype
    shape: torch.Size  # of the rows


def head(
    op, input, linear_weight, linear_bias=None, scale=1.0, softcap=None, scale_name="scale", prefix="",
    weight_name="linear_weight",
):  # fmt: skip
    device = input.device.type if isinstance(input, torch.Tensor) else "meta"
    if device in ("cpu", "cuda") and torch.is_autocast_enabled(device):  # others have no kernels
        dtype = torch.get_autocast_dtype(device)
        cast = lambda x: x.to(dtype) if isinstance(x, torch.Tensor) and x.dtype in _check.FLOATS[:3] else x  # noqa: E731
        input, linear_weight = cast(input), cast(linear_weight)
    _check.head(op, input, linear_weight, linear_bias, prefix, weight_name)
    _check.softcap(op, softcap, prefix)
    shape, acc = input.shape[:-1], acc_dtype(input)
    if isinstance(scale, torch.Tensor):
        _check.floats(op, scale_name, scale, shape, input)
        scale = scale.to(acc).reshape(-1)
    else:
        _check.number(op, scale_name, scale, expected="a finite number or a Tensor")
        scale = None if scale == 1 else input.new_full((shape.numel(),), scale, dtype=acc)
    bias = None if linear_bias is None else linear_bias.to(acc)
    return Head(
        input.reshape(shape.numel(), input.shape[-1]), linear_weight, bias, scale, float(softcap or 0), acc, shape
    )


def same_rows_and_vocabulary(op, student, teacher):
    """Of two heads: the tokens, the vocabulary, the device, and float64 both or neither."""
    if teacher.shape != student.shape:
        raise ValueError(
            f"{op}: teacher_input must have input's tokens {list(student.shape)}, got {list(teacher.shape)}"
        )
    if teacher.acc != student.acc:
        raise TypeError(
            f"{op}: teacher_input must be float64 where input is, and only there, got {teacher.input.dtype}"
        )
    vocab, other = student.linear_weight.shape[0], teacher.linear_weight.shape[0]
    if other != vocab:
        raise ValueError(f"{op}: teacher_linear_weight must have linear_weight's vocabulary of {vocab}, got {other}")
    _check.device(op, "teacher_input", teacher.input, student.input)


def one_over(op, name, temperature):
    """The scale of logits that are divided by a temperature, a number > 0 or a tensor."""
    if isinstance(temperature, torch.Tensor):
        _check.all_positive(op, name, temperature)
        return temperature.reciprocal()
    _check.number(op, name, temperature, expected="a number > 0 or a Tensor")
    if temperature <= 0:
        raise ValueError(f"{op}: {name} must be a number > 0 or a Tensor, got {temperature}")
    return 1.0 / temperature


def targets(op, h, vocab, target, soft_target, ignore_index, margin):
    """Picked columns [N, K] (-1: none) and their shares of the target distribution."""
    if (target is None) == (soft_target is None):
        raise ValueError(f"{op}: exactly one of target and soft_target must be given")
    if soft_target is None:
        _check.integers(op, "target", target, h.shape, h.input)
        _check.in_vocab(op, "target", target, vocab, ignore_index)
        index = target.reshape(-1, 1).long()
        share = index.new_ones(index.shape, dtype=h.acc)
    else:
        if margin:
            raise ValueError(f"{op}: margin must be 0 with soft_target, which has no single target, got {margin}")
        if not isinstance(soft_target, (tuple, list)) or len(soft_target) != 2:
            raise TypeError(f"{op}: soft_target must be a pair (indices, weights), got {type(soft_target).__name__}")
        indices, weights = soft_target
        _check.column_sets(op, "soft_target indices", indices, h.shape, h.input)
        _check.floats(op, "soft_target weights", weights, indices.shape, h.input)
        _check.in_vocab(op, "soft_target indices", indices, vocab, ignore_index)
        # Contiguous: a GPU sums a row's entries in an order that depends on strides.
        index, share = (x.reshape(h.shape.numel(), x.shape[-1]).contiguous() for x in (indices, weights))
        index, share = index.long(), share.to(h.acc)
    return absent_as_minus_one(index, vocab, ignore_index), torch.where(index == ignore_index, 0, share)


def absent_as_minus_one(index, vocab, ignore_index):
    """index with -1 where it is ignore_index."""
    ignored = index == ignore_index
    if index.device.type != "cpu":  # in_vocab has not looked: what is below 0 must not pass for absent
        index = torch.where(index < 0, vocab, index)
    return torch.where(ignored, -1, index)
