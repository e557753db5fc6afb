"""linear_topk, linear_rank, linear_range, linear_sample: against logits that are written down."""

import math

import pytest
import torch
from lossk import linear_range, linear_rank, linear_sample, linear_topk, reference
from problem import FLOAT32_AND_HALVES, each_dtype, random_problem, wide
from tolerance import relative_error

SIZES = [(1, 1, 1), (60, 203, 300), (40, 1003, 24), (300, 1540, 40)]
each_size = pytest.mark.parametrize("size", SIZES, ids=str)


def grid(rows, vocab, dim, dtype=torch.float32, device="cpu"):
    """Small integers: logits are exact in any order of sums, and many are equal."""
    input, weight = (torch.randint(-2, 3, shape).to(device, dtype) for shape in ((rows, dim), (vocab, dim)))
    return input, weight, (input.double() @ weight.double().T).to(wide(dtype))


def largest_first(z, k):
    """Of equal ones the first: a stable sort."""
    values, indices = z.sort(dim=-1, descending=True, stable=True)
    return values[..., :k], indices[..., :k]


@each_dtype()
@each_size
def test_topk(size, dtype, device):
    input, weight, z = grid(*size, dtype, device)
    for k in {1, min(5, size[1]), min(128, size[1])}:
        got = linear_topk(input, weight, k)
        values, indices = largest_first(z, k)
        assert torch.equal(got.values, values) and torch.equal(got.indices, indices)
        assert relative_error(got.lse.double(), z.double().logsumexp(-1)) < 1e-6


@each_dtype(only=FLOAT32_AND_HALVES)
def test_topk_of_any_logits(dtype, device):
    p = random_problem(70, 900, 130, dtype, device=device, bias=True, token_scale=True, softcap=3.0)
    options = {k: p.arguments()[k] for k in ("linear_bias", "scale", "softcap")}
    x, w = p.tensors["input"], p.tensors["linear_weight"]
    got = linear_topk(x, w, 100, **options)
    z = reference.logits(x.double(), w.double(), *(options[k] for k in ("linear_bias", "scale", "softcap")))
    assert relative_error(got.values.double(), largest_first(z, 100)[0]) < 1e-5
    assert relative_error(got.values.double(), z.gather(1, got.indices)) < 1e-5
    assert (got.values[:, 1:] <= got.values[:, :-1]).all() and (got.indices.sort(-1).values.diff(dim=-1) > 0).all()


def test_topk_of_nan_and_infinity(device):
    input, weight, z = grid(30, 700, 8, device=device)
    bias = torch.zeros(700, device=device)
    bias[[3, 650]], bias[[7, 600]], bias[10:500] = math.inf, math.nan, -math.inf
    got = linear_topk(input, weight, 128, linear_bias=bias)
    assert got.indices[:, :4].tolist() == [[7, 600, 3, 650]] * 30 and got.values[:, :2].isnan().all()
    kept = [v for v in range(700) if not 10 <= v < 500 and v not in (3, 7, 600, 650)]
    values, indices = largest_first(z[:, kept], 124)
    assert torch.equal(got.values[:, 4:], values)
    assert torch.equal(got.indices[:, 4:], torch.tensor(kept, device=device)[indices])


@each_dtype()
@each_size
def test_rank_and_range(size, dtype, device):
    input, weight, z = grid(*size, dtype, device)
    target = torch.randint(size[1], (size[0],), device=device)
    target[::4] = -100
    right = (z > z.gather(1, target.clamp(min=0)[:, None])).sum(-1).where(target >= 0, -1)
    assert torch.equal(linear_rank(input, weight, target), right)
    low, high = linear_range(input, weight)
    assert torch.equal(low, z.amin(-1)) and torch.equal(high, z.amax(-1))


