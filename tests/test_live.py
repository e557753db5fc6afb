"""Live columns: the backward with tau, against reference/live.py given the sketch that forward left, and the sketch."""

import math

import lossk
import pytest
import torch
from live import Sketches, check, list_rows, sketch_of
from lossk import linear_cross_entropy, reference
from lossk.reference.live import BLOCK, block_sums, live_columns
from problem import (
    FLOAT32_AND_HALVES,
    OPTIONS,
    SHAPES,
    Problem,
    assert_matches,
    each_dtype,
    each_reduction,
    random_problem,
    wide,
)
from tolerance import assert_as_good_as_torch, assert_identical, relative_error

from bench import problems
from bench.shapes import Shape

LIVE_OPTIONS = {
    name: option | ({"label_smoothing": 0.0} if option.get("softcap") and option.get("label_smoothing") else {})
    for name, option in OPTIONS.items()
} | {"everything_dense": OPTIONS["everything_hard"] | {"softcap": None}}


def exact(problem):
    return problem.with_(tau=None).cast(torch.float64).gradients(reference.linear_cross_entropy)


def language_like(rows, vocab, dim, dtype=torch.float32, *, gain=3.5, device, **options):
    """Logits like those of a trained model, targets drawn from it; the same on every device."""
    input, weight = problems.peaked(Shape(rows, dim, vocab, "test"), gain=gain)
    target = problems.sample_targets(input, weight, "peaked")
    p = Problem(dict(input=input.to(dtype), linear_weight=weight.to(dtype), target=target), options)
    return p.map(lambda x: x.to(device))


# ---- values ----------------------------------------------------------------------------------------------------------


@each_dtype()
@each_reduction
@pytest.mark.parametrize("option", LIVE_OPTIONS)
def test_options(option, reduction, dtype, device):
    p = random_problem(300, 1003, 40, dtype, device=device, reduction=reduction, tau=0.15, **LIVE_OPTIONS[option])
    live = live_columns(sketch_of(p), torch.zeros(300, 1003, dtype=torch.bool, device=device), 0.15, list_rows(device))
    assert 0.05 < live[:2].double().mean() < 0.69  # neither all nor nothing: else there is little to see
    check(p)


@each_dtype()
@each_reduction
@pytest.mark.parametrize("fill", [True, False])
@pytest.mark.parametrize(("rows", "vocab", "dim"), SHAPES)
def test_shapes(rows, vocab, dim, fill, reduction, dtype, device):
    check(random_problem(rows, vocab, dim, dtype, device=device, reduction=reduction, tau=0.2, fill=fill))


@each_dtype()
@pytest.mark.parametrize("kind", ["flat", "peaked", "extreme"])
@pytest.mark.parametrize("tau", [2.0**-8, 0.9])
@pytest.mark.parametrize("option", ["plain", "z_loss", "everything_dense", "everything_soft"])
def test_kinds_of_logits(option, tau, kind, dtype, device):
    p = random_problem(140, 1003, 64, dtype, kind=kind, device=device, tau=tau, **LIVE_OPTIONS[option])
    check(p, floor=2.0**-12 if kind == "extreme" else None)


@pytest.mark.large
@each_dtype(only=FLOAT32_AND_HALVES)
def test_more_than_one_slice_of_columns_and_piece_of_their_sum(dtype, device):
    p = random_problem(140, 2311, 4200, dtype, device=device, tau=0.05, bias=True)
    check(p)


@each_dtype(only=FLOAT32_AND_HALVES)
@pytest.mark.parametrize("option", ["plain", "everything_dense"])
def test_a_vocabulary_so_long_that_a_gpu_cuts_it_for_the_fill(option, dtype, device):
    check(random_problem(140, 4099, 40, dtype, device=device, tau=0.05, **LIVE_OPTIONS[option]))


@each_reduction
@pytest.mark.parametrize("frozen", ["input", "linear_weight", "linear_bias", "token_weight", "scale", "soft_weights"])
def test_frozen_tensors(frozen, reduction, device):
    option = LIVE_OPTIONS["everything_soft" if frozen == "soft_weights" else "everything_dense"]
    p = random_problem(150, 403, 40, device=device, reduction=reduction, tau=0.2, **option)
    assert f"grad of {frozen}" not in check(p, frozen=[frozen])


