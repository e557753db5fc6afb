"""Values of linear_cross_entropy: every option in every dtype, odd shapes, hard logits, strides, leading dimensions."""

import math

import lossk
import pytest
import torch
import torch.nn.functional as F
from lossk import linear_cross_entropy, reference
from problem import (
    DTYPES,
    FLOAT32_AND_HALVES,
    OPTIONS,
    assert_matches,
    each_dtype,
    each_option,
    each_reduction,
    each_shape,
    random_problem,
)
from tolerance import assert_identical


def check(problem):
    return assert_matches(problem, linear_cross_entropy, reference.linear_cross_entropy, grads=False)["loss"]


@each_dtype()
@each_shape
def test_shapes(rows, vocab, dim, dtype, device):
    check(random_problem(rows, vocab, dim, dtype, device=device, reduction="none"))


@each_dtype()
@each_reduction
@each_option
def test_options(option, reduction, dtype, device):
    check(random_problem(50, 203, 40, dtype, device=device, reduction=reduction, **OPTIONS[option]))


@each_dtype()
@pytest.mark.parametrize("kind", ["flat", "peaked", "extreme"])
@pytest.mark.parametrize("option", ["plain", "everything_hard", "everything_soft"])
def test_kinds_of_logits(kind, option, dtype, device):
    check(random_problem(60, 1003, 64, dtype, kind=kind, device=device, reduction="none", **OPTIONS[option]))


@each_dtype()
def test_a_large_offset_common_to_all_logits(dtype, device):
    p = random_problem(60, 203, 40, dtype, device=device, reduction="none")
    check(p.with_(linear_bias=torch.full((203,), -1024.0, dtype=dtype, device=device)))


@each_dtype()
def test_minus_infinity_in_the_bias_masks_classes(dtype, device):
    p = random_problem(60, 1003, 40, dtype, device=device, reduction="none", ignored=0)
    bias = torch.zeros(1003, dtype=dtype, device=device)
    bias[400:900] = -math.inf
    allowed = p.tensors["target"].where(p.tensors["target"] < 400, 7)
    check(p.with_(linear_bias=bias, target=allowed))
    forbidden = allowed.clone()
    forbidden[3] = 777
    loss = check(p.with_(linear_bias=bias, target=forbidden))
    assert loss[3] == math.inf and loss.isinf().sum() == 1


def test_probability_zero_is_an_infinite_loss_only_where_it_is_the_target(device):
    p = random_problem(4, 300, 8, device=device, reduction="none", ignored=0)
    bias = torch.full((300,), -math.inf, device=device)
    bias[299] = 0
    loss = check(p.with_(linear_bias=bias, target=torch.tensor([299, 0, 299, 298], device=device)))
    assert loss.tolist() == [0.0, math.inf, 0.0, math.inf]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_row_that_is_not_finite_is_nan_and_stays_alone(value, device):
    p = random_problem(50, 203, 8, device=device, reduction="none", ignored=0)
    spoiled = p.tensors["input"].clone()
    spoiled[17, 3] = value
    loss = check(p.with_(input=spoiled))
    assert loss.isnan().nonzero().tolist() == [[17]]


@each_dtype()
def test_ignored_rows_may_hold_anything(dtype, device):
    p = random_problem(50, 203, 8, dtype, device=device)
    spoiled = p.tensors["input"].clone()
    spoiled[p.tensors["target"] == -100] = math.nan
    assert_identical(linear_cross_entropy(**p.with_(input=spoiled).arguments()), check(p))


@each_reduction
@pytest.mark.parametrize("option", ["plain", "class_weight", "soft_target"])
def test_all_rows_ignored(option, reduction, device):
    p = random_problem(6, 33, 8, device=device, ignored=1.1, reduction=reduction, **OPTIONS[option])
    loss = linear_cross_entropy(**p.arguments())
    if reduction == "mean":
        assert loss.isnan()
    else:
        assert not loss.any() and loss.shape == ((6,) if reduction == "none" else ())


@each_reduction
def test_no_rows(reduction, device):
    loss = linear_cross_entropy(**random_problem(0, 33, 8, device=device, reduction=reduction).arguments())
    expected = F.cross_entropy(torch.zeros(0, 33), torch.zeros(0, dtype=torch.int64), reduction=reduction)
    torch.testing.assert_close(loss.cpu(), expected, equal_nan=True)


@each_reduction
@pytest.mark.parametrize("lead", [(), (1,), (4, 15), (3, 1, 20), (0, 5)], ids=str)
@pytest.mark.parametrize("option", ["plain", "everything_hard", "everything_soft"])
def test_leading_dimensions(lead, option, reduction, device):
    options = OPTIONS[option] | dict(device=device, reduction=reduction)
    loss = check(random_problem(math.prod(lead), 203, 40, lead=lead, **options))
    assert loss.shape == (lead if reduction == "none" else ())


