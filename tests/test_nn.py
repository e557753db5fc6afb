"""nn: modules around the functions, with the parameters of torch.nn.Linear."""

import copy
import io

import lossk
import pytest
import torch
from lossk import linear_cross_entropy
from lossk.nn import HarmonicHead, LinearCrossEntropyLoss
from problem import FLOAT32_AND_HALVES, each_dtype, each_reduction, random_problem
from tolerance import assert_identical

OPTIONS = dict(ignore_index=3, label_smoothing=0.1, z_loss=1e-2, softcap=5.0, scale=0.7, margin=0.2)
X, Y = torch.randn(20, 8), torch.randint(33, (20,))


@each_reduction
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("options", [{}, OPTIONS, dict(shift=2)], ids=["plain", "options", "shift"])
def test_is_the_function_of_its_parameters(options, bias, reduction, device):
    module = LinearCrossEntropyLoss(8, 33, bias=bias, reduction=reduction, **options, device=device)
    x, y = X.to(device), Y.to(device)
    loss = module(x, y)
    expected = linear_cross_entropy(x, module.weight, y, linear_bias=module.bias, reduction=reduction, **options)
    assert_identical(loss, expected)
    for ours, grad in zip(module.parameters(), torch.autograd.grad(expected.sum(), list(module.parameters()))):
        (actual,) = torch.autograd.grad(module(x, y).sum(), ours)
        assert_identical(actual, grad)


def test_class_weights_and_what_differs_by_token(device):
    p = random_problem(20, 33, 8, class_weight=True, token_weight=True, token_scale=True, soft=3, device=device)
    given = p.arguments()
    module = LinearCrossEntropyLoss(8, 33, weight=given["weight"], device=device)
    per_token = {name: given[name] for name in ("soft_target", "token_weight", "scale")}
    expected = linear_cross_entropy(given["input"], module.weight, weight=given["weight"], **per_token)
    assert_identical(module(given["input"], **per_token), expected)


@pytest.mark.parametrize("bias", [False, True])
def test_parameters_are_those_of_torch_linear(bias):
    torch.manual_seed(1)
    linear = torch.nn.Linear(64, 333, bias=bias)
    module = LinearCrossEntropyLoss(64, 333, bias=bias)
    ours, theirs = dict(module.named_parameters()), dict(linear.named_parameters())
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}
    for name, x in ours.items():
        bound = theirs[name].abs().max()
        assert 0.9 * bound < x.abs().max() <= 1 / 8 and x.mean().abs() < 0.02
    module.load_state_dict(linear.state_dict())
    assert_identical(module.weight, linear.weight)


@each_dtype(only=FLOAT32_AND_HALVES)
def test_device_and_dtype(dtype, device):
    module = LinearCrossEntropyLoss(8, 33, bias=True, device=device, dtype=dtype)
    loss = module(X.to(device, dtype), Y.to(device))
    loss.backward()
    assert loss.dtype == torch.float32
    for x in module.parameters():
        assert x.device.type == x.grad.device.type == device and x.dtype == x.grad.dtype == dtype


def test_a_tied_weight_is_the_embeddings(device):
    embedding = torch.nn.Embedding(33, 8, device=device)
    module = LinearCrossEntropyLoss(8, 33, device=device)
    module.weight = embedding.weight
    module(X.to(device), Y.to(device)).backward()
    assert embedding.weight.grad is not None and embedding.weight.grad.any()


def test_copies_and_pickles():
    module = LinearCrossEntropyLoss(8, 33, bias=True, **OPTIONS)
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    for other in (copy.deepcopy(module), torch.load(buffer, weights_only=False)):
        assert_identical(other(X, Y), module(X, Y))


def test_repr_shows_the_options_that_were_set():
    text = repr(LinearCrossEntropyLoss(8, 33, bias=True, softcap=5.0, reduction="sum"))
    for part in ("LinearCrossEntropyLoss", "8", "33", "bias=True", "softcap=5.0", "sum"):
        assert part in text