@each_dtype()
@pytest.mark.parametrize(("rows", "vocab", "dim"), [(300, 403, 40), (9, 4099, 40), (30, 4099, 8), (30, 2003, 304)])
@pytest.mark.parametrize("option", ["plain", "everything_dense", "everything_soft"])
def test_everything_live_is_exact(option, rows, vocab, dim, dtype, device):
    p = random_problem(rows, vocab, dim, dtype, device=device, tau=2.0**-20, **LIVE_OPTIONS[option])
    assert_matches(p, linear_cross_entropy, lambda **given: reference.linear_cross_entropy(**given | {"tau": None}))


@each_dtype()
@pytest.mark.parametrize("option", LIVE_OPTIONS)
def test_the_loss_is_that_of_the_exact_head(option, dtype, device):
    p = random_problem(150, 403, 40, dtype, device=device, reduction="none", **LIVE_OPTIONS[option])
    assert_identical(
        linear_cross_entropy(**p.with_(tau=0.3).leaves().arguments()).detach(),
        linear_cross_entropy(**p.leaves().arguments()).detach(),
    )


@each_reduction
def test_strides_and_leading_shapes(reduction, device):
    p = random_problem(300, 1003, 40, device=device, reduction=reduction, tau=0.12, lead=(3, 100), shift=1)
    flat = p.gradients(linear_cross_entropy)
    strided = p.with_(
        input=p.tensors["input"].transpose(0, 1).contiguous().transpose(0, 1),
        linear_weight=p.tensors["linear_weight"].t().contiguous().t(),
    )
    for name, x in strided.gradients(linear_cross_entropy).items():
        assert_identical(x, flat[name], name)


@each_reduction
@pytest.mark.parametrize(("rows", "vocab", "dim"), [(150, 200, 0), (0, 200, 8), (0, 0, 8), (0, 0, 0)])
def test_empty_matrices(rows, vocab, dim, reduction, device):
    tensors = dict(
        input=torch.zeros(rows, dim), linear_weight=torch.zeros(vocab, dim), linear_bias=torch.randn(vocab),
        target=torch.zeros(rows, dtype=torch.int64),
    )  # fmt: skip
    p = Problem(tensors, {"reduction": reduction, "tau": 0.9}).map(lambda x: x.to(device))
    exact_head = p.with_(tau=None).gradients(linear_cross_entropy)
    for name, x in p.gradients(linear_cross_entropy).items():
        assert x.shape == exact_head[name].shape, name
    if rows:
        check(p)


@each_dtype()
@pytest.mark.parametrize("fill", [True, False])
def test_every_statistic_has_live_gradients(fill, dtype, device):
    rows, vocab, dim, entries = 140, 1003, 40, 2
    acc = wide(dtype)
    x = torch.randn(rows, dim, device=device).to(dtype).requires_grad_()
    w = (24 * torch.randn(vocab, dim, device=device) / dim**0.5).to(dtype).requires_grad_()
    index = torch.stack([torch.randperm(vocab, device=device)[:entries] for _ in range(rows)])
    aux = torch.rand(vocab, dtype=acc, device=device)
    op = torch.ops.lossk.linear_stats
    stats, logits, logp, _, sketch, _ = op(x, w, None, None, index, aux, None, 0.0, 0.0, True, 0.9, fill, 0)
    upstream = {
        k: torch.randn(rows, dtype=torch.float64, device=device)
        for k in ("lse", "lse_excl", "mean_logit", "entropy", "lse2", "aux_mean")
    }
    at = torch.randn(rows, entries, dtype=torch.float64, device=device)
    names = lossk._head_ops.STATS
    loss = sum((g.to(acc) * stats[names.index(k)]).sum() for k, g in upstream.items())
    (loss + (at.to(acc) * (logits + logp)).sum()).backward()

    def expected(kind):
        e, c = x.detach().to(kind), w.detach().to(kind)
        z = (e @ c.T).to(torch.float64 if kind == torch.float64 else acc).requires_grad_()
        s = reference.linear_stats(z, torch.eye(vocab, dtype=z.dtype, device=device), index, aux=aux.to(z.dtype))
        loss = sum((g.to(z.dtype) * getattr(s, k)).sum() for k, g in upstream.items())
        loss = loss + (at.to(z.dtype) * (2 * s.logits - s.lse[:, None])).sum()
        (g,) = torch.autograd.grad(loss, z)
        picked = torch.zeros(rows, vocab, dtype=torch.bool, device=device).scatter_(1, index, True)
        live = live_columns(
            sketch.to(z.dtype), picked, 2.0**-12, list_rows(device)
        )  # never a larger tau: these gradients decay slowly
        assert live.double().mean() < 0.69
        g = reference.live.filtered(g, sketch.to(z.dtype), live, fill).to(kind)
        return g @ c, g.T @ e

    right, torchs = expected(torch.float64), expected(dtype)
    for ours, exact_grad, baseline in zip((x.grad, w.grad), right, torchs):
        assert_as_good_as_torch(ours, exact_grad, baseline, floor=2.0**-14 if dtype == torch.float32 else None)


