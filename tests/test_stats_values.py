"""Values of linear_stats: each statistic in every dtype, where cancellation bites, absent and repeated entries."""

import math
from functools import partial

import pytest
import torch
from lossk import linear_metrics, linear_stats, reference
from problem import (
    ALL_STATS,
    DTYPES,
    SURE_FLOOR,
    assert_matches,
    each_dtype,
    each_shape,
    random_problem,
    random_stats_problem,
)
from tolerance import assert_identical

NO_TIES = tuple(name for name in ALL_STATS if name != "argmax")  # for logits that only float64 tells apart


def check(problem, want=ALL_STATS, floor=None):
    return assert_matches(problem, partial(linear_stats, want=want), reference.linear_stats, grads=False, floor=floor)


@each_dtype()
@each_shape
def test_shapes(rows, vocab, dim, dtype, device):
    check(random_stats_problem(rows, vocab, dim, dtype, device=device))


@each_dtype()
@pytest.mark.parametrize("kind", ["plain", "flat", "peaked", "extreme"])
@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("options", [dict(), dict(bias=True), dict(scale=0.7), dict(token_scale=True)], ids=str)
def test_options(options, softcap, kind, dtype, device):
    want = NO_TIES if kind == "extreme" and softcap else ALL_STATS
    p = random_stats_problem(60, 1003, 40, dtype, kind=kind, softcap=softcap, device=device, **options)
    check(p, want, floor=SURE_FLOOR if kind == "extreme" else None)


@each_dtype()
@pytest.mark.parametrize("name", ALL_STATS)
def test_one_at_a_time_is_the_same_as_all(name, dtype, device):
    p = random_stats_problem(60, 1003, 40, dtype, device=device)
    alone, together = p.values(partial(linear_stats, want=(name,))), p.values(partial(linear_stats, want=ALL_STATS))
    assert alone.keys() == {name}
    torch.testing.assert_close(alone[name], together[name], rtol=2**-21, atol=0)


def test_the_default_is_lse(device):
    p = random_stats_problem(20, 33, 8, device=device)
    assert p.values(linear_stats).keys() == {"lse"}


@each_dtype()
def test_a_large_offset_common_to_all_logits(dtype, device):
    p = random_stats_problem(60, 203, 40, dtype, device=device, kind="flat")
    for offset in (1024.0, -1024.0):
        check(p.with_(linear_bias=torch.full((203,), offset, dtype=dtype, device=device)), NO_TIES)


@each_dtype(only=DTYPES[1:])
def test_the_complement_of_a_certain_target_is_exact(dtype, device):
    """1 - p = exp(lse_excl - lse) down to 1e-30, where 1 - exp(logp) is 0."""
    p = random_stats_problem(64, 203, 40, dtype, device=device, entries=1, kind="flat")
    x, w, index = p.tensors["input"], p.tensors["linear_weight"], p.tensors["index"]
    sure = torch.linspace(10, 70, 64, device=device).to(dtype)
    w = torch.cat([w, torch.zeros(1, 40, device=device, dtype=dtype)])
    w[203, 0], x[:, 0], index[:, 0] = 1, sure, 203
    p = p.with_(input=x, linear_weight=w, index=index, aux=torch.ones(204, device=device))
    ours, exact = p.values(partial(linear_stats, want=("lse", "lse_excl"))), p.cast(torch.float64)
    exact = exact.values(reference.linear_stats)
    complement = torch.exp(ours["lse_excl"] - ours["lse"]).double()
    expected = torch.exp(exact["lse_excl"] - exact["lse"])
    assert expected.min() < 1e-25 and expected.max() > 1e-4
    torch.testing.assert_close(complement, expected, rtol=2e-5, atol=0)


def test_everything_excluded_is_minus_infinity(device):
    x, w = torch.randn(5, 8, device=device), torch.randn(3, 8, device=device)
    index = torch.tensor([[0, 1, 2], [2, 1, 0], [0, 0, 1], [-1, -1, -1], [2, 2, 2]], device=device)
    s = linear_stats(x, w, index, want=("lse", "lse_excl"))
    assert s.lse_excl[:2].tolist() == [-math.inf] * 2
    torch.testing.assert_close(s.lse_excl[2], (x @ w.T)[2, 2])
    assert_identical(s.lse_excl[3], s.lse[3])
    torch.testing.assert_close(s.lse_excl[4], (x @ w.T)[4, :2].logsumexp(-1))


@each_dtype()
def test_minus_infinity_in_the_bias_masks_classes(dtype, device):
    p = random_stats_problem(60, 1003, 40, dtype, device=device, bias=True)
    bias = p.tensors["linear_bias"].clone()
    bias[:500] = -math.inf
    p = p.with_(linear_bias=bias, index=p.tensors["index"].clamp(min=0))
    check(p)
    assert (p.values(partial(linear_stats, want=ALL_STATS))["argmax"] >= 500).all()


