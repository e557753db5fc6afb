"""torch.compile, autocast, no_grad, inference_mode, opcheck and shapes on the meta device."""

import pytest
import torch
from lossk import linear_cross_entropy, reference
from problem import FLOAT32_AND_HALVES, OPTIONS, assert_matches, each_dtype, each_option, each_reduction, random_problem
from tolerance import assert_identical


def same_as_eager(problem, compiled):
    eager, ours = problem.gradients(linear_cross_entropy), problem.gradients(compiled)
    assert eager.keys() == ours.keys()
    for name, x in eager.items():
        assert_identical(ours[name], x, name)


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()


@each_reduction
@each_option
def test_compiles_without_a_graph_break(option, reduction, device):
    compiled = torch.compile(linear_cross_entropy, fullgraph=True, backend="aot_eager")
    same_as_eager(random_problem(50, 203, 40, device=device, reduction=reduction, **OPTIONS[option]), compiled)


@each_reduction
def test_compiles_with_dynamic_shapes(reduction, device):
    compiled = torch.compile(linear_cross_entropy, fullgraph=True, backend="aot_eager", dynamic=True)
    for rows in (50, 31, 77):
        same_as_eager(random_problem(rows, 203, 40, device=device, reduction=reduction, shift=1), compiled)


def test_compiles_with_numbers_that_change(device):
    compiled = torch.compile(linear_cross_entropy, fullgraph=True, backend="aot_eager")
    p = random_problem(50, 203, 40, device=device)
    for x in (0.1, 0.2, 0.3):
        same_as_eager(p.with_(scale=x, z_loss=x, label_smoothing=x, softcap=x, margin=x), compiled)


def test_compiles_under_no_grad_and_autocast(device):
    p = random_problem(50, 203, 40, device=device)

    def loss():
        with torch.no_grad(), torch.autocast(device, torch.bfloat16):
            return linear_cross_entropy(**p.arguments())

    assert_identical(torch.compile(loss, fullgraph=True, backend="aot_eager")(), loss())


def test_compiles_inside_a_model(device):
    p = random_problem(50, 203, 40, device=device).leaves()
    body = torch.nn.Linear(40, 40, device=device)

    def step(x, w, y):
        return linear_cross_entropy(torch.relu(body(x)), w, y) * 2

    arguments = [p.tensors[name] for name in ("input", "linear_weight", "target")]
    eager = torch.autograd.grad(step(*arguments), [*body.parameters(), *arguments[:2]])
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    for a, b in zip(eager, torch.autograd.grad(compiled(*arguments), [*body.parameters(), *arguments[:2]])):
        assert_identical(a, b)


@pytest.mark.slow
@each_reduction
@pytest.mark.parametrize("option", ["plain", "everything_hard", "everything_soft"])
def test_compiles_with_inductor(option, reduction, device):
    compiled = torch.compile(linear_cross_entropy, fullgraph=True)
    p = random_problem(50, 203, 40, device=device, reduction=reduction, **OPTIONS[option])
    assert_matches(p, compiled, reference.linear_cross_entropy)


@each_dtype(only=FLOAT32_AND_HALVES[1:])
@each_option
def test_autocast_casts_the_head(option, dtype, device):
    p = random_problem(50, 203, 40, device=device, **OPTIONS[option])

    def under_autocast(**arguments):
        with torch.autocast(device, dtype):
            return linear_cross_entropy(**arguments)

    def by_hand(input, linear_weight, **arguments):
        return linear_cross_entropy(input.to(dtype), linear_weight.to(dtype), **arguments)

    ours, expected = p.gradients(under_autocast), p.gradients(by_hand)
    assert ours["loss"].dtype == ours["grad of input"].dtype == ours["grad of linear_weight"].dtype == torch.float32
    for name, x in expected.items():
        if name != "grad of linear_bias":
            assert_identical(ours[name], x, name)


def test_autocast_accepts_mixed_dtypes(device):
    p = random_problem(50, 203, 40, device=device)
    mixed = p.with_(input=p.tensors["input"].bfloat16())
    with torch.autocast(device, torch.bfloat16):
        assert_identical(linear_cross_entropy(**mixed.arguments()), linear_cross_entropy(**p.arguments()))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@each_reduction
def test_without_gradients(mode, reduction, device):
    p = random_problem(50, 203, 40, device=device, reduction=reduction, **OPTIONS["everything_hard"])
    p = p.leaves(frozen=["token_weight"])
    with mode():
        loss = linear_cross_entropy(**p.arguments())
    assert not loss.requires_grad
    assert_identical(loss, linear_cross_entropy(**p.arguments()).detach())


@each_reduction
@pytest.mark.parametrize("option", ["plain", "everything_hard", "everything_soft"])
def test_meta_shapes_and_dtypes(option, reduction):
    p = random_problem(50, 203, 40, torch.bfloat16, reduction=reduction, **OPTIONS[option])
    real, meta = p.gradients(linear_cross_entropy), p.map(lambda x: x.to("meta")).gradients(linear_cross_entropy)
    assert real.keys() == meta.keys()
    for name, x in real.items():
        assert meta[name].is_meta and (meta[name].shape, meta[name].dtype) == (x.shape, x.dtype), name


def test_meta_shapes_past_32_bits():
    x = torch.empty(2**33, 64, device="meta", requires_grad=True)
    w = torch.empty(2**32, 64, device="meta", requires_grad=True)
    y = torch.empty(2**33, dtype=torch.int64, device="meta")
    loss = linear_cross_entropy(x, w, y, reduction="none")
    assert loss.shape == (2**33,)
    loss.sum().backward()
    assert x.grad.shape == (2**33, 64) and w.grad.shape == (2**32, 64)
