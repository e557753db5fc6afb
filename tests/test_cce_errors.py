"""Every bad input of linear_cross_entropy is refused before any work, by name, with what was expected and what came."""

import math
import re

import pytest
import torch
from lossk import linear_cross_entropy
from problem import random_problem

X, W, Y = torch.randn(6, 8), torch.randn(33, 8), torch.randint(33, (6,))
INDICES, SHARES = torch.randint(33, (6, 3)), torch.rand(6, 3)


def soft(indices, weights):
    return dict(target=None, soft_target=(indices, weights))


def at(index, value):
    y = Y.clone()
    y[index] = value
    return y


# what is wrong: (changed arguments, exception, words of the message: the argument, what was expected, what came)
CASES = {
    "hidden mismatch": (dict(linear_weight=torch.randn(33, 9)), ValueError, ["linear_weight", "8", "9"]),
    "weight is a vector": (dict(linear_weight=torch.randn(8)), ValueError, ["linear_weight", "8"]),
    "weight has three dims": (dict(linear_weight=torch.randn(2, 33, 8)), ValueError, ["linear_weight", "2, 33, 8"]),
    "input is a scalar": (dict(input=torch.tensor(1.0)), ValueError, ["input"]),
    "target too short": (dict(target=Y[:5]), ValueError, ["target", "6", "5"]),
    "target of the wrong rank": (dict(target=Y[:, None]), ValueError, ["target", "6", "6, 1"]),
    "bias too long": (dict(linear_bias=torch.randn(34)), ValueError, ["linear_bias", "33", "34"]),
    "bias of the wrong rank": (dict(linear_bias=torch.randn(33, 1)), ValueError, ["linear_bias", "33, 1"]),
    "class weight too short": (dict(weight=torch.rand(32)), ValueError, ["weight", "33", "32"]),
    "token weight too short": (dict(token_weight=torch.rand(5)), ValueError, ["token_weight", "6", "5"]),
    "scale too long": (dict(scale=torch.rand(7)), ValueError, ["scale", "6", "7"]),
    "soft indices too few": (soft(INDICES[:5], SHARES[:5]), ValueError, ["soft_target", "6", "5"]),
    "soft weights of another width": (soft(INDICES, SHARES[:, :2]), ValueError, ["soft_target", "3", "2"]),
    "integer input": (dict(input=X.long(), linear_weight=W.long()), TypeError, ["input", "int64"]),
    "complex input": (dict(input=X + 0j, linear_weight=W + 0j), TypeError, ["input", "complex64"]),
    "two dtypes": (dict(linear_weight=W.bfloat16()), TypeError, ["linear_weight", "float32", "bfloat16"]),
    "float target": (dict(target=Y.float()), TypeError, ["target", "integer", "float32"]),
    "bool target": (dict(target=Y > 3), TypeError, ["target", "integer", "bool"]),
    "integer bias": (dict(linear_bias=torch.ones(33).long()), TypeError, ["linear_bias", "int64"]),
    "integer class weight": (dict(weight=torch.ones(33).long()), TypeError, ["weight", "int64"]),
    "integer token weight": (dict(token_weight=Y), TypeError, ["token_weight", "int64"]),
    "integer scale tensor": (dict(scale=Y), TypeError, ["scale", "int64"]),
    "float soft indices": (soft(SHARES, SHARES), TypeError, ["soft_target", "integer", "float32"]),
    "integer soft weights": (soft(INDICES, INDICES), TypeError, ["soft_target", "int64"]),
    "soft target is no pair": (dict(target=None, soft_target=SHARES), (TypeError, ValueError), ["soft_target"]),
    "not a tensor": (dict(input=[[1.0] * 8] * 6), TypeError, ["input", "list"]),
    "weight is not a tensor": (dict(linear_weight=None), TypeError, ["linear_weight", "NoneType"]),
    "weight elsewhere": (dict(linear_weight=W.to("meta")), (ValueError, TypeError), ["linear_weight", "cpu", "meta"]),
    "target elsewhere": (dict(target=Y.to("meta")), (ValueError, TypeError), ["target", "cpu", "meta"]),
    "bias elsewhere": (dict(linear_bias=W[:, 0].to("meta")), (ValueError, TypeError), ["linear_bias", "meta"]),
    "target past the vocabulary": (dict(target=at(4, 33)), ValueError, ["target", "33"]),
    "target far past the vocabulary": (dict(target=at(4, 2**40)), ValueError, ["target", "33", str(2**40)]),
    "negative target": (dict(target=at(4, -1)), ValueError, ["target", "33", "-1"]),
    "not the ignore_index that was set": (dict(target=at(4, -100), ignore_index=-1), ValueError, ["target", "-100"]),
    "soft index past the vocabulary": (soft(INDICES + 33, SHARES), ValueError, ["soft_target", "33"]),
    "no target": (dict(target=None), (TypeError, ValueError), ["target", "soft_target"]),
    "both targets": (dict(soft_target=(INDICES, SHARES)), (TypeError, ValueError), ["target", "soft_target"]),
    "margin with a soft target": (soft(INDICES, SHARES) | dict(margin=0.3), ValueError, ["margin", "soft_target"]),
    "unknown reduction": (dict(reduction="max"), ValueError, ["reduction", "mean", "sum", "none", "max"]),
    "softcap zero": (dict(softcap=0.0), ValueError, ["softcap", "0"]),
    "softcap negative": (dict(softcap=-3.0), ValueError, ["softcap", "-3"]),
    "softcap nan": (dict(softcap=math.nan), ValueError, ["softcap", "nan"]),
    "softcap infinite": (dict(softcap=math.inf), ValueError, ["softcap", "inf"]),
    "label smoothing below 0": (dict(label_smoothing=-0.1), ValueError, ["label_smoothing", "-0.1"]),
    "label smoothing above 1": (dict(label_smoothing=1.1), ValueError, ["label_smoothing", "1.1"]),
    "label smoothing nan": (dict(label_smoothing=math.nan), ValueError, ["label_smoothing", "nan"]),
    "z loss nan": (dict(z_loss=math.nan), ValueError, ["z_loss", "nan"]),
    "z loss infinite": (dict(z_loss=math.inf), ValueError, ["z_loss", "inf"]),
    "margin nan": (dict(margin=math.nan), ValueError, ["margin", "nan"]),
    "scale nan": (dict(scale=math.nan), ValueError, ["scale", "nan"]),
    "shift negative": (dict(shift=-1), ValueError, ["shift", "-1"]),
    "shift of the whole length": (dict(shift=6), ValueError, ["shift", "6"]),
    "shift past the length": (dict(shift=7), ValueError, ["shift", "6", "7"]),
    "shift without a dimension": (dict(input=X[0], target=Y[0], shift=1), ValueError, ["shift"]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_refused(case):
    changes, exception, words = CASES[case]
    arguments = dict(input=X, linear_weight=W, target=Y) | changes
    before = {k: v.clone() for k, v in arguments.items() if isinstance(v, torch.Tensor) and v.device.type == "cpu"}
    with pytest.raises(exception) as error:
        linear_cross_entropy(**arguments)
    message = str(error.value)
    for word in ["linear_cross_entropy", *words]:
        assert re.search(rf"(?<!\w){re.escape(word)}(?![\w])", message), f"{word!r} is not in: {message}"
    assert all(torch.equal(arguments[k], v) for k, v in before.items())


OP_CASES = {
    "hidden mismatch": ((X, W[:, :7], Y), {}, "linear_weight"),
    "target past the vocabulary": ((X, W, Y + 33), {}, "target"),
    "float target": ((X, W, Y.float()), {}, "target"),
    "bias too long": ((X, W, Y, torch.ones(34)), {}, "linear_bias"),
    "unknown reduction": ((X, W, Y), dict(reduction="max"), "reduction"),
    "softcap negative": ((X, W, Y), dict(softcap=-1.0), "softcap"),
    "shift too long": ((X, W, Y), dict(shift=6), "shift"),
}


@pytest.mark.parametrize("case", OP_CASES)
def test_the_op_refuses_too(case):
    arguments, options, word = OP_CASES[case]
    with pytest.raises((ValueError, TypeError, RuntimeError), match=r"cce|linear_cross_entropy") as error:
        torch.ops.lossk.cce(*arguments, **options)
    assert word in str(error.value)


def test_an_ignored_target_need_not_be_in_the_vocabulary():
    for ignore_index in (-100, -1, 33, 2**40, -(2**62)):
        y = at([1, 4], ignore_index)
        assert linear_cross_entropy(X, W, y, ignore_index=ignore_index, reduction="none")[[1, 4]].tolist() == [0, 0]


def test_a_failed_call_leaves_the_next_one_alone():
    p = random_problem(50, 203, 40)
    before = linear_cross_entropy(**p.arguments())
    with pytest.raises(ValueError):
        linear_cross_entropy(**p.with_(target=p.tensors["target"].where(p.tensors["target"] != -100, 203)).arguments())
    assert torch.equal(linear_cross_entropy(**p.arguments()), before)


def test_an_index_outside_the_vocabulary(device, gpu_kernels):
    """The CPU op refuses it; a GPU's, which cannot without waiting for it, makes nan of it and of nothing else."""
    input, weight = torch.randn(5, 8, device=device), torch.randn(33, 8, device=device)
    index = torch.tensor([[0], [33], [-1], [2**40], [-7]], device=device)
    call = lambda: torch.ops.lossk.linear_stats(  # noqa: E731
        input, weight, None, None, index, None, None, 0.0, 0.0, True, 0.0, True, 0
    )
    if not gpu_kernels:
        with pytest.raises(RuntimeError, match=r"index must be in \[0, 33\) or -1, got 33 at \[1, 0\]"):
            call()
        return
    stats, logits, logp, *_ = call()
    assert stats.isfinite().all()
    for x in (logits, logp):
        assert x[:, 0].isnan().tolist() == [False, True, False, True, True] and x[2, 0] == 0


def test_a_target_outside_the_vocabulary_is_an_error_where_asked(device, monkeypatch):
    monkeypatch.setenv("LOSSK_CHECK", "1")
    input, weight = torch.randn(2, 8, device=device), torch.randn(33, 8, device=device)
    for wrong in (33, -7):
        with pytest.raises(ValueError, match=rf"target must be in \[0, 33\) or -100, got {wrong} at \[1\]"):
            linear_cross_entropy(input, weight, torch.tensor([0, wrong], device=device))
