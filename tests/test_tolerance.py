"""The rule itself: it passes what torch does and rejects each way a kernel has been seen to be wrong."""

import math

import pytest
import torch
from tolerance import assert_as_good_as_torch

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(params=DTYPES, ids=str)
def product(request):
    """A weight gradient with rows of very different norms: exact, and torch's in the dtype."""
    g, x = torch.randn(512, 300), torch.randn(512, 40)
    g = (g * torch.logspace(0, -2, 300)).to(request.param)
    x = x.to(request.param)
    return g.double().T @ x.double(), g.T @ x


def rejects(actual, exact, baseline, match):
    with pytest.raises(AssertionError, match=match):
        assert_as_good_as_torch(actual, exact, baseline)


def test_accepts_torch_and_the_exact_result(product):
    exact, baseline = product
    assert_as_good_as_torch(baseline, exact, baseline)
    assert_as_good_as_torch(exact.to(baseline.dtype), exact, baseline)


def test_accepts_the_rounding_of_a_result_that_torch_has_exactly():
    exact = torch.rand(100, dtype=torch.float64).float().double()
    assert_as_good_as_torch(exact.float() * (1 + 2**-21), exact, exact.float())


def test_rejects_zeros(product):
    exact, baseline = product
    rejects(torch.zeros_like(baseline), exact, baseline, "error 1.000e")
    rejects(torch.zeros_like(baseline) * 1e-30, exact * 1e-30, (baseline.double() * 1e-30).float(), "error 1.000e")


@pytest.mark.parametrize("row", [0, 150], ids=["largest", "thirty_times_smaller"])
def test_rejects_one_wrong_row(product, row):
    exact, baseline = product
    wrong = baseline.clone()
    wrong[row] = baseline[row].roll(1)
    rejects(wrong, exact, baseline, "error")


def test_rejects_one_wrong_row_that_the_norm_hides():
    exact = torch.randn(100, 40, dtype=torch.float64)
    exact[99] /= 500
    wrong = exact.bfloat16()
    wrong[99] = 0
    rejects(wrong, exact, exact.bfloat16(), r"row 99 error 1.000e")


@pytest.mark.parametrize("scale", [1.001, 0.999, -1.0])
def test_rejects_a_wrong_scale_in_float32(scale):
    exact = torch.randn(64, 64, dtype=torch.float64)
    rejects((exact * scale).float(), exact, exact.float(), "error")


def test_rejects_a_wrong_scale_in_half_precision(product):
    exact, baseline = product
    rejects(baseline * 1.02, exact, baseline, "error")


def test_rejects_a_result_of_lower_precision():
    exact = torch.randn(64, 64, dtype=torch.float64)
    rejects(exact.bfloat16().float(), exact, exact.float(), "error")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_special_values_must_stand_where_the_exact_ones_do(value):
    exact = torch.randn(8, dtype=torch.float64)
    special = exact.clone()
    special[3] = value
    assert_as_good_as_torch(special.float(), special, special.float())
    rejects(special.float(), exact, exact.float(), r"misplaced at 1 places, first \[3\]")
    rejects(exact.float(), special, special.float(), r"misplaced at 1 places, first \[3\]")


def test_what_the_dtype_cannot_hold_is_infinite():
    exact = torch.tensor([1.0, 7e4, -7e4], dtype=torch.float64)
    assert_as_good_as_torch(exact.half(), exact, exact.half())
    rejects(exact.half().clamp(-65504, 65504), exact, exact.half(), r"\+inf misplaced at 1 places, first \[1\]")


def test_a_torch_that_fails_excuses_nothing():
    exact = torch.randn(8, dtype=torch.float64)
    broken = torch.full((8,), math.nan)
    rejects(exact.float() * 1.01, exact, broken, "error")
    rejects(broken, exact, broken, "nan misplaced")


def test_rejects_shapes():
    x = torch.ones(3, 1)
    rejects(x, x[:, 0].double(), x[:, 0], "shape")


def test_names_the_worst_coordinate():
    exact = torch.ones(4, 5, dtype=torch.float64)
    wrong = exact.float()
    wrong[2, 3] = 1.5
    rejects(wrong, exact, exact.float(), r"worst at \[2, 3\]: got 1.5, exact 1, torch 1")


def test_empty_results_agree():
    x = torch.ones(0, 5)
    assert_as_good_as_torch(x, x.double(), x)