@each_dtype(only=FLOAT32_AND_HALVES)
def test_the_best_has_rank_0_and_the_kth_k(dtype, device):
    """Of logits with all their digits: the target's must be the very number that it is compared with."""
    p = random_problem(70, 900, 130, dtype, device=device, bias=True, token_scale=True)
    x, w, b, s = (p.tensors[k] for k in ("input", "linear_weight", "linear_bias", "scale"))
    top = linear_topk(x, w, 20, linear_bias=b, scale=s).indices
    for k in (0, 1, 7, 19):
        assert (linear_rank(x, w, top[:, k], linear_bias=b, scale=s) == k).all()


def test_leading_dimensions_and_no_rows(device):
    input, weight, z = grid(24, 33, 8, device=device)
    input, z = input.view(4, 6, 8), z.view(4, 6, 33)
    got = linear_topk(input, weight, 3)
    assert torch.equal(got.values, largest_first(z, 3)[0]) and got.lse.shape == (4, 6)
    assert linear_rank(input, weight, z.argmax(-1)).tolist() == [[0] * 6] * 4
    assert linear_sample(input, weight).token.shape == (4, 6)
    none = input[:0]
    assert linear_topk(none, weight, 3).values.shape == (0, 6, 3) and linear_sample(none, weight).logp.shape == (0, 6)
    assert linear_rank(none, weight, torch.zeros(0, 6, dtype=torch.int64, device=device)).shape == (0, 6)


# ---- samples


def frequencies(token, vocab):
    return torch.bincount(token, minlength=vocab).double() / token.numel()


def chi_square_of(token, p):
    return (token.numel() * (frequencies(token, len(p)) - p) ** 2 / p).sum().item()


@each_dtype(only=FLOAT32_AND_HALVES)
@pytest.mark.parametrize("temperature", [1.0, 0.5, 3.0])
def test_samples_have_the_softmax_as_their_distribution(temperature, dtype, device):
    rows, vocab = 40_000, 37
    x, w = torch.randn(1, 16).to(device, dtype), torch.randn(vocab, 16).to(device, dtype) / 3
    bias = torch.randn(vocab, device=device)
    got = linear_sample(x.expand(rows, 16), w, linear_bias=bias, temperature=temperature)
    logp = ((x.double() @ w.double().T + bias) / temperature).log_softmax(-1)[0]
    assert chi_square_of(got.token, logp.exp()) < 85  # 36 degrees of freedom: beyond it once in 1e5
    assert relative_error(got.logp.double(), logp[got.token]) < 1e-5


def test_rare_tokens_come_as_often_as_they_should(device):
    """One column of e^-9 beside an even one; and never one that is ruled out."""
    bias = torch.tensor([0.0, -9.0, -math.inf], device=device)
    x, w = torch.zeros(400_000, 1, device=device), torch.zeros(3, 1, device=device)
    count = torch.bincount(linear_sample(x, w, linear_bias=bias).token, minlength=3)
    assert count[2] == 0 and 15 < count[1] < 95  # 49 on average


def test_samples_are_of_each_row_by_itself_and_of_any_column(device):
    x, w = torch.zeros(4000, 8, device=device), torch.zeros(1003, 8, device=device)
    token = linear_sample(x, w).token
    assert chi_square_of(token, torch.full((1003,), 1 / 1003, dtype=torch.float64, device=device)) < 1215
    neighbours = (token[1:] == token[:-1]).double().mean()
    assert neighbours < 0.005  # a thousandth; nearly all if rows shared their noise


def test_samples_are_repeated_by_a_generator(device):
    x, w = torch.randn(50, 8, device=device), torch.randn(203, 8, device=device)
    draw = lambda seed: linear_sample(x, w, generator=torch.Generator(device).manual_seed(seed)).token  # noqa: E731
    assert torch.equal(draw(3), draw(3)) and not torch.equal(draw(3), draw(4))
    torch.manual_seed(5)
    first = linear_sample(x, w).token
    assert not torch.equal(first, linear_sample(x, w).token)
    torch.manual_seed(5)
    assert torch.equal(first, linear_sample(x, w).token)


