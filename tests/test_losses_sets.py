"""Losses with a set of classes, against their references."""

import math

import lossk
import pytest
import torch
from lossk import losses, reference
from problem import FLOAT32_AND_HALVES, assert_matches, each_dtype, each_reduction, random_problem, wide
from tolerance import assert_identical, relative_error, rounding_floor


def floor(dtype):
    return max(rounding_floor(dtype), 2.0**-18)


# ---- several positives -----------------------------------------------------------------------------------------------


def positives_problem(rows, vocab, dim, dtype=torch.float32, *, entries=3, **options):
    p = random_problem(rows, vocab, dim, dtype, **options)
    device = p.tensors.pop("target").device
    positives = torch.stack([torch.randperm(vocab)[:entries] for _ in range(rows)])
    positives[torch.rand(rows, entries) < 0.3] = -100
    positives[::7] = -100
    positives[1::9, -1] = positives[1::9, 0]  # one twice
    return p.with_(positives=positives.to(device))


def reference_decoupled(input, linear_weight, positives, *, reduction="mean", token_weight=None, **head):
    z = reference.logits(input, linear_weight, **head)
    loss = reference.losses.decoupled_softmax(z, positives)
    loss = loss if token_weight is None else loss * token_weight
    count = (positives >= 0).any(-1).sum()
    return {"none": loss, "sum": loss.sum(), "mean": loss.sum() / count}[reduction]


@each_dtype()
@each_reduction
@pytest.mark.parametrize("option", [{}, dict(bias=True, token_weight=True, token_scale=True, softcap=4.0)], ids=str)
def test_decoupled_softmax(option, reduction, dtype, device):
    p = positives_problem(37, 131, 40, dtype, device=device, reduction=reduction, **option)
    assert_matches(p, losses.decoupled_softmax, reference_decoupled, floor=floor(dtype))


@pytest.mark.float64
def test_decoupled_softmax_of_one_positive_is_cross_entropy(device):
    p = random_problem(50, 33, 8, torch.float64, device=device)
    ours = losses.decoupled_softmax(p.tensors["input"], p.tensors["linear_weight"], p.tensors["target"][:, None])
    z = p.tensors["input"] @ p.tensors["linear_weight"].T
    torch.testing.assert_close(ours, torch.nn.functional.cross_entropy(z, p.tensors["target"]))


def test_all_classes_positive_and_none(device):
    x, w = torch.randn(4, 8, device=device, requires_grad=True), torch.randn(3, 8, device=device, requires_grad=True)
    everything = torch.arange(3, device=device).repeat(4, 1)
    loss = losses.decoupled_softmax(x, w, everything)
    assert loss == 0 and all(g.isfinite().all() for g in torch.autograd.grad(loss, [x, w]))
    assert losses.decoupled_softmax(x, w, torch.full_like(everything, -100)).isnan()


# ---- numbers ---------------------------------------------------------------------------------------------------------