# ---- the sketch ------------------------------------------------------------------------------------------------------


@each_dtype()
@pytest.mark.parametrize("gain", [0.5, 2.0, 3.5, 6.0])
def test_the_sketch_is_the_mass_of_each_block(gain, dtype, device):
    p = language_like(1000, 4096, 64, dtype, gain=gain, device=device, tau=0.1)
    p.tensors["target"][100:300] = -100
    active = p.tensors["target"] >= 0
    z = p.tensors["input"].double()[active] @ p.tensors["linear_weight"].double().T
    mass, sketch = block_sums(z.softmax(-1)), sketch_of(p).double()
    assert not sketch[len(mass) :].any()
    error = (sketch[: len(mass)] - mass).abs().sum(1) / mass.sum(1)
    assert error.max() < 0.15, error
    assert (sketch.sum(1)[: len(mass)] - mass.sum(1)).abs().max() < 0.01 * BLOCK


@pytest.mark.parametrize("tau", [2.0**-8, 2.0**-12])
def test_the_live_columns_are_those_of_the_exact_masses(tau, device):
    p = language_like(1024, 16384, 64, device=device, tau=tau)
    z = p.tensors["input"].double() @ p.tensors["linear_weight"].double().T
    mass = block_sums(z.softmax(-1))
    right, ours = mass >= tau, sketch_of(p).double() >= tau
    assert abs(ours.double().mean() / right.double().mean() - 1) < 0.02
    assert (mass * (right & ~ours)).sum() / 1024 < 0.1 * (mass * ~right).sum() / 1024
    assert ours[mass >= 2 * tau].double().mean() > 0.999


def test_a_sketch_made_in_several_chunks_of_rows(device, gpu_kernels):
    vocab = 3000 if gpu_kernels else 140_000  # chunks are a CPU's
    p = random_problem(1300, vocab, 2, device=device, tau=0.5, ignored=0)
    mass = sketch_of(p).double().sum(1)
    assert (mass / torch.tensor([128.0] * 10 + [20.0], device=device) - 1).abs().max() < 0.01


def test_no_sketch_without_a_gradient(device):
    p = random_problem(150, 403, 40, device=device, tau=0.1)
    with Sketches() as sketches:
        linear_cross_entropy(**p.with_(reduction="none").arguments())
        with torch.no_grad():
            linear_cross_entropy(**p.with_(reduction="none").leaves().arguments())
    assert [s.shape[0] for s in sketches.seen] == [0, 0]


# ---- how far off -----------------------------------------------------------------------------------------------------


@pytest.mark.large
@pytest.mark.parametrize(
    ("options", "most"),
    [  # d input's error at 2^-8, published beside 4.8, 23 and 27 % of a fill by the dropped probability alone
        pytest.param({}, 0.0175, id="plain"),
        pytest.param(dict(token_weight=True), 0.011, id="signed_weights"),
        pytest.param(dict(z_loss=1e-2), 0.018, id="z_loss"),
        pytest.param(dict(softcap=15.0, linear_bias=True), 0.015, id="softcap_and_bias"),
    ],
)
def test_the_fill_knows_every_term_of_the_loss(options, most, device):
    numbers = {k: v for k, v in options.items() if v is not True}
    p = language_like(1024, 16384, 256, device=device, tau=2.0**-8, **numbers)
    if "token_weight" in options:
        p = p.with_(token_weight=torch.randn(1024, device=device))
    if "linear_bias" in options:
        p = p.with_(linear_bias=torch.full((16384,), -8.0, device=device))
    right, ours = exact(p), p.gradients(linear_cross_entropy)
    dropped = p.with_(fill=False).gradients(linear_cross_entropy)
    error = {k: relative_error(ours[k].double(), right[k]) for k in ("grad of input", "grad of linear_weight")}
    assert error["grad of input"] < most and error["grad of linear_weight"] < 0.0068, error
    assert relative_error(dropped["grad of input"].double(), right["grad of input"]) > 5 * error["grad of input"]