def strided(x):
    """The same values, every other element of a larger storage along the last dimension."""
    return torch.stack([x, torch.zeros_like(x)], -1).flatten(-2)[..., ::2]


def transposed(x):
    return x.t().contiguous().t() if x.dim() == 2 else strided(x)


def offset(x):
    """The same values at an address that no vector instruction likes."""
    return torch.cat([x.flatten()[:1], x.flatten()])[1:].view(x.shape)


def beside_nan(x):
    """Rows of a wider matrix, whose rows are aligned and whose other columns nobody may look at."""
    if x.dim() < 2 or not x.is_floating_point():
        return strided(x)
    return torch.nn.functional.pad(x, (0, 8 + -x.shape[-1] % 8), value=math.nan)[..., : x.shape[-1]]


LAYOUTS = {"strided": strided, "transposed": transposed, "offset": offset, "beside_nan": beside_nan}


@each_dtype(only=FLOAT32_AND_HALVES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dim", [40, 37])
@pytest.mark.parametrize("option", ["everything_hard", "everything_soft"])
def test_layouts_do_not_change_a_bit(layout, option, dim, dtype, device):
    p = random_problem(60, 203, dim, dtype, device=device, reduction="none", **OPTIONS[option])
    laid_out = p.map(LAYOUTS[layout])
    assert all(torch.equal(laid_out.tensors[k], x) for k, x in p.tensors.items())
    assert_identical(linear_cross_entropy(**laid_out.arguments()), check(p))


def test_expanded_tensors(device):
    p = random_problem(1, 203, 40, device=device, reduction="none", ignored=0)
    same = p.with_(input=p.tensors["input"].expand(9, 40), target=p.tensors["target"].expand(9))
    assert check(same).unique().numel() == 1


@each_reduction
@pytest.mark.parametrize("shift", [1, 3])
@pytest.mark.parametrize("lead", [(10,), (4, 15)], ids=str)
@pytest.mark.parametrize("option", ["plain", "everything_hard", "everything_soft"])
def test_shift(option, lead, shift, reduction, device):
    options = OPTIONS[option] | dict(device=device, reduction=reduction, shift=shift)
    loss = check(random_problem(math.prod(lead), 203, 40, lead=lead, **options))
    assert loss.shape == ((*lead[:-1], lead[-1] - shift) if reduction == "none" else ())


def test_arguments_by_position_are_torchs_and_cut_cross_entropys(device):
    p = random_problem(20, 33, 8, device=device)
    x, w, y = (p.tensors[name] for name in ("input", "linear_weight", "target"))
    assert_identical(linear_cross_entropy(x, w, y), linear_cross_entropy(input=x, linear_weight=w, target=y))


@each_dtype(only=FLOAT32_AND_HALVES)
@pytest.mark.parametrize("bias_dtype", DTYPES[:3], ids=str)
def test_a_bias_of_another_dtype(dtype, bias_dtype, device):
    p = random_problem(50, 203, 40, dtype, device=device, reduction="none", bias=True)
    check(p.with_(linear_bias=p.tensors["linear_bias"].to(bias_dtype)))


@each_reduction
def test_the_op_is_the_function(reduction, device):
    options = dict(softcap=3.0, label_smoothing=0.1, z_loss=1e-2, reduction=reduction)
    p = random_problem(50, 203, 40, device=device, bias=True, **options)
    t = p.tensors
    loss = torch.ops.lossk.cce(t["input"], t["linear_weight"], t["target"], t["linear_bias"], **options)
    assert_identical(loss, linear_cross_entropy(**p.arguments()))


def test_the_op_has_no_softcap_at_zero(device):
    p = random_problem(50, 203, 40, device=device)
    loss = torch.ops.lossk.cce(*(p.tensors[name] for name in ("input", "linear_weight", "target")))
    assert_identical(loss, linear_cross_entropy(**p.arguments()))


def test_the_package_names_what_it_offers():
    assert {"linear_cross_entropy", "linear_stats", "linear_logp"} <= set(dir(lossk))


@pytest.mark.parametrize("soft", [False, True])
def test_an_empty_batch_with_a_shift(soft, device):
    input, weight = torch.randn(0, 5, 8, device=device), torch.randn(33, 8, device=device)
    target = torch.zeros(0, 5, dtype=torch.int64, device=device)
    given = {"soft_target": (target[..., None], target[..., None].float())} if soft else {"target": target}
    assert linear_cross_entropy(input, weight, **given, shift=1, reduction="none").shape == (0, 4)
    assert linear_cross_entropy(input, weight, **given, shift=1, reduction="sum") == 0