def test_a_row_is_drawn_alike_beside_other_rows_and_threads(device):
    x, w = torch.randn(200, 24, device=device), torch.randn(1003, 24, device=device)
    draw = lambda x: linear_sample(x, w, generator=torch.Generator(device).manual_seed(3)).token  # noqa: E731
    whole, threads = draw(x), torch.get_num_threads()
    assert torch.equal(draw(x[:5]), whole[:5])
    try:
        torch.set_num_threads(1)
        assert torch.equal(draw(x), whole)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("top_h", [0.1, 0.4, 1.0])
def test_top_h(top_h, device):
    rows, vocab = 20_000, 150
    x, w = torch.randn(1, 16, device=device), torch.randn(vocab, 16, device=device)
    got = linear_sample(x.expand(rows, 16), w, top_h=top_h)
    logp, order = (x.double() @ w.double().T).log_softmax(-1)[0].sort(descending=True)
    logp, order = logp[:100], order[:100]
    entropy = -(logp.exp() * logp).cumsum(0)
    kept = max(1, int((entropy <= top_h * entropy[-1]).sum()))
    assert set(got.token.unique().tolist()) <= set(order[:kept].tolist())
    p = torch.zeros(vocab, dtype=torch.float64, device=device)
    p[order[:kept]] = logp[:kept].softmax(0)
    assert (frequencies(got.token, vocab) - p).abs().max() < 0.02
    assert relative_error(got.logp.double(), p.log()[got.token]) < 1e-5 or kept == 1


def test_top_h_with_columns_ruled_out_and_rows_of_nan(device):
    """-inf among the hundred largest; and a row with nan, whose token may be any and whose logp is nan."""
    bias = torch.zeros(50, device=device)
    bias[40:] = -math.inf
    x, w = torch.zeros(4000, 8, device=device), torch.randn(50, 8, device=device)
    x[7] = math.nan
    for top_h in (None, 1.0):
        got = linear_sample(x, w, linear_bias=bias, top_h=top_h)
        assert set(got.token[torch.arange(4000) != 7].tolist()) == set(range(40))
        assert got.logp.isnan().nonzero().tolist() == [[7]]


def test_compiles(device):
    torch._dynamo.reset()
    x, w, target = torch.randn(9, 8, device=device), torch.randn(33, 8, device=device), torch.arange(9, device=device)

    def all_of_them(x):
        return *linear_topk(x, w, 3), linear_rank(x, w, target), *linear_range(x, w)

    compiled = torch.compile(all_of_them, fullgraph=True, backend="aot_eager")
    for a, b in zip(compiled(x), all_of_them(x), strict=True):
        assert torch.equal(a, b)
    assert torch.compile(lambda x: linear_sample(x, w), fullgraph=True, backend="aot_eager")(x).token.shape == (9,)


def test_refused():
    x, w = torch.randn(6, 4), torch.randn(9, 4)
    for k in (0, 10, -1):
        with pytest.raises(ValueError, match=r"linear_topk: k must be in \[1, 9\]"):
            linear_topk(x, w, k)
    with pytest.raises(TypeError, match="linear_topk: k must"):
        linear_topk(x, w, 2.0)
    with pytest.raises(ValueError, match="linear_rank: target must be in"):
        linear_rank(x, w, torch.full((6,), 9))
    with pytest.raises(ValueError, match="linear_sample: temperature must"):
        linear_sample(x, w, temperature=0.0)
    for top_h in (0, 1.5):
        with pytest.raises(ValueError, match="linear_sample: top_h must"):
            linear_sample(x, w, top_h=top_h)
    with pytest.raises(ValueError, match="linear_sample: linear_weight must have rows"):
        linear_sample(x, w[:0])
    with pytest.raises(ValueError, match="linear_sample: generator must be on input's device meta, got cpu"):
        linear_sample(x.to("meta"), w.to("meta"), generator=torch.Generator())
    with pytest.raises(ValueError, match="linear_range: linear_weight must"):
        linear_range(x, w[:, :3])