@each_dtype(only=[torch.float64, torch.float32])
@pytest.mark.parametrize("option", ["plain", "token_weight", "z_loss", "label_smoothing", "soft_target"])
def test_each_row_keeps_its_sum(option, dtype, device):
    """The sum of d bias is the sum of dlogits: no fill loses any of it, and dropping does."""
    p = random_problem(300, 1003, 40, dtype, device=device, tau=0.2, bias=True, ignored=0, **OPTIONS[option])
    p = p.with_(target=p.tensors["target"][:1].expand(300)) if "target" in p.tensors else p
    right = exact(p)["grad of linear_bias"]
    ours, dropped = (p.with_(fill=f).gradients(linear_cross_entropy)["grad of linear_bias"] for f in (True, False))
    assert abs(ours.double().sum() - right.sum()) < 1e-5 * right.abs().sum()
    assert abs(dropped.double().sum() - right.sum()) > 1e-3 * right.abs().sum()
    assert ours.count_nonzero() == 1003 and (option == "label_smoothing" or dropped.count_nonzero() < 1003)


# ---- odd batches -----------------------------------------------------------------------------------------------------


def test_one_foreign_row_in_a_block_keeps_its_gradient(device):
    p = language_like(256, 4096, 64, gain=6.0, device=device, tau=2.0**-12, reduction="sum")
    foreign = 3 * torch.randn(64, device=device)
    p.tensors["input"][77] = foreign
    p.tensors["target"][77] = int((p.tensors["linear_weight"] @ foreign).argsort()[-3])
    right, ours = exact(p)["grad of input"], p.gradients(linear_cross_entropy)["grad of input"]
    assert (ours[77].double() - right[77]).norm() < 0.02 * right[77].norm()
    check(p)


def test_blocks_with_everything_live_around_one_without(device):
    p = random_problem(11 * BLOCK + 20, 403, 40, kind="flat", device=device, tau=0.2, ignored=0)
    few = p.tensors["input"].clone()
    few[5 * BLOCK : 6 * BLOCK] *= 1000
    p = p.with_(input=few)
    live = (
        live_columns(sketch_of(p), torch.zeros(len(few), 403, dtype=torch.bool, device=device), 0.2, BLOCK)
        .double()
        .mean(1)
    )
    if list_rows(device) == BLOCK:
        assert (live == 1).sum() == 10 and live[5] < 0.5 and live[11] == 0  # the last has 20 rows
    check(p)


@each_dtype(only=FLOAT32_AND_HALVES)
@pytest.mark.parametrize("frozen", [(), ("input",), ("linear_weight",)])
@pytest.mark.parametrize("option", ["plain", "token_weight", "everything_dense", "everything_soft"])
def test_lists_with_everything_live_around_one_without(option, frozen, dtype, device):
    rows, options = list_rows(device), LIVE_OPTIONS[option] | {"softcap": None}
    p = random_problem(3 * rows, 403, 40, dtype, kind="flat", device=device, tau=2.0**-10, **options)
    named = p.tensors["soft_indices" if "soft_indices" in p.tensors else "target"].reshape(3 * rows, -1)
    place = (named != -100).any(1).cumsum(0) - 1  # among the rows that are not ignored
    p.tensors["input"][(place >= rows) & (place < 2 * rows)] = 1000 * p.tensors["input"][0]
    picked = torch.zeros(len(place), 403, dtype=torch.bool, device=device)
    live = live_columns(sketch_of(p), picked, 2.0**-10, rows).double().mean(1)[:: rows // BLOCK]
    assert live[0] == 1 and live[1] < 0.5 and live[2] == 1
    check(p, frozen=frozen)


def test_a_block_of_ignored_rows(device):
    p = random_problem(400, 403, 40, device=device, tau=0.2, ignored=0)
    p.tensors["target"][128:256] = -100
    assert not check(p)["grad of input"][128:256].any()
    p.tensors["target"][:] = -100
    assert not any(x.any() for name, x in p.gradients(linear_cross_entropy).items() if name.startswith("grad"))


@pytest.mark.parametrize("fill", [True, False])
def test_a_target_that_is_the_only_live_column(fill, device):
    p = random_problem(100, 403, 40, kind="flat", device=device, tau=0.9, ignored=0, fill=fill)
    p.tensors["target"][:] = 7
    results = check(p)
    rest = results["grad of linear_weight"][torch.arange(403) != 7]
    assert rest.any(-1).all() if fill else not rest.any()


def test_all_mass_on_the_target(device):
    p = random_problem(100, 403, 40, device=device, tau=0.5, ignored=0, reduction="sum")
    p.tensors["input"].copy_(400 * p.tensors["linear_weight"][p.tensors["target"]])
    results = p.gradients(linear_cross_entropy)
    assert results["loss"] == 0 and not results["grad of linear_weight"].any() and not results["grad of input"].any()


def test_flat_logits_are_exact(device):
    """Every column weighs the same, N / V, so all are live or none is, and a fill of all is the mean."""
    p = random_problem(256, 1024, 32, device=device, tau=2.0**-4, ignored=0)
    p.tensors["input"].zero_()
    right = exact(p)
    for tau in (2.0**-4, 0.5):
        ours = p.with_(tau=tau).gradients(linear_cross_entropy)
        for name, x in ours.items():
            assert_as_good_as_torch(x, right[name], right[name].float(), name=name)


# ---- as an op --------------------------------------------------------------------------------------------------------


@each_reduction
def test_retain_graph_and_nothing_saved_changes(reduction, device):
    p = random_problem(300, 1003, 40, device=device, reduction=reduction, tau=0.12, **LIVE_OPTIONS["everything_dense"])
    p = p.leaves()
    with Sketches() as sketches:
        loss = linear_cross_entropy(**p.arguments())
    before = [sketches.seen[0].clone(), *(x.detach().clone() for x in p.tensors.values())]
    leaves = [x for x in p.tensors.values() if x.requires_grad]
    upstream = torch.rand_like(loss)
    first, second = (torch.autograd.grad(loss, leaves, upstream, retain_graph=True) for _ in range(2))
    for a, b in zip(first, second):
        assert_identical(a, b)
    for a, b in zip(before, [sketches.seen[0], *p.tensors.values()]):
        assert_identical(a, b.detach())


@each_dtype(only=FLOAT32_AND_HALVES)
def test_the_thread_count_does_not_matter(dtype, device):
    p = language_like(700, 3000, 96, dtype, device=device, tau=2.0**-6, label_smoothing=0.1)
    p = p.with_(scale=torch.rand(700, device=device) + 0.5)
    p.tensors["target"][::9] = -100
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 5, 16):
            torch.set_num_threads(threads)
            results.append(p.gradients(linear_cross_entropy))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for name, x in other.items():
            assert_identical(x, results[0][name], name)


