"""linear_logp: log-probability, entropy and lse of each token, values and gradients."""

import math
from functools import partial

import pytest
import torch
from lossk import linear_cross_entropy, linear_logp, reference
from problem import DTYPES, FLOAT32_AND_HALVES, assert_matches, each_dtype, each_shape, random_problem

TEMPERATURES = [None, 0.7, "per token"]
each_temperature = pytest.mark.parametrize("temperature", TEMPERATURES, ids=str)


def logp_problem(rows, vocab, dim, dtype=torch.float32, *, temperature=None, **options):
    p = random_problem(rows, vocab, dim, dtype, token_scale=temperature == "per token", **options)
    if temperature == "per token":
        p.tensors["temperature"] = p.tensors.pop("scale")
    return p.with_(temperature=temperature) if isinstance(temperature, float) else p


def check(problem, **how):
    return assert_matches(problem, linear_logp, reference.linear_logp, **how)


@each_dtype()
@each_shape
def test_values_and_gradients(rows, vocab, dim, dtype, device):
    check(logp_problem(rows, vocab, dim, dtype, device=device))


@each_dtype()
@each_temperature
@pytest.mark.parametrize("kind", ["plain", "flat", "peaked"])
@pytest.mark.parametrize("options", [dict(), dict(bias=True, softcap=3.0)], ids=["plain", "softcap"])
def test_options(options, kind, temperature, dtype, device):
    check(logp_problem(60, 203, 40, dtype, kind=kind, temperature=temperature, device=device, **options))


@each_temperature
@pytest.mark.float64
def test_gradcheck(temperature, device):
    p = logp_problem(4, 11, 3, torch.float64, temperature=temperature, bias=True, softcap=3.0, device=device).leaves()
    names = [name for name, x in p.tensors.items() if x.requires_grad]

    def outputs(*leaves):
        return tuple(linear_logp(**p.with_(**dict(zip(names, leaves))).arguments()))

    assert torch.autograd.gradcheck(outputs, [p.tensors[name] for name in names])


@each_dtype(only=FLOAT32_AND_HALVES)
@pytest.mark.parametrize("kind", ["plain", "peaked"])
def test_logp_is_minus_the_cross_entropy(kind, dtype, device):
    p = random_problem(60, 203, 40, dtype, kind=kind, device=device)
    loss = linear_cross_entropy(**p.arguments(), reduction="none")
    torch.testing.assert_close(linear_logp(**p.arguments()).logp, -loss, rtol=0, atol=1e-6)


@each_dtype(only=DTYPES)
def test_ignored_tokens_are_zero_whatever_they_hold(dtype, device):
    p = random_problem(60, 203, 40, dtype, device=device)
    ignored = p.tensors["target"] == -100
    x = p.tensors["input"].clone()
    x[ignored] = math.nan
    out = linear_logp(**p.with_(input=x).arguments())
    assert ignored.any() and all(not v[ignored].any() and v[~ignored].all() for v in out)


def test_logp_is_never_positive_and_entropy_never_negative(device):
    p = random_problem(400, 203, 40, device=device, kind="extreme", ignored=0)
    out = linear_logp(**p.arguments())
    assert (out.logp <= 0).all() and (out.entropy >= 0).all()


def test_leading_dimensions(device):
    p = logp_problem(60, 203, 40, temperature="per token", lead=(4, 15), device=device)
    assert all(x.shape == (4, 15) for name, x in check(p).items() if not name.startswith("grad"))


def test_compiles(device):
    p = random_problem(60, 203, 40, device=device)
    compiled = torch.compile(partial(linear_logp, temperature=0.7), fullgraph=True, backend="aot_eager")
    eager, ours = p.gradients(partial(linear_logp, temperature=0.7)), p.gradients(compiled)
    for name, x in eager.items():
        assert torch.equal(ours[name], x), name


@pytest.mark.parametrize(
    ("changes", "exception", "word"),
    [
        (dict(temperature=0.0), ValueError, "temperature"),
        (dict(temperature=-1.0), ValueError, "temperature"),
        (dict(temperature=math.nan), ValueError, "temperature"),
        (dict(temperature=torch.ones(7)), ValueError, "temperature"),
        (dict(target=torch.full((6,), 33)), ValueError, "target"),
        (dict(target=torch.ones(6)), TypeError, "target"),
        (dict(target=torch.ones(5).long()), ValueError, "target"),
        (dict(softcap=-1.0), ValueError, "softcap"),
        (dict(linear_weight=torch.randn(33, 9)), ValueError, "linear_weight"),
    ],
)
def test_refused(changes, exception, word):
    arguments = dict(input=torch.randn(6, 8), linear_weight=torch.randn(33, 8), target=torch.randint(33, (6,)))
    with pytest.raises(exception, match=rf"linear_logp.*\b{word}\b"):
        linear_logp(**arguments | changes)
