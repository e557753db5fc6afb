"""harmonic_loss over distances that a product gives: values and gradients against differences, in float64 and by the
rule, near centres, at the limits, over live columns."""

import math

import lossk
import pytest
import torch
from live import Sketches, list_rows
from lossk import reference
from lossk.harmonic import harmonic_logits, harmonic_loss
from problem import FLOAT32_AND_HALVES, Problem, assert_matches, each_dtype, each_reduction, wide
from tolerance import assert_as_good_as_torch, assert_identical, relative_error, rounding_floor

BY_PRODUCT = {
    "euclidean": {},
    "cosine": {},
    "hamming": dict(variant="hard", temperature=0.5),
    "mahalanobis": dict(form="factor"),
    "mahalanobis full": dict(form="full"),
    "mahalanobis diagonal": dict(form="diagonal"),
}
each_distance = pytest.mark.parametrize("distance", BY_PRODUCT)
each_exponent = pytest.mark.parametrize("exponent", ["1", "2", "sqrt(D)", "D", "2D"])
PRECISIONS = ("precision", "precision_factor")


def exponent_of(name, dim):
    return {"1": 1.0, "2": 2.0, "sqrt(D)": math.sqrt(dim), "D": float(dim), "2D": 2.0 * dim}[name]


def problem_of(
    distance, rows, vocab, dim, dtype=torch.float32, *, apart=None, ignored=0.2, weights=False, lead=None, device="cpu",
    **options,
) -> Problem:  # fmt: skip
    """apart: how far a row is from its centre, relative to the centre's length; None: anywhere."""
    weight = torch.randn(vocab, dim).to(dtype)
    target = torch.randint(vocab, (rows,))
    x = torch.randn(rows, dim)
    if apart is not None:
        x = weight[target].to(x) + apart * x
    target[torch.rand(rows) < ignored] = -100
    t = {"input": x.to(dtype), "weight": weight, "target": target}
    given = dict(BY_PRODUCT[distance])
    form = given.pop("form", None)
    if form == "factor":
        t["precision_factor"] = (torch.randn(dim, dim // 2 + 1) / dim**0.5).to(wide(dtype))
    elif form == "full":
        a = torch.randn(dim, dim) / dim**0.5
        t["precision"] = (a @ a.T + 0.5 * torch.eye(dim)).to(wide(dtype))
    elif form == "diagonal":
        t["precision"] = torch.randn(dim).to(wide(dtype))
    if weights:
        t["token_weight"] = (torch.rand(rows) + 0.1).to(wide(dtype))
    if lead is not None:
        t = {
            k: x.reshape((*lead, *x.shape[1:])) if k in ("input", "target", "token_weight") else x for k, x in t.items()
        }
    options = {"distance": distance.split()[0], **given, **options}
    return Problem(t, options).map(lambda a: a.to(device))


def symmetric(f):
    """d precision as the op has it: of the symmetric part."""

    def of(*args, precision=None, **how):
        if precision is not None and precision.dim() == 2:
            precision = (precision + precision.mT) / 2
        return f(*args, precision=precision, **how)

    return of


right = symmetric(reference.harmonic_loss)


def check(problem, **how):
    """d^2 = |x|^2 + |w|^2 - 2 x.w rounds where differences do not; points that are made, and bits' gradients, are
    rounded to the inputs' dtype once more."""
    dtype, distance = problem.tensors["input"].dtype, problem.options["distance"]
    floor = max(rounding_floor(dtype), 2.0**-18)
    if dtype == torch.float16:  # a GPU's dlogits are in units of powers of two: a row's weight is rounded with them
        floor = torch.finfo(dtype).eps
    if dtype.itemsize == 2 and distance in ("mahalanobis", "hamming"):
        floor = 4 * torch.finfo(dtype).eps
    return assert_matches(problem, harmonic_loss, right, **{"floor": floor} | how)


# ---- values and gradients --------------------------------------------------------------------------------------------


@each_distance
@each_exponent
@pytest.mark.float64
def test_float64(exponent, distance, device):
    for options in (dict(reduction="none", weights=True), dict(label_smoothing=0.1), dict(floor=0.01)):
        p = problem_of(distance, 37, 259, 300, torch.float64, exponent=exponent_of(exponent, 300), **options)
        ours, exact = p.gradients(harmonic_loss), p.gradients(right)
        assert ours.keys() == exact.keys()
        for name, x in ours.items():
            assert relative_error(x, exact[name]) < 1e-10, name


@each_dtype(only=FLOAT32_AND_HALVES)
@each_distance
@each_exponent
def test_exponents(exponent, distance, dtype, device):
    floor = None if exponent in ("1", "2", "sqrt(D)") else 2.0**-10 if dtype.itemsize == 2 else 2.0**-16
    p = problem_of(distance, 37, 259, 300, dtype, device=device, exponent=exponent_of(exponent, 300))
    if dtype.itemsize == 2 and distance.startswith("mahalanobis"):
        floor = torch.finfo(dtype).eps * (1 if floor is None else 8)
    check(p, **({} if floor is None else {"floor": floor}))


@each_dtype(only=FLOAT32_AND_HALVES)
@each_distance
def test_ragged_shapes(distance, dtype, device):
    for size in ((1, 1, 1), (60, 203, 300), (200, 1003, 24), (385, 769, 33), (3, 2, 5)):
        check(problem_of(distance, *size, dtype, device=device))


@each_dtype(only=FLOAT32_AND_HALVES)
@each_distance
@each_reduction
@pytest.mark.parametrize("option", ["weights", "smoothing", "floor"])
def test_options(option, reduction, distance, dtype, device):
    options = {"weights": dict(weights=True), "smoothing": dict(label_smoothing=0.1), "floor": dict(floor=0.01)}
    check(problem_of(distance, 37, 131, 40, dtype, device=device, reduction=reduction, **options[option]))


# Bits have no derivative but the one they are given, which test_float64 compares.
@pytest.mark.parametrize("distance", [name for name in BY_PRODUCT if name != "hamming"])
@pytest.mark.float64
def test_gradcheck(distance, device):
    p = problem_of(distance, 4, 7, 3, torch.float64, exponent=3.0, reduction="none", weights=True)
    names = [name for name, x in p.tensors.items() if x.is_floating_point()]

    def f(*leaves):
        return harmonic_loss(**p.with_(**dict(zip(names, leaves, strict=True))).arguments())

    assert torch.autograd.gradcheck(f, [p.tensors[name].requires_grad_() for name in names])


# ---- near a centre ---------------------------------------------------------------------------------------------------


def by_product(input, weight, target, *, distance, exponent, halves=None):
    """The formulation with a product, as published with the papers; of `halves` on a GPU by tensor cores."""
    dot = input @ weight.T
    if halves and dot.is_cuda:
        x, w = input.detach().to(halves), weight.detach().to(halves)
        dot = dot + (torch.mm(x, w.T, out_dtype=torch.float32) - dot).detach()
    if distance == "cosine":
        d2 = (1 - dot / input.norm(dim=1)[:, None] / weight.norm(dim=1)).square()
    else:
        d2 = (input.square().sum(1)[:, None] + weight.square().sum(1) - 2 * dot).clamp(min=0)
    return torch.nn.functional.cross_entropy(-exponent / 2 * torch.log(d2 + 1e-6), target)


@pytest.mark.parametrize("apart", [1.0, 0.1, 0.03, 0.01])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
@each_exponent
def test_near_a_centre_in_nats(exponent, distance, dtype, apart, device):
    """kappa = (|x|^2 + |w|^2) / d^2 up to 2e4. The loss is made of the target's distance, which is by differences; with
    the product's it would be off by exponent / 2 times what cancels: a nat and more here."""
    dim = 768
    p = problem_of(distance, 32, 259, dim, dtype, device=device, apart=apart, exponent=exponent_of(exponent, dim))
    p = p.with_(reduction="none")
    exact = p.cast(torch.float64).values(right)["loss"]
    got = p.values(harmonic_loss)["loss"].double()
    n = exponent_of(exponent, dim)
    assert (got >= 0).all()
    assert (got - exact).abs().max() < n / 2 * 2.0**-19 + 1e-6


@pytest.mark.parametrize("apart", [0.1, 0.01])
@each_dtype(only=FLOAT32_AND_HALVES)
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_gradients_near_a_centre(distance, dtype, apart, device):
    """Two centres near each row: the other's distance comes from the product. As good as torch that takes one too."""
    p = problem_of(distance, 32, 130, 96, dtype, device=device, apart=apart, exponent=8.0)
    w = p.tensors["weight"]
    twin = (w[:65].float() + 1.5 * apart * torch.randn(65, 96, device=device)).to(dtype)
    p = p.with_(weight=torch.cat([w[:65], twin]), target=p.tensors["target"].clamp(max=64))
    ours, exact = p.gradients(harmonic_loss), p.cast(torch.float64).gradients(right)
    halves = dtype if dtype.itemsize == 2 else None
    torchs = p.cast(torch.float32).with_(halves=halves).gradients(by_product)
    cut = p.tensors["input"].is_cuda  # tensor cores cut the bits off that are most of what is left of a small distance
    for name, x in ours.items():
        floor = 2.0**-16 if name == "loss" else rounding_floor(dtype)
        floor += cut * (2.0**-14 if name == "loss" else 2.0**-11)
        assert_as_good_as_torch(x, exact[name], torchs[name], name=name, floor=floor)


@each_dtype()
@pytest.mark.parametrize("distance", ["euclidean", "cosine", "hamming"])
@pytest.mark.parametrize("exponent", [0.5, 1.0, 27.7, 1536.0])
def test_on_a_centre(exponent, distance, dtype, device):
    """On the target's, on another's, on two that are the same; and a centre no row is near."""
    w = torch.randn(9, 64, device=device).to(dtype)
    w[5] = w[4]
    x, y = w[[0, 1, 4, 4, 5]].clone(), torch.tensor([0, 2, 4, 6, 4], device=device)
    x, w = x.requires_grad_(), w.requires_grad_()
    loss = harmonic_loss(x, w, y, distance=distance, exponent=exponent, reduction="none")
    loss.sum().backward()
    for name, t in (("loss", loss), ("grad of input", x.grad), ("grad of weight", w.grad)):
        assert t.isfinite().all(), name
    assert (loss >= 0).all() and loss[1] > loss[0]
    assert abs(loss[2] - loss[4]) <= 1e-5 * loss[2].abs() + 1e-6
    assert loss[0] < 1e-2 or exponent < 2


@each_dtype(only=FLOAT32_AND_HALVES)
def test_zero_vectors_under_cosine(dtype, device):
    """They are at distance 1 from everything, and have no gradient."""
    p = problem_of("cosine", 40, 33, 16, dtype, device=device, ignored=0, reduction="none")
    x, w, y = p.tensors["input"].clone(), p.tensors["weight"].clone(), p.tensors["target"].clone()
    x[::5], w[3], y[1] = 0, 0, 3
    p = p.with_(input=x, weight=w, target=y)
    ours = p.gradients(harmonic_loss)
    assert not ours["grad of input"][::5].any() and not ours["grad of weight"][3].any()
    unit = torch.nn.functional.normalize
    d = 1 - unit(x.double(), dim=1) @ unit(w.double(), dim=1).T
    want = -(-2 * torch.log(d.square() + 1e-6)).log_softmax(1).gather(1, y[:, None])[:, 0]
    assert relative_error(ours["loss"].double(), want) < 1e-5
    assert ours["grad of weight"].isfinite().all() and ours["grad of input"].isfinite().all()


# ---- live columns ----------------------------------------------------------------------------------------------------


def sketch_of(problem):
    with Sketches(torch.ops.lossk.harmonic_stats.default, 1) as sketches:
        harmonic_loss(**problem.leaves().arguments())
    assert len(sketches.seen) == 1
    return sketches.seen[0]


def live_problem(distance, dtype, device, **options):
    """Rows near centres: most of a row's mass is on few columns."""
    return problem_of(distance, 300, 1003, 40, dtype, device=device, apart=0.5, exponent=12.0, **options)


def check_live(p, sketch, distance, dtype):
    """As good as torch would be with the same live columns."""

    def filtered(*args, **how):
        return right(*args, sketch=sketch, list_rows=list_rows(sketch.device), **how)

    floor = max(rounding_floor(dtype), 2.0**-14)
    if dtype.itemsize == 2 and distance != "euclidean":
        floor = 2 * torch.finfo(dtype).eps
    assert_matches(p, harmonic_loss, filtered, floor=floor)


@each_dtype()
@each_distance
@each_reduction
@pytest.mark.parametrize("fill", [True, False])
def test_live_columns(fill, reduction, distance, dtype, device):
    tau = 0.02 if distance != "hamming" else 0.2
    p = live_problem(distance, dtype, device, reduction=reduction, tau=tau, fill=fill)
    sketch = sketch_of(p)
    share = (sketch[:2].double() >= tau).double().mean()
    assert 0.02 < share < 0.69, share

    check_live(p, sketch, distance, dtype)


@each_dtype(only=FLOAT32_AND_HALVES)
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_lists_with_everything_live_around_one_without(reduction, distance, dtype, device):
    rows, tau = list_rows(device), 2.0**-10
    options = dict(exponent=12.0 if distance == "cosine" else 16.0, reduction=reduction, tau=tau)
    p = problem_of(distance, 3 * rows, 403, 40, dtype, device=device, **options)
    place = (p.tensors["target"] != -100).cumsum(0) - 1  # among the rows that are not ignored
    near = p.tensors["weight"][7] + 0.1 * torch.randn(40, device=device).to(dtype)
    p.tensors["input"][(place >= rows) & (place < 2 * rows)] = near
    sketch = sketch_of(p)
    live = (sketch.double().view(len(sketch), -1) >= tau).double().mean(1)[:: rows // 128]
    assert live[0] > 0.7 and live[1] < 0.5 and live[2] > 0.7, live

    check_live(p, sketch, distance, dtype)


@pytest.mark.parametrize(("distance", "exponent"), [("euclidean", 16.0), ("cosine", 8.0)])
def test_the_fill_is_near_the_exact_gradient(distance, exponent, device):
    """Rows in contexts, two to a list, between a few centres each, as a model's are: most columns are dead, and the
    fill has most of what they would have had."""
    vocab, dim, alike = 8192, 64, list_rows(device) // 2
    rows = max(1024, 8 * alike)
    w, context = torch.randn(vocab, dim), torch.randint(vocab, (rows // alike, 4)).repeat_interleave(alike, 0)
    mix = torch.rand(rows, 4)
    x = (mix[:, :, None] / mix.sum(1)[:, None, None] * w[context]).sum(1) + 0.3 * torch.randn(rows, dim)
    p = Problem(dict(input=x, weight=w, target=context[:, 0]), dict(distance=distance, exponent=exponent, tau=2.0**-6))
    p = p.map(lambda a: a.to(device))
    with lossk.live_report() as reports:
        filled = p.gradients(harmonic_loss)
    assert reports[0].live_share < 0.5
    exact, dropped = p.with_(tau=None).gradients(harmonic_loss), p.with_(fill=False).gradients(harmonic_loss)
    for name in ("grad of input", "grad of weight"):
        ours, without = (relative_error(a[name], exact[name]) for a in (filled, dropped))
        # Under cosine what lies along a row is projected off, and with it most of what dead columns have together.
        assert ours < 0.03 and ours < (0.25 if distance == "euclidean" else 1.2) * without, (name, ours, without)


def test_live_report(device):
    p = live_problem("euclidean", torch.float32, device, tau=0.02)
    with lossk.live_report() as reports:
        harmonic_loss(**p.leaves().arguments()).backward()
    assert len(reports) == 1 and 0 < reports[0].live_share < 1 and 0 < reports[0].dlogits_error < 1


# ---- everything else -------------------------------------------------------------------------------------------------


@each_distance
def test_logits_and_loss_agree(distance, device):
    p = problem_of(distance, 40, 131, 48, device=device, ignored=0, reduction="none")
    given = p.arguments()
    y = given.pop("target")
    given.pop("reduction")
    z = harmonic_logits(**given)
    assert z.shape == (40, 131) and z.dtype == torch.float32
    want = torch.nn.functional.cross_entropy(z, y, reduction="none")
    torch.testing.assert_close(p.values(harmonic_loss)["loss"], want, rtol=1e-4, atol=1e-5)
    exact = reference.harmonic_logits(**{k: a.double() if isinstance(a, torch.Tensor) else a for k, a in given.items()})
    assert relative_error(z, exact) < 1e-6


@each_distance
def test_ignored_rows_cost_nothing_whatever_they_hold(distance, device):
    p = problem_of(distance, 40, 33, 16, device=device, ignored=0.4)
    off = p.tensors["target"] == -100
    dirty = p.tensors["input"].clone()
    dirty[off] = math.nan
    with_nan, without = p.with_(input=dirty).gradients(harmonic_loss), p.gradients(harmonic_loss)
    for name in ("loss", "grad of weight"):
        assert_identical(with_nan[name], without[name], name)
    assert not without["grad of input"][off].any()


@each_distance
@each_reduction
def test_leading_shapes_and_strides(distance, reduction, device):
    p = problem_of(distance, 60, 131, 48, device=device, reduction=reduction, lead=(3, 20))
    flat = p.gradients(harmonic_loss)
    strided = p.with_(
        input=p.tensors["input"].transpose(0, 1).contiguous().transpose(0, 1),
        weight=p.tensors["weight"].t().contiguous().t(),
    )
    assert flat["loss"].shape == ((3, 20) if reduction == "none" else ())
    for name, x in strided.gradients(harmonic_loss).items():
        # torch's own products depend on strides, and its sigmoids, through which gradients of hard bits go.
        if distance.startswith("mahalanobis") or (distance == "hamming" and name != "loss"):
            assert relative_error(x.double(), flat[name].double()) < 1e-5, name
        else:
            assert_identical(x, flat[name], name)


@each_distance
@each_reduction
def test_no_rows_no_columns(distance, reduction, device):
    for rows, vocab in ((0, 33), (0, 0)):
        p = problem_of(distance, rows, max(vocab, 1), 8, device=device, reduction=reduction)
        p = p.with_(weight=p.tensors["weight"][:vocab])
        ours = p.gradients(harmonic_loss)
        assert ours["grad of weight"].shape == (vocab, 8) and not ours["grad of weight"].any()
        assert ours["loss"].isnan().all() if reduction == "mean" else not ours["loss"].any()


@each_dtype(only=FLOAT32_AND_HALVES)
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_a_row_depends_neither_on_others_nor_on_threads(distance, dtype, device):
    p = problem_of(distance, 450, 1003, 70, dtype, device=device, reduction="none", ignored=0)
    every = p.gradients(harmonic_loss, upstream=1.25)
    for rows in ([0], [17, 3, 400], list(range(383, 386))):
        some = {k: x[rows] if k != "weight" else x for k, x in p.tensors.items()}
        part = p.with_(**some).gradients(harmonic_loss, upstream=1.25)
        for name in ("loss", "grad of input"):
            assert_identical(part[name], every[name][rows], name)
    before = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            for name, x in p.gradients(harmonic_loss, upstream=1.25).items():
                assert_identical(x, every[name], name)
    finally:
        torch.set_num_threads(before)


def test_gradients_in_float32_where_the_weight_asks(device, gpu_kernels):
    """A GPU's dlogits are bfloat16; a CPU's where it multiplies those."""
    p = problem_of("euclidean", 40, 131, 48, torch.bfloat16, device=device)
    for how in ({}, {"reduction": "none"}, {"tau": 0.01}):
        leaves = p.with_(**how).leaves()
        w = leaves.tensors["weight"]
        w.grad_dtype = torch.float32
        harmonic_loss(**leaves.arguments()).sum().backward()
        exact = p.cast(torch.float64).with_(**{k: v for k, v in how.items() if k != "tau"}).leaves()
        right(**exact.arguments()).sum().backward()
        assert w.grad.dtype == torch.float32
        rounded = gpu_kernels or "bf16" in lossk.build_info()["cpu"]["bfloat16"]
        most = 1 if "tau" in how else 4e-3 if rounded else 2e-6
        assert relative_error(w.grad.double(), exact.tensors["weight"].grad) < most


@each_distance
@each_reduction
def test_compiles_without_a_graph_break(distance, reduction, device):
    torch.compiler.reset()
    compiled = torch.compile(harmonic_loss, fullgraph=True, backend="aot_eager")
    p = problem_of(distance, 50, 203, 40, device=device, reduction=reduction)
    eager, ours = p.gradients(harmonic_loss), p.gradients(compiled)
    for name, x in eager.items():
        assert relative_error(ours[name].double(), x.double()) < 1e-6, name


def test_compiles_with_dynamic_shapes(device):
    torch.compiler.reset()
    compiled = torch.compile(harmonic_loss, fullgraph=True, backend="aot_eager", dynamic=True)
    for rows in (50, 31, 77):
        p = problem_of("euclidean", rows, 203, 40, device=device)
        eager, ours = p.gradients(harmonic_loss), p.gradients(compiled)
        for name, x in eager.items():
            assert relative_error(ours[name].double(), x.double()) < 1e-6, name


def test_autocast_and_no_grad(device):
    p = problem_of("euclidean", 50, 203, 40, device=device)
    with torch.no_grad(), torch.autocast(device, torch.bfloat16):
        got = harmonic_loss(**p.arguments())
    p = p.with_(**{k: p.tensors[k].bfloat16() for k in ("input", "weight")})
    assert_identical(got, harmonic_loss(**p.arguments()))


def test_no_second_derivative(device):
    for reduction in ("mean", "none"):
        p = problem_of("euclidean", 5, 9, 4, device=device, reduction=reduction).leaves()
        loss = harmonic_loss(**p.arguments()).sum()
        (g,) = torch.autograd.grad(loss, p.tensors["input"], create_graph=True)
        with pytest.raises(RuntimeError, match="cannot be differentiated again"):
            g.sum().backward()


ERRORS = {
    "exponent": (dict(exponent=0.0), ValueError, "exponent must be a finite number > 0, got 0.0"),
    "negative_exponent": (dict(exponent=-2.0), ValueError, "exponent must be a finite number > 0, got -2.0"),
    "eps": (dict(eps=0.0), ValueError, "eps must be a finite number > 0, got 0.0"),
    "floor": (dict(floor=-0.1), ValueError, r"floor must be a number in \[0, 1\], got -0.1"),
    "distance": (dict(distance="l3"), ValueError, "distance must be one of .*, got 'l3'"),
    "smoothing_and_floor": (dict(label_smoothing=0.1, floor=0.1), ValueError, "label_smoothing must be 0 with floor"),
    "smoothing_and_tau": (dict(label_smoothing=0.1, tau=0.1), ValueError, "label_smoothing must be 0 with tau"),
    "no_precision": (dict(distance="mahalanobis"), ValueError, "exactly one of precision and precision_factor"),
    "precision_elsewhere": (dict(precision=torch.ones(8)), ValueError, "precision must be None but for mahalanobis"),
    "indefinite": (
        dict(distance="mahalanobis", precision=torch.diag(torch.tensor([1.0] * 5 + [-1.0] + [1.0] * 2))),
        ValueError, "precision must be a positive definite matrix, got one whose leading minor 6 is not",
    ),
    "precision_shape": (
        dict(distance="mahalanobis", precision=torch.ones(7)), ValueError,
        r"precision must have shape \[8\], got \[7\]",
    ),
    "factor_shape": (
        dict(distance="mahalanobis", precision_factor=torch.ones(7, 3)), ValueError,
        r"precision_factor must have shape \[8, 3\], got \[7, 3\]",
    ),
    "temperature": (dict(distance="hamming", temperature=0.0), ValueError, "temperature must be a finite number > 0"),
    "p": (dict(distance="minkowski", p=0.0), ValueError, "p must be a finite number > 0, got 0.0"),
    "sharpness": (dict(distance="smooth_chebyshev", sharpness=-1.0), ValueError, "sharpness must be a finite"),
    "least": (dict(distance="canberra", least=0.0), ValueError, "least must be a finite number > 0"),
    "least_elsewhere": (dict(least=0.1), ValueError, "least must be None but for canberra and bray_curtis"),
    "variant": (
        dict(distance="canberra", variant="abs"), ValueError,
        r"variant must be one of \[None, 'standard', 'robust', 'weighted'\] for canberra, got 'abs'",
    ),
    "tau_elementwise": (dict(distance="manhattan", tau=0.1), ValueError, "tau must be None for manhattan"),
    "target": (dict(target=torch.tensor([0, 33])), ValueError, r"target must be in \[0, 33\) or -100, got 33 at \[1\]"),
    "weight": (dict(weight=torch.randn(33, 7)), ValueError, r"weight must be \[V, 8\], got \[33, 7\]"),
    "weight_dtype": (dict(weight=torch.randn(33, 8).half()), TypeError, "weight must have input's dtype"),
    "reduction": (dict(reduction="max"), ValueError, "reduction must be 'mean', 'sum' or 'none'"),
}  # fmt: skip


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case):
    change, error, text = ERRORS[case]
    given = dict(input=torch.randn(2, 8), weight=torch.randn(33, 8), target=torch.tensor([0, 1]))
    with pytest.raises(error, match=f"^harmonic_loss: {text}"):
        harmonic_loss(**given | change)
