"""The one numeric rule of the tests: a result may be as wrong as torch's own in the same dtype, times 1.5, and no more.

Errors are norm-relative against float64, so an all-zero or mis-scaled result fails however small its entries are.
A matrix must also keep every row that is not negligible: one wrong row hides in the norm of the others.
"""

import math

import torch
from torch import Tensor

ROW_FACTOR, ROW_FLOOR = 8.0, 2.0**-10  # the worst of many rows has a heavy tail; a wrong row is wrong by 1
NEGLIGIBLE_ROW = 1e-3
UNDERFLOW = 2.0**-100  # a whole result below this has lost terms of float32's subnormal range: it is a zero


def assert_identical(a: Tensor, b: Tensor, name="result") -> None:
    """Not a bit differs (nan equals nan)."""
    __tracebackhide__ = True
    torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True, msg=lambda text: f"{name}: {text}")


def rounding_floor(dtype: torch.dtype) -> float:
    """What torch may beat by luck: one rounding to the dtype and a few of the accumulator's.

    float64 has no better judge than itself: there the floor is what a large logit's rounding does to exp.
    """
    if dtype == torch.float64:
        return 2.0**-36
    return 2.0**-20 + (0.0 if dtype == torch.float32 else torch.finfo(dtype).eps / 2)


def relative_error(x: Tensor, exact: Tensor) -> float:
    scale = exact.norm().item()
    error = (x - exact).norm().item()
    if scale < UNDERFLOW:
        return 0.0 if error < UNDERFLOW else math.inf
    return error / scale


def row_errors(x: Tensor, exact: Tensor) -> Tensor:
    """Norm-relative error of each row (so cosine >= 1 - error^2 / 2); 0 for rows negligible beside the largest."""
    norms = exact.norm(dim=-1)
    keep = norms > NEGLIGIBLE_ROW * norms.amax()
    return ((x - exact).norm(dim=-1) / norms).where(keep, 0)


def assert_as_good_as_torch(
    actual: Tensor, exact: Tensor, baseline: Tensor, *, name="result", factor=1.5, floor: float | None = None
) -> None:
    """exact is the same quantity in float64, baseline torch's.

    Holds iff the shapes are equal, nan and +-inf stand where exact, rounded to actual's dtype, has them, |actual -
    exact| / |exact| is at most factor times torch's plus floor, and each non-negligible row's (last dimension) is at
    most ROW_FACTOR times that of torch's worst row plus ROW_FLOOR and floor.
    """
    __tracebackhide__ = True
    assert exact.dtype == torch.float64, f"{name}: exact must be float64, got {exact.dtype}"
    assert actual.shape == exact.shape == baseline.shape, (
        f"{name}: shape {tuple(actual.shape)}, exact {tuple(exact.shape)}, torch {tuple(baseline.shape)}"
    )
    floor = rounding_floor(actual.dtype) if floor is None else floor
    rounded = exact.detach().to(actual.dtype).cpu()
    actual, exact, baseline = (x.detach().double().cpu() for x in (actual, exact, baseline))
    for what, places in (("nan", torch.isnan), ("+inf", torch.isposinf), ("-inf", torch.isneginf)):
        wrong = (places(actual) != places(rounded)).nonzero()
        assert not len(wrong), f"{name}: {what} misplaced at {len(wrong)} places, first {wrong[0].tolist()}"
    finite = rounded.isfinite()
    actual, exact, baseline = (x.where(finite, 0) for x in (actual, exact, baseline))
    baseline = baseline.where(baseline.isfinite(), exact)
    if not actual.numel():
        return

    ours, torchs = relative_error(actual, exact), relative_error(baseline, exact)
    bound = factor * torchs + floor
    assert ours <= bound, (
        f"{name}: error {ours:.3e} > {bound:.3e} (torch {torchs:.3e}); worst at {worst(actual, exact, baseline)}"
    )
    if actual.dim() < 2:
        return
    ours, torchs = row_errors(actual, exact).flatten(), row_errors(baseline, exact).max().item()
    bound, row = ROW_FACTOR * torchs + ROW_FLOOR + floor, ours.argmax().item()
    assert ours[row] <= bound, (
        f"{name}: row {row} error {ours[row]:.3e} > {bound:.3e} (torch's worst row {torchs:.3e}); worst at "
        f"{worst(*(x.flatten(end_dim=-2)[row] for x in (actual, exact, baseline)))}"
    )


def worst(actual: Tensor, exact: Tensor, baseline: Tensor) -> str:
    flat = (actual - exact).abs().argmax()
    place = [int(i) for i in torch.unravel_index(flat, actual.shape)]
    a, e, b = (x.flatten()[flat].item() for x in (actual, exact, baseline))
    return f"{place}: got {a:.9g}, exact {e:.9g}, torch {b:.9g}"
