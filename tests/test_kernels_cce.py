"""cuda/head/cce held to the one numeric rule: in the emulator, and on a GPU where there is one."""

import pytest
import torch
from tolerance import assert_as_good_as_torch, assert_identical

from bench import kernels

# (n, v, d, chunk), and how far logits spread: nearly flat, and rows that are sure of one column.
SHAPES = [(1, 1, 8, 8), (9, 130, 64, 64), (130, 300, 136, 256), (140, 513, 320, 256)]
SPREADS = [0.1, 3.0, 30.0]


def _problem(n, v, d, dtype, device, spread=3.0):
    input, weight = (torch.randn(n, d) * spread * d**-0.5).to(dtype), torch.randn(v, d).to(dtype)
    target, coef = torch.randint(v, (n,)), torch.randn(n) / n
    coef[::5] = 0
    return [x.to(device) for x in (input, weight, target, coef)]


def _gradients(input, weight, target, coef, dtype):
    """In `dtype`, the logits in float32 at least, as a careful user of torch would: (lse, d input, d weight)."""
    input, weight = (x.detach().to(dtype).requires_grad_() for x in (input, weight))
    logits = (input @ weight.T).to(torch.promote_types(dtype, torch.float32))
    lse = logits.logsumexp(1)
    loss = (lse - logits.gather(1, target[:, None])[:, 0]).to(coef.dtype) @ coef
    return lse.detach(), *torch.autograd.grad(loss, (input, weight))


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("dtype", kernels.ELEMENTS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradients(shape, dtype, spread, device):
    input, weight, target, coef = _problem(*shape[:3], dtype, device, spread)
    exact = _gradients(input, weight, target, coef.double(), torch.float64)
    torchs = _gradients(input, weight, target, coef, dtype)
    for path in kernels.paths(device):
        for schedule in kernels.SCHEDULES[:2]:
            lse, _ = kernels.lse(path, input, weight, target, schedule=schedule)
            got = kernels.cce_backward(path, input, weight, target, lse, coef, chunk=shape[3], schedule=schedule)
            for name, mine, want, theirs in zip(("d input", "d weight"), got, exact[1:], torchs[1:]):
                assert_as_good_as_torch(mine, want, theirs, name=f"{path} {name}")


def test_gradients_do_not_depend_on_the_schedule_or_on_rows_of_no_weight(device):
    input, weight, target, coef = _problem(140, 300, 72, torch.bfloat16, device)
    for path in kernels.paths(device):
        lse, _ = kernels.lse(path, input, weight, target)
        lse[coef == 0] = torch.nan
        first, *others = [
            kernels.cce_backward(path, input, weight, target, lse, coef, chunk=128, schedule=schedule)
            for schedule in kernels.SCHEDULES
        ]
        assert all(x.isfinite().all() for x in first)
        assert not first[0][coef == 0].any()
        for other in others:
            for a, b in zip(first, other):
                assert_identical(a, b)
