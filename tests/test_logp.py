"""linear_logp: log-probability, entropy and lse of each token, values and gradients."""

import math
from functools import partial

import lossk
import pytest
import torch
from lossk import LogP, linear_cross_entropy, linear_logp, reference
from problem import (
    DTYPES,
    FLOAT32_AND_HALVES,
    SURE_FLOOR,
    assert_matches,
    each_dtype,
    each_shape,
    random_problem,
)
from tolerance import assert_identical, relative_error

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


# ---- saved values ----------------------------------------------------------------------------------------------------


def saved_logp(**arguments):
    with torch.no_grad():
        saved = linear_logp(**arguments)
    return linear_logp(**arguments, saved=saved)


@each_dtype()
@pytest.mark.parametrize("kind", ["plain", "peaked", "flat"])
@pytest.mark.parametrize("option", [{}, dict(bias=True, softcap=3.0)], ids=["plain", "options"])
def test_saved_values_have_the_gradients_of_new_ones(option, kind, dtype, device):
    p = random_problem(129, 259, 300, dtype, kind=kind, device=device, **option)
    assert_matches(p, saved_logp, reference.linear_logp, floor=SURE_FLOOR if kind == "peaked" else None)


@pytest.mark.float64
def test_gradcheck_of_saved_values(device):
    p = random_problem(6, 23, 4, torch.float64, device=device, bias=True, ignored=0.3)
    target = p.tensors.pop("target")
    temperature = torch.rand(6, dtype=torch.float64, device=device) + 0.5

    def f(input, linear_weight, linear_bias, temperature):
        return tuple(
            saved_logp(
                input=input,
                linear_weight=linear_weight,
                target=target,
                linear_bias=linear_bias,
                temperature=temperature,
            )
        )

    assert torch.autograd.gradcheck(f, [x.requires_grad_() for x in (*p.tensors.values(), temperature)])


@pytest.mark.parametrize("used", ["logp", "entropy", "lse"])
def test_one_saved_value_alone(used, device):
    p = random_problem(60, 203, 40, device=device)
    only = [
        lambda head=head, **arguments: getattr(head(**arguments), used)
        for head in (saved_logp, linear_logp, reference.linear_logp)
    ]
    assert_matches(p, only[0], only[2])
    ours, plain = p.gradients(only[0]), p.gradients(only[1])
    assert_identical(ours["loss"], plain["loss"])


def test_a_selection_of_tokens(device):
    p = random_problem(400, 203, 40, device=device).leaves()
    x, weight, target = (p.tensors[k] for k in ("input", "linear_weight", "target"))
    with torch.no_grad():
        everything = linear_logp(x, weight, target)
    keep = everything.logp < everything.logp.median()
    saved = LogP(*(s[keep] for s in everything))
    kept = linear_logp(x[keep], weight, target[keep], saved=saved)
    new = linear_logp(x[keep], weight, target[keep])
    for ours, theirs in zip(kept, new, strict=True):
        assert_identical(ours, theirs)
    got, want = (torch.autograd.grad(-out.logp.mean(), [x, weight]) for out in (kept, new))
    for g, w in zip(got, want, strict=True):
        assert relative_error(g.double(), w.double()) < 1e-6


def test_saved_values_are_not_computed_again(device):
    p = random_problem(60, 203, 40, device=device)
    with torch.no_grad():
        saved = linear_logp(**p.arguments())
    wrong = LogP(saved.logp + 1, saved.entropy, saved.lse)
    assert_identical(
        linear_logp(**p.arguments(), saved=wrong).logp, torch.where(p.tensors["target"] >= 0, wrong.logp, 0)
    )


# ---- live columns ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tau", [2**-8, 2**-12])
def test_live_columns(tau, device):
    p = random_problem(300, 1003, 40, kind="peaked", device=device)
    exact, live = (p.with_(tau=t, temperature=0.1).gradients(linear_logp) for t in (None, tau))
    for name, x in exact.items():
        if not name.startswith("grad"):
            assert_identical(live[name], x)
        else:
            assert 0 < relative_error(live[name].double(), x.double()) < 0.02, name
    with torch.no_grad(), lossk.live_report() as reports:
        linear_logp(**p.with_(tau=tau, temperature=0.1).arguments())
    assert not reports


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
        (dict(tau=1.0), ValueError, "tau"),
        (dict(tau=0.1, softcap=3.0), ValueError, "tau"),
        (dict(tau=0.1, saved=LogP(*torch.zeros(3, 6))), ValueError, "tau"),
        (dict(saved=torch.zeros(6)), TypeError, "saved"),
        (dict(saved=LogP(*torch.zeros(3, 5))), ValueError, "saved logp"),
        (dict(saved=LogP(*torch.zeros(3, 6).long())), TypeError, "saved logp"),
        (dict(linear_weight=torch.randn(33, 9)), ValueError, "linear_weight"),
    ],
)
def test_refused(changes, exception, word):
    arguments = dict(input=torch.randn(6, 8), linear_weight=torch.randn(33, 8), target=torch.randint(33, (6,)))
    with pytest.raises(exception, match=rf"linear_logp.*\b{word}\b"):
        linear_logp(**arguments | changes)


def test_temperatures_that_are_not_positive_are_named():
    p = logp_problem(5, 9, 4, temperature="per token")
    p.tensors["temperature"][3] = 0
    with pytest.raises(ValueError, match=r"linear_logp: temperature must be > 0, got 0.0 at \[3\]"):
        linear_logp(**p.arguments())
