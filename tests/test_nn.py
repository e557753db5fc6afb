"""nn.LinearCrossEntropyLoss: a module around the function, with the parameters of torch.nn.Linear."""

import copy
import io

import pytest
import torch
from lossk import linear_cross_entropy
from lossk.nn import LinearCrossEntropyLoss
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