def numbers_problem(rows, vocab, dim, dtype=torch.float32, **options):
    p = random_problem(rows, vocab, dim, dtype, **options)
    device = p.tensors["input"].device
    ids = torch.randperm(vocab, device=device)[: vocab // 3]
    return p.with_(number_ids=ids, number_values=torch.randn(len(ids), device=device).to(wide(dtype)))


def reference_numbers(name):
    dense = reference.losses.of(getattr(reference.losses, name))

    def loss(*args, target, number_ids, **arguments):
        other = ~(target[..., None] == number_ids).any(-1)
        return dense(*args, target=target.masked_fill(other, -100), number_ids=number_ids, **arguments)

    return loss


each_ntl = pytest.mark.parametrize("name", ["ntl_mse", "ntl_was"])


@each_dtype()
@each_reduction
@each_ntl
@pytest.mark.parametrize("option", [{}, dict(bias=True, token_weight=True, token_scale=True, softcap=4.0)], ids=str)
def test_number_token_loss(option, name, reduction, dtype, device):
    p = numbers_problem(60, 131, 40, dtype, device=device, reduction=reduction, **option)
    assert_matches(
        p, getattr(losses, name), reference_numbers(name), frozen=("number_values",), floor=floor(dtype)
    )  # fmt: skip


@each_ntl
def test_tokens_that_are_no_numbers_cost_nothing(name, device):
    p = numbers_problem(60, 131, 40, device=device)
    number = (p.tensors["target"][:, None] == p.tensors["number_ids"]).any(-1)
    x = torch.where(number[:, None], p.tensors["input"], math.nan)
    assert number.any() and not number.all()
    loss = getattr(losses, name)
    frozen = ("number_values",)
    ours, plain = p.with_(input=x).gradients(loss, frozen=frozen), p.gradients(loss, frozen=frozen)
    for key, value in plain.items():
        assert_identical(ours[key], value, key)


# ---- histograms ------------------------------------------------------------------------------------------------------


def values_problem(rows, bins, dim, dtype=torch.float32, **options):
    p = random_problem(rows, bins, dim, dtype, **options)
    device = p.tensors.pop("target").device
    value = (3 * torch.randn(rows)).clamp(-4, 4).to(device, wide(dtype))
    edges = torch.linspace(-4, 4, bins + 1, device=device).to(wide(dtype))
    return p.with_(value_target=value, edges=edges, sigma=0.3)


def reference_hl_gauss(
    input, linear_weight, value_target, *, edges, sigma, reduction="mean", token_weight=None, **head
):  # fmt: skip
    loss = reference.losses.hl_gauss(reference.logits(input, linear_weight, **head), value_target, edges, sigma)
    loss = loss if token_weight is None else loss * token_weight
    return {"none": loss, "sum": loss.sum(), "mean": loss.mean()}[reduction]


@each_dtype(only=[torch.float64, *FLOAT32_AND_HALVES])
@each_reduction
@pytest.mark.parametrize("option", [{}, dict(bias=True, token_weight=True, token_scale=True, softcap=4.0)], ids=str)
def test_hl_gauss(option, reduction, dtype, device):
    p = values_problem(37, 51, 40, dtype, device=device, reduction=reduction, **option)
    frozen = ("value_target", "edges")
    assert_matches(p, losses.hl_gauss, reference_hl_gauss, frozen=frozen, floor=floor(dtype))


def test_values_beyond_the_edges_and_none(device):
    p = values_problem(5, 51, 8, device=device, reduction="none")
    value = torch.tensor([-1e6, -4.0, 1e6, 4.0, math.nan], device=device)
    same = p.with_(value_target=value, input=p.tensors["input"][:1].repeat(5, 1)).gradients(
        losses.hl_gauss, frozen=("value_target", "edges")
    )
    loss = same["loss"]
    assert loss[0] == loss[1] and loss[2] == loss[3] and loss[4] == 0
    assert all(x.isfinite().all() for x in same.values()) and not same["grad of input"][4].any()


def test_compile(device):
    for p, loss in (
        (positives_problem(24, 33, 8, device=device), losses.decoupled_softmax),
        (numbers_problem(24, 33, 8, device=device), losses.ntl_was),
        (values_problem(24, 33, 8, device=device), losses.hl_gauss),
    ):
        torch._dynamo.reset()
        compiled = torch.compile(lambda loss=loss, **arguments: loss(**arguments), fullgraph=True, backend="aot_eager")
        frozen = ("number_values", "value_target", "edges")
        eager = p.gradients(loss, frozen=frozen)
        for name, x in p.gradients(compiled, frozen=frozen).items():
            assert relative_error(x.double(), eager[name].double()) < 1e-6, name


def test_empty_sets_are_refused():
    x, w, none = torch.randn(5, 4), torch.randn(9, 4), torch.zeros(5, 0, dtype=torch.int64)
    with pytest.raises(ValueError, match="decoupled_softmax: positives must name at least one column"):
        losses.decoupled_softmax(x, w, none)
    with pytest.raises(ValueError, match="linear_stats: index must name at least one column"):
        lossk.linear_stats(x, w, none, want=("lse_excl",))
    with pytest.raises(ValueError, match="linear_cross_entropy: soft_target indices must name at least one column"):
        lossk.linear_cross_entropy(x, w, soft_target=(none, none.float()))
    with pytest.raises(ValueError, match="ntl_mse: number_ids must name at least one column"):
        losses.ntl_mse(x, w, torch.arange(5), number_ids=none[0], number_values=none[0].float())


def test_refused():
    x, w, y = torch.randn(4, 8), torch.randn(9, 8), torch.randint(9, (4,))
    ids, values, edges = torch.tensor([1, 2]), torch.tensor([1.0, 2.0]), torch.arange(10.0)
    for call, word in (
        (lambda: losses.decoupled_softmax(x, w, y), "positives"),
        (lambda: losses.decoupled_softmax(x, w, y[:, None] + 9), "positives"),
        (lambda: losses.ntl_mse(x, w, y, number_ids=ids + 9, number_values=values), "number_ids"),
        (lambda: losses.ntl_was(x, w, y, number_ids=ids, number_values=values[:1]), "number_values"),
        (lambda: losses.hl_gauss(x, w, y, edges=edges, sigma=1.0), "value_target"),
        (lambda: losses.hl_gauss(x, w, y.float(), edges=edges[1:], sigma=1.0), "edges"),
        (lambda: losses.hl_gauss(x, w, y.float(), edges=edges, sigma=0.0), "sigma"),
    ):
        with pytest.raises((ValueError, TypeError), match=rf": {word} must"):
            call()