@pytest.mark.parametrize("wrt", ["input", "linear_weight"])
def test_double_backward_is_an_error(wrt, device):
    p = random_problem(10, 33, 8, device=device, tau=0.1).leaves()
    (grad,) = torch.autograd.grad(linear_cross_entropy(**p.arguments()), p.tensors[wrt], create_graph=True)
    with pytest.raises(RuntimeError, match="lossk"):
        torch.autograd.grad(grad.square().sum(), p.tensors[wrt])


@each_reduction
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_a_graph_break(dynamic, reduction, device):
    torch.compiler.reset()
    compiled = torch.compile(linear_cross_entropy, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for rows in (300, 150):
        p = random_problem(rows, 403, 40, device=device, reduction=reduction, tau=0.2, bias=True)
        eager = p.gradients(linear_cross_entropy)
        with lossk.live_report() as reports:
            for name, x in p.gradients(compiled).items():
                assert_identical(x, eager[name], name)
        assert not reports or len(reports) == 1


@each_reduction
def test_meta_shapes_and_dtypes(reduction):
    p = random_problem(300, 403, 40, torch.bfloat16, reduction=reduction, tau=0.2, bias=True)
    real, meta = p.gradients(linear_cross_entropy), p.map(lambda x: x.to("meta")).gradients(linear_cross_entropy)
    for name, x in real.items():
        assert meta[name].is_meta and (meta[name].shape, meta[name].dtype) == (x.shape, x.dtype), name


@each_reduction
@each_dtype(only=FLOAT32_AND_HALVES[1:])
def test_float32_gradients_of_a_half_precision_weight(reduction, dtype, device):
    p = language_like(300, 1003, 40, dtype, device=device, reduction=reduction, tau=0.01)
    leaves = p.leaves()
    weight = leaves.tensors["linear_weight"]
    weight.grad_dtype = torch.float32
    linear_cross_entropy(**leaves.arguments()).sum().backward()
    rounded = p.gradients(linear_cross_entropy, upstream=1.0)["grad of linear_weight"]
    assert weight.grad.dtype == torch.float32
    assert_identical(weight.grad.to(dtype), rounded)
    assert (weight.grad != rounded).any()


def test_the_op_and_the_module_take_tau(device):
    p = random_problem(150, 403, 40, device=device, tau=0.35)
    right = p.gradients(linear_cross_entropy, upstream=1.0)
    x, w, y = (p.leaves().tensors[k] for k in ("input", "linear_weight", "target"))
    torch.ops.lossk.cce(x, w, y, tau=0.35).backward()
    assert_identical(x.grad, right["grad of input"])
    module = lossk.nn.LinearCrossEntropyLoss(40, 403, tau=0.35, fill=False).to(device)
    with torch.no_grad():
        module.weight.copy_(w)
    module(x.detach(), y).backward()
    dropped = p.with_(fill=False).gradients(linear_cross_entropy, upstream=1.0)
    assert_identical(module.weight.grad, dropped["grad of linear_weight"])
    assert (module.weight.grad != right["grad of linear_weight"]).any()


@pytest.mark.parametrize("tau", [0, 0.0, -0.1, 1, 1.0, 2, math.nan, math.inf])
def test_a_tau_out_of_range(tau, device):
    p = random_problem(5, 7, 3, device=device)
    with pytest.raises(ValueError, match=r"linear_cross_entropy: tau must be None or a number in \(0, 1\), got"):
        linear_cross_entropy(**p.arguments(), tau=tau)


def test_what_tau_is_not_for(device):
    p = random_problem(5, 7, 3, device=device)
    for tau in ("0.1", True, torch.tensor(0.1)):
        with pytest.raises(TypeError, match="linear_cross_entropy: tau must be None or a number in"):
            linear_cross_entropy(**p.arguments(), tau=tau)
    with pytest.raises(ValueError, match="tau must be None where softcap and label_smoothing are both given"):
        linear_cross_entropy(**p.arguments(), tau=0.1, softcap=3.0, label_smoothing=0.1)
    with pytest.raises(ValueError, match="cce: tau must be None or a number in"):
        torch.ops.lossk.cce(*(p.tensors[k] for k in ("input", "linear_weight", "target")), tau=-1.0)


# ---- the report ------------------------------------------------------------------------------------------------------


def test_the_report(device):
    p = language_like(300, 1003, 40, device=device, tau=0.05)
    p.tensors["target"][:100] = -100
    with lossk.live_report() as outer:
        with lossk.live_report() as inner:
            p.gradients(linear_cross_entropy)
        p.with_(tau=0.5).gradients(linear_cross_entropy)
        p.with_(tau=None).gradients(linear_cross_entropy)
    p.gradients(linear_cross_entropy)
    assert len(outer) == 2 and len(inner) == 1 and inner[0].live_share == outer[0].live_share
    active = p.tensors["target"] >= 0
    sketch, picked = sketch_of(p)[:2].double(), torch.nn.functional.one_hot(p.tensors["target"][active], 1003).bool()
    live = live_columns(sketch, picked, 0.05, list_rows(device))
    assert inner[0].live_share == pytest.approx(live.double().mean().item())
    mass = (sketch * ~live).sum(1) / torch.tensor([128, 72], device=device)
    torch.testing.assert_close(inner[0].dropped_mass, mass.float())
    assert outer[1].live_share < outer[0].live_share and outer[1].dlogits_error > outer[0].dlogits_error


@pytest.mark.parametrize("token_scale", [False, True])
@pytest.mark.parametrize("gain", [0.0, 2.0, 4.0])
def test_the_error_of_dlogits_is_at_most_what_the_report_says(gain, token_scale, device):
    p = language_like(300, 1003, 40, gain=gain, device=device, tau=0.1)
    if token_scale:
        p = p.with_(scale=torch.rand(300, device=device) + 0.5)
    z = reference.logits(**{k: p.tensors[k] for k in ("input", "linear_weight")}).double()
    weight = p.tensors.get("scale", torch.ones(300, device=device))[:, None].double()
    z = (z * weight).requires_grad_()
    (g,) = torch.autograd.grad(torch.nn.functional.cross_entropy(z, p.tensors["target"]), z)
    picked = torch.nn.functional.one_hot(p.tensors["target"], 1003).bool()
    live = live_columns(sketch_of(p).double(), picked, 0.1, list_rows(device))
    with lossk.live_report() as reports:
        p.with_(fill=False).gradients(linear_cross_entropy)

    def error(fill):
        ours = reference.live.filtered(g, sketch_of(p).double(), live, fill)
        return (weight * (ours - g)).norm() / (weight * g).norm()

    assert error(False) <= 1.05 * reports[0].dlogits_error and error(True) <= 1.05 * reports[0].dlogits_error
    assert reports[0].dlogits_error < 20 * error(False)
