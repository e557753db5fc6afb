"""Errors for what a user passes, raised before any work: op, argument, expected, actual."""

import math
import os

import torch

FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def _shape(x):
    return f"{list(x.shape)}"


def tensor(op, name, x):
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"{op}: {name} must be a Tensor, got {type(x).__name__}")


def number(op, name, x, low=-math.inf, high=math.inf, expected="a finite number"):
    if isinstance(x, (torch.Tensor, bool)) or not isinstance(x, (int, float)):
        raise TypeError(f"{op}: {name} must be {expected}, got {type(x).__name__}")
    if not (-math.inf < x < math.inf and low <= x <= high):  # comparisons only: x may be symbolic under torch.compile
        raise ValueError(f"{op}: {name} must be {expected}, got {x}")


def positive(op, name, x):
    number(op, name, x, expected="a finite number > 0")
    if x <= 0:
        raise ValueError(f"{op}: {name} must be a finite number > 0, got {x}")


def softcap(op, x, prefix=""):
    if x is None:
        return
    number(op, f"{prefix}softcap", x, expected="None or a finite number > 0")
    if x <= 0:
        raise ValueError(f"{op}: {prefix}softcap must be None or a finite number > 0, got {x}")


def tau(op, x):
    """0.0 stands for None: an exact backward."""
    if x is None:
        return 0.0
    expected = "None or a number in (0, 1)"
    number(op, "tau", x, expected=expected)
    if not 0 < x < 1:
        raise ValueError(f"{op}: tau must be {expected}, got {x}")
    return float(x)


def reduction(op, x):
    if x not in ("mean", "sum", "none"):
        raise ValueError(f"{op}: reduction must be 'mean', 'sum' or 'none', got {x!r}")


def head(op, input, linear_weight, linear_bias=None, prefix="", weight="linear_weight"):
    """input [..., D] and linear_weight [V, D] of one float dtype and device, linear_bias [V]; prefix: of names."""
    names = [f"{prefix}input", f"{prefix}{weight}"]
    for name, x in zip(names, (input, linear_weight)):
        tensor(op, name, x)
        if x.dtype not in FLOATS:
            raise TypeError(f"{op}: {name} must be float32, bfloat16, float16 or float64, got {x.dtype}")
        reverse_mode_only(op, name, x)
    if input.dtype != linear_weight.dtype:
        raise TypeError(f"{op}: {names[1]} must have {names[0]}'s dtype {input.dtype}, got {linear_weight.dtype}")
    if input.dim() < 1:
        raise ValueError(f"{op}: {names[0]} must be [..., D], got {_shape(input)}")
    if linear_weight.dim() != 2 or linear_weight.shape[1] != input.shape[-1]:
        raise ValueError(f"{op}: {names[1]} must be [V, {input.shape[-1]}], got {_shape(linear_weight)}")
    device(op, names[1], linear_weight, input)
    if input.device.type == "cuda" and input.dtype == torch.float64:
        raise TypeError(f"{op}: {names[0]} must be float32, bfloat16 or float16 on CUDA, got torch.float64")
    if linear_bias is not None:
        floats(op, f"{prefix}linear_bias", linear_bias, linear_weight.shape[:1], input)


def reverse_mode_only(op, name, x):
    """torch would take an op's result for a constant, and its derivative for 0."""
    if not torch.compiler.is_compiling() and torch.autograd.forward_ad.unpack_dual(x).tangent is not None:
        raise RuntimeError(f"{op}: {name} must have no forward-mode tangent (torch.func.jvp), only backward() is there")


def device(op, name, x, like):
    if x.device != like.device:
        raise ValueError(f"{op}: {name} must be on input's device {like.device}, got {x.device}")


def floats(op, name, x, shape, like):
    """A float tensor of this shape on the device of `like`."""
    tensor(op, name, x)
    if not x.dtype.is_floating_point:
        raise TypeError(f"{op}: {name} must be a float tensor, got {x.dtype}")
    sized(op, name, x, shape, like)


def sized(op, name, x, shape, like):
    if tuple(x.shape) != tuple(shape):
        raise ValueError(f"{op}: {name} must have shape {list(shape)}, got {_shape(x)}")
    device(op, name, x, like)


def integers(op, name, x, shape, like):
    """Vocabulary indices: int64 (or a narrower integer) of this shape."""
    tensor(op, name, x)
    if x.dtype not in (torch.int64, torch.int32, torch.int16, torch.uint8, torch.int8):
        raise TypeError(f"{op}: {name} must be an integer tensor, got {x.dtype}")
    sized(op, name, x, shape, like)


def some(op, name, x):
    """At least one entry in the last dimension of a set of columns."""
    tensor(op, name, x)
    if x.dim() and x.shape[-1] == 0:
        raise ValueError(f"{op}: {name} must name at least one column, got {_shape(x)}")


def column_sets(op, name, x, rows, like):
    """Vocabulary indices [*rows, K], K >= 1."""
    some(op, name, x)
    integers(op, name, x, (*rows, x.shape[-1] if x.dim() else 1), like)


def may_look(x):
    """At the elements of a tensor: eager and on a CPU, for elsewhere it would cost a sync or break the graph; with
    LOSSK_CHECK=1 on a GPU too."""
    if torch.compiler.is_compiling() or type(x) is not torch.Tensor or x.numel() == 0:
        return False
    return x.device.type == "cpu" or os.environ.get("LOSSK_CHECK") == "1"


def all_positive(op, name, x):
    if may_look(x) and not (x > 0).all():
        at = (~(x > 0)).nonzero()[0].tolist()
        raise ValueError(f"{op}: {name} must be > 0, got {x[tuple(at)].item()} at {at}")


def in_vocab(op, name, x, vocab, absent):
    """Every entry in [0, vocab) or `absent`, where it may look; on a GPU the row's loss is nan otherwise."""
    if not may_look(x):
        return
    bad = ((x < 0) | (x >= vocab)) & (x != absent)
    if bad.any():
        at = bad.nonzero()[0].tolist()
        raise ValueError(f"{op}: {name} must be in [0, {vocab}) or {absent}, got {x[tuple(at)].item()} at {at}")


def none_failed(op, name, expected, failed):
    """failed [...]: not 0 where a factorisation found that `name` is not `expected`."""
    if may_look(failed) and failed.any():
        raise ValueError(f"{op}: {name} must be {expected}, got one whose leading minor {int(failed.max())} is not")
