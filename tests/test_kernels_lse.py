"""cuda/head/lse held to the one numeric rule: in the emulator, and on a GPU where there is one."""

import pytest
import torch
from tolerance import assert_as_good_as_torch, assert_identical

from bench import kernels

SHAPES = [(1, 1, 8), (9, 130, 64), (130, 300, 136), (200, 513, 320)]


def _problem(n, v, d, dtype, device, scale=1.0):
    input = torch.randn(n, d) * scale * d**-0.5
    return input.to(device, dtype), torch.randn(v, d).to(device, dtype), torch.randint(v, (n,)).to(device)


def _reference(input, weight, target, dtype):
    logits = input.to(dtype) @ weight.to(dtype).T
    return logits.logsumexp(1), logits.gather(1, target[:, None])[:, 0]


@pytest.mark.parametrize("schedule", kernels.SCHEDULES, ids=lambda s: f"seed{s.seed}")
@pytest.mark.parametrize("dtype", kernels.ELEMENTS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_lse(shape, dtype, schedule, device):
    input, weight, target = _problem(*shape, dtype, device, scale=3)
    exact, torchs = (_reference(input, weight, target, t) for t in (torch.float64, torch.float32))
    for path in kernels.paths(device):
        got = kernels.lse(path, input, weight, target, segment=256, schedule=schedule)
        for name, mine, want, theirs in zip(("lse", "target_logit"), got, exact, torchs):
            assert_as_good_as_torch(mine, want, theirs, name=f"{path} {name}")


def test_lse_does_not_depend_on_the_schedule(device):
    problem = _problem(140, 600, 72, torch.bfloat16, device)
    for path in kernels.paths(device):
        results = [kernels.lse(path, *problem, segment=512, schedule=schedule) for schedule in kernels.SCHEDULES]
        for lse, target_logit in results[1:]:
            assert_identical(lse, results[0][0])
            assert_identical(target_logit, results[0][1])


def test_what_the_launcher_refuses_is_an_error(device):
    problem = _problem(4, 4, 8, torch.bfloat16, device)
    for path in kernels.paths(device):
        with pytest.raises(RuntimeError, match="invalid argument"):
            kernels.lse(path, *problem, segment=100)