def test_learns(device):
    """Gradient steps on a separable problem reach a small loss."""
    module = LinearCrossEntropyLoss(16, 10, bias=True, device=device)
    y = torch.arange(200, device=device) % 10
    x = torch.nn.functional.one_hot(y, 16).float() + 0.1 * torch.randn(200, 16, device=device)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        loss = module(x, y)
        loss.backward()
        optimizer.step()
    assert loss < 0.05


# ---- HarmonicHead ----------------------------------------------------------------------------------------------------


@each_reduction
@pytest.mark.parametrize("precision", [None, "diagonal", "factor"])
@pytest.mark.parametrize("options", [{}, dict(label_smoothing=0.1, ignore_index=3), dict(floor=0.01)], ids=str)
def test_harmonic_head_is_the_function_of_its_parameters(options, precision, reduction, device):
    distance = "euclidean" if precision is None else "mahalanobis"
    head = HarmonicHead(8, 33, distance=distance, precision=precision, reduction=reduction, device=device, **options)
    x, y = X.to(device), Y.to(device)
    form = {None: None, "diagonal": "precision", "factor": "precision_factor"}[precision]
    given = dict(distance=distance, reduction=reduction, **options) | ({form: head.precision} if form else {})
    expected = lossk.harmonic.harmonic_loss(x, head.weight, y, **given)
    assert_identical(head(x, y), expected)
    for ours, grad in zip(head.parameters(), torch.autograd.grad(expected.sum(), list(head.parameters()))):
        (actual,) = torch.autograd.grad(head(x, y).sum(), ours)
        assert actual.any() and torch.equal(actual, grad)


def test_harmonic_head_gives_logits_without_a_target(device):
    head = HarmonicHead(8, 33, distance="cosine", exponent=5.0, device=device)
    x, y = X.to(device), Y.to(device)
    z = head(x)
    assert z.shape == (20, 33)
    torch.testing.assert_close(torch.nn.functional.cross_entropy(z, y), head(x, y), rtol=1e-5, atol=1e-6)
    assert_identical(head(x, y, reduction="sum"), lossk.harmonic.harmonic_loss(
        x, head.weight, y, distance="cosine", exponent=5.0, reduction="sum"
    ))  # fmt: skip


@pytest.mark.parametrize("exponent", [27.7, 100.0, 768.0, 1536.0])
def test_harmonic_head_begins_neither_uniform_nor_sure(exponent):
    x = torch.nn.functional.layer_norm(torch.randn(16, 768), (768,))
    z = HarmonicHead(768, 4096, exponent=exponent)(x)
    assert 0.4 < z.std(1).mean() < 1.2


def test_harmonic_head_begins_where_it_is_told():
    head = HarmonicHead(64, 4096)
    head.reset_parameters(std=0.05)
    assert abs(head.weight.std() / 0.05 - 1) < 0.02


def test_harmonic_head_shares_an_embedding():
    embedding = torch.nn.Embedding(33, 8)
    head = HarmonicHead(8, 33)
    head.weight = embedding.weight
    head(embedding(torch.arange(5)), torch.arange(5)).backward()
    assert embedding.weight.grad.any() and len({id(p) for p in (*embedding.parameters(), *head.parameters())}) == 1
    assert head(embedding(torch.arange(5))).argmax(-1).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("metric", [dict(distance="minkowski", metric={"p": 3.0}), dict(distance="manhattan")], ids=str)
def test_harmonic_head_takes_any_distance(metric):
    head = HarmonicHead(8, 33, **metric)
    torch.testing.assert_close(torch.nn.functional.cross_entropy(head(X), Y), head(X, Y), rtol=1e-5, atol=1e-6)
    assert "".join(f", {k}={v}" for k, v in head.metric.items()) in repr(head)


def test_harmonic_head_names_a_precision_that_is_none():
    with pytest.raises(ValueError, match="precision must be None, 'diagonal' or 'factor', got 'full'"):
        HarmonicHead(8, 33, precision="full")
    assert "exponent=2.82843" in repr(HarmonicHead(8, 33)) and "precision=None" in repr(HarmonicHead(8, 33))