def test_all_negative_logits(device):
    """A maximum that starts at 0 would show here."""
    x, w = torch.full((3, 4), -5.0, device=device), torch.rand(300, 4, device=device) + 1
    s = linear_stats(x, w, want=("max", "argmax", "min", "lse"))
    z = x @ w.T
    torch.testing.assert_close(s.max, z.amax(-1))
    assert_identical(s.argmax, z.argmax(-1))


def test_the_first_of_equal_maxima_wins(device):
    w = torch.randn(1003, 8, device=device).abs().neg()
    w[[200, 450, 900]] = 1.0
    assert linear_stats(torch.ones(3, 8, device=device), w, want=("argmax",)).argmax.tolist() == [200] * 3


@pytest.mark.parametrize("lead", [(), (60,), (4, 15), (0, 5)], ids=str)
def test_leading_dimensions(lead, device):
    p = random_stats_problem(math.prod(lead), 203, 40, lead=lead, device=device, bias=True, token_scale=True)
    results = check(p)
    assert all(x.shape == (*lead, 3) if name == "logits" else x.shape == lead for name, x in results.items())


@each_dtype()
def test_a_row_does_not_depend_on_the_other_rows(dtype, device):
    p = random_stats_problem(450, 1003, 70, dtype, device=device)
    head = partial(linear_stats, want=ALL_STATS)
    every = p.values(head)
    for rows in ([0], [449, 3], list(range(383, 420))):
        few = p.with_(input=p.tensors["input"][rows], index=p.tensors["index"][rows])
        for name, x in few.values(head).items():
            assert_identical(x, every[name][rows], name)


@each_dtype()
@pytest.mark.parametrize("option", [{}, dict(bias=True, token_scale=True, softcap=3.0)], ids=["plain", "options"])
def test_metrics(option, dtype, device):
    p = random_problem(129, 259, 40, dtype, kind="peaked", device=device, lead=(3, 43), **option)
    got = linear_metrics(**p.arguments())
    arguments = p.cast(torch.float64).arguments()
    target = arguments.pop("target")
    z = reference.logits(**arguments)[target != -100]
    y, logp = target[target != -100], z.log_softmax(-1)
    loss = torch.nn.functional.cross_entropy(z, y)
    right = dict(
        loss=loss,
        perplexity=loss.exp(),
        accuracy=(z.argmax(-1) == y).double().mean(),
        entropy=-(logp.exp() * logp).sum(-1).mean(),
    )
    for name, x in right.items():
        assert abs(getattr(got, name).item() / x.item() - 1) < (1e-9 if dtype == torch.float64 else 1e-4), name
    assert got.tokens == len(y) and not got.loss.requires_grad
    nothing = linear_metrics(**p.with_(target=torch.full_like(p.tensors["target"], -100)).arguments())
    assert nothing.tokens == 0 and all(x.isnan() for x in nothing[:4])


X, W, INDEX = torch.randn(6, 8), torch.randn(33, 8), torch.randint(33, (6, 2))
REFUSED = {
    "unknown name": (dict(want=("lse", "mode")), ValueError, "want"),
    "a string": (dict(want="lse"), (ValueError, TypeError), "want"),
    "logits of nothing": (dict(index=None, want=("logits",)), ValueError, "index"),
    "complement of nothing": (dict(index=None, want=("lse_excl",)), ValueError, "index"),
    "mean of no aux": (dict(want=("aux_mean",)), ValueError, "aux"),
    "aux too short": (dict(aux=torch.ones(32)), ValueError, "aux"),
    "index without entries": (dict(index=INDEX[:, 0]), ValueError, "index"),
    "index past the vocabulary": (dict(index=INDEX + 33), ValueError, "index"),
    "index -2": (dict(index=INDEX * 0 - 2), ValueError, "index"),
    "float index": (dict(index=INDEX.float()), TypeError, "index"),
    "hidden mismatch": (dict(linear_weight=W[:, :7]), ValueError, "linear_weight"),
    "softcap zero": (dict(softcap=0.0), ValueError, "softcap"),
    "tau one": (dict(tau=1.0), ValueError, "tau"),
    "tau, softcap and entropy": (dict(tau=0.1, softcap=3.0, want=("entropy",)), ValueError, "tau"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    changes, exception, word = REFUSED[case]
    with pytest.raises(exception, match=rf"linear_stats.*\b{word}\b"):
        linear_stats(**dict(input=X, linear_weight=W, index=INDEX) | changes)
