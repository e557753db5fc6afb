"""cuda/head/lse in the emulator, held to the one numeric rule."""

import pytest
import torch

from tests import emulated
from tests.tolerance import assert_as_good_as_torch, assert_identical

SHAPES = [(1, 1, 8), (9, 130, 64), (130, 300, 136), (200, 513, 320)]


def _problem(n, v, d, dtype, scale=1.0):
    input = (torch.randn(n, d) * scale * d**-0.5).to(dtype)
    return input, torch.randn(v, d).to(dtype), torch.randint(v, (n,))


def _reference(input, weight, target, dtype):
    logits = input.to(dtype) @ weight.to(dtype).T
    return logits.logsumexp(1), logits.gather(1, target[:, None])[:, 0]


@pytest.mark.parametrize("schedule", emulated.SCHEDULES, ids=lambda s: f"seed{s.seed}")
@pytest.mark.parametrize("dtype", emulated.ELEMENTS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("hopper", [False, True], ids=["mma", "wgmma"])
def test_lse(hopper, shape, dtype, schedule):
    input, weight, target = _problem(*shape, dtype, scale=3)
    got = emulated.lse(input, weight, target, hopper=hopper, segment=256, schedule=schedule)
    exact, torchs = (_reference(input, weight, target, t) for t in (torch.float64, torch.float32))
    for name, mine, want, theirs in zip(("lse", "target_logit"), got, exact, torchs):
        assert_as_good_as_torch(mine, want, theirs, name=name)


@pytest.mark.parametrize("hopper", [False, True], ids=["mma", "wgmma"])
def test_lse_does_not_depend_on_the_schedule(hopper):
    input, weight, target = _problem(140, 600, 72, torch.bfloat16)
    results = [
        emulated.lse(input, weight, target, hopper=hopper, segment=512, schedule=schedule)
        for schedule in emulated.SCHEDULES
    ]
    for lse, target_logit in results[1:]:
        assert_identical(lse, results[0][0])
        assert_identical(target_logit, results[0][1])


def test_what_the_launcher_refuses_is_an_error():
    input, weight, target = _problem(4, 4, 8, torch.bfloat16)
    with pytest.raises(RuntimeError, match="refused"):
        emulated.lse(input, weight, target, hopper=False, segment=100, schedule=emulated.Schedule())
