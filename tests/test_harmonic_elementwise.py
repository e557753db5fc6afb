"""harmonic_loss over distances that are summed element by element: what it makes of names and options. The kernels' own
tests are in test_elementwise.py."""

import math

import pytest
import torch
from lossk import reference
from lossk.harmonic import harmonic_logits, harmonic_loss
from problem import FLOAT32_AND_HALVES, assert_matches, each_dtype, each_reduction
from test_harmonic import problem_of
from tolerance import assert_identical, relative_error, rounding_floor

CASES = {
    "manhattan": {},
    "chebyshev": {},
    "smooth_chebyshev": dict(sharpness=5.0),
    "minkowski 1": dict(p=1),
    "minkowski 2": dict(p=2),
    "minkowski 3": dict(p=3.0),
    "minkowski 0.5": dict(p=0.5),
    "canberra": {},
    "canberra robust": dict(variant="robust", least=0.3),
    "canberra weighted": dict(variant="weighted", weight_power=0.5),
    "bray_curtis": {},
    "bray_curtis standard": dict(variant="standard", least=1e-2),
    "bray_curtis normalized": dict(variant="normalized"),
    "hamming": dict(temperature=0.7),
}
each_case = pytest.mark.parametrize("case", CASES)


def case_of(case, *size, **options):
    p = problem_of("euclidean", *size, **options)
    return p.with_(distance=case.split()[0], **CASES[case])


@each_case
@pytest.mark.parametrize("exponent", [1.0, 2.0, 17.3, 300.0, 600.0])
@pytest.mark.float64
def test_float64(exponent, case, device):
    for options in (dict(reduction="none", weights=True), dict(label_smoothing=0.1), dict(floor=0.01)):
        p = case_of(case, 23, 131, 300, torch.float64, exponent=exponent, **options)
        ours, exact = p.gradients(harmonic_loss), p.gradients(reference.harmonic_loss)
        for name, x in ours.items():
            assert relative_error(x, exact[name]) < 1e-9, name


@each_dtype(only=FLOAT32_AND_HALVES)
@each_case
@each_reduction
def test_by_the_rule(reduction, case, dtype, device):
    p = case_of(case, 37, 131, 40, dtype, device=device, reduction=reduction, label_smoothing=0.1)
    floor = torch.finfo(dtype).eps if dtype.itemsize == 2 else max(rounding_floor(dtype), 2.0**-17)
    assert_matches(p, harmonic_loss, reference.harmonic_loss, floor=floor)


@each_case
@pytest.mark.parametrize("apart", [0.1, 0.01])
@pytest.mark.parametrize("exponent", [1.0, 17.3, 600.0])
def test_near_a_centre_in_nats(exponent, apart, case, device):
    """Differences do not cancel: the distance keeps its digits, and the loss as many as the exponent leaves."""
    p = case_of(case, 32, 131, 300, device=device, apart=apart, exponent=exponent, reduction="none")
    exact = p.cast(torch.float64).values(reference.harmonic_loss)["loss"]
    got = p.values(harmonic_loss)["loss"].double()
    assert (got >= 0).all()
    # But for a denominator that cancels, sum x + sum w of features of both signs.
    most = 2.0**-14 if case == "bray_curtis standard" else 2.0**-18
    assert (got - exact).abs().max() < exponent / 2 * most + 1e-6


@each_case
def test_logits_and_loss_agree(case, device):
    p = case_of(case, 40, 131, 48, device=device, ignored=0, reduction="none")
    given = p.arguments()
    y = given.pop("target")
    given.pop("reduction")
    z = harmonic_logits(**given)
    want = torch.nn.functional.cross_entropy(z, y, reduction="none")
    torch.testing.assert_close(p.values(harmonic_loss)["loss"], want, rtol=1e-4, atol=1e-5)


@each_case
def test_compiles_without_a_graph_break(case, device):
    torch.compiler.reset()
    compiled = torch.compile(harmonic_loss, fullgraph=True, backend="aot_eager")
    p = case_of(case, 20, 67, 24, device=device)
    eager, ours = p.gradients(harmonic_loss), p.gradients(compiled)
    for name, x in eager.items():
        assert relative_error(ours[name].double(), x.double()) < 1e-5, name


@each_case
@each_reduction
def test_no_rows_and_ignored_rows(case, reduction, device):
    p = case_of(case, 0, 33, 8, device=device, reduction=reduction)
    ours = p.gradients(harmonic_loss)
    assert not ours["grad of weight"].any() and ours["grad of weight"].shape == (33, 8)
    p = case_of(case, 40, 33, 16, device=device, ignored=0.4, reduction=reduction)
    off = p.tensors["target"] == -100
    dirty = p.tensors["input"].clone()
    dirty[off] = math.nan
    with_nan, without = p.with_(input=dirty).gradients(harmonic_loss), p.gradients(harmonic_loss)
    if case in ("bray_curtis", "bray_curtis standard"):  # their terms are torch's sums of all rows
        assert not without["grad of input"][off].any()
        return
    for name in ("loss", "grad of weight"):
        assert_identical(with_nan[name], without[name], name)


@pytest.mark.float64
def test_gumbel_noise_is_the_generators(device):
    p = case_of("hamming", 20, 33, 16, torch.float64, device=device)

    def noisy(seed, **change):
        own = torch.Generator().manual_seed(seed)
        return p.with_(variant="gumbel", generator=own, **change).gradients(harmonic_loss, upstream=1.0)

    first, again, other, without = noisy(1), noisy(1), noisy(2), p.gradients(harmonic_loss, upstream=1.0)
    for name, x in first.items():
        assert_identical(again[name], x, name)
        assert not torch.equal(other[name], x) and not torch.equal(without[name], x)
    # Its gradient is that of the same noise: along a small step the loss changes by it.
    for name in ("input", "weight"):
        grad = first[f"grad of {name}"]
        moved = noisy(1, **{name: p.tensors[name] + 1e-6 * grad.sign()})
        assert abs((moved["loss"] - first["loss"]) / (1e-6 * grad.abs().sum()) - 1) < 1e-4
