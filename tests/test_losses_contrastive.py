"""Contrastive and margin losses against their references: values and all gradients."""

import inspect
import math

import pytest
import torch
import torch.nn.functional as F
from live import rows_of_lists
from lossk import losses
from lossk.reference import contrastive as reference
from problem import FLOAT32_AND_HALVES, Problem, assert_matches, each_dtype, random_problem, wide
from tolerance import assert_identical, relative_error, rounding_floor
from torch.utils._python_dispatch import TorchDispatchMode

CASES = {  # name: the loss's own arguments; a number for what may be a tensor is made one
    "info_nce": dict(temperature=0.3),
    "info_nce symmetric": dict(temperature=0.3, symmetric=True),
    "info_nce raw": dict(temperature=2.0, normalize=False),
    "dcl": dict(temperature=0.3),
    "dcl of two views": dict(temperature=0.3, symmetric=True, within=True),
    "dcl raw": dict(temperature=2.0, normalize=False),
    "soft_info_nce": dict(temperature=0.3),
    "soft_info_nce 0.5": dict(temperature=0.3, alpha=2.0, beta=0.5, least=0.01, normalize=False),
    "siglip": dict(scale=10.0, bias=-2.0),
    "siglip raw": dict(scale=0.5, bias=-1.0, normalize=False),
    "multi_similarity": {},
    "multi_similarity of labels": dict(alpha=1.0, beta=20.0, base=0.3),
    "multi_similarity raw": dict(alpha=0.5, beta=0.7, base=0.1, normalize=False),
    "opl": {},
    "cosface": dict(scale=16.0),
    "cosface 64": dict(scale=64.0, m=0.2),
    "arcface": dict(scale=16.0),
    "arcface 2.5": dict(scale=8.0, m=2.5),
    "adaface": dict(scale=16.0),
    "adaface 0.6": dict(scale=64.0, m=0.6, h=1.0, norm_mean=5.0, norm_std=0.5),
    "unpg": dict(scale=16.0),
    "unpg arcface": dict(scale=64.0, margin="arcface", m=0.3, whisker=0.5),
    "mw": dict(scale=20.0),
    "mw raw": dict(scale=1.0, normalize=False, softcap=5.0),
    "psl": dict(scale=0.5),
    "psl relu": dict(scale=0.5, activation="relu"),
    "psl 0.05": dict(scale=10.0, temperature=0.05),
    "psl raw": dict(scale=1.0, normalize=False, softcap=5.0),
}
NAMES = {case.split()[0] for case in CASES}
TWO_SETS = {"info_nce", "dcl", "soft_info_nce", "siglip", "multi_similarity"}
FROZEN = ("similar_q", "labels", "positives")
each_case = pytest.mark.parametrize("case", CASES)
WITH_TARGET = [c for c in CASES if "symmetric" not in CASES[c] and c.split()[0] != "multi_similarity"]
each_with_target = pytest.mark.parametrize("case", WITH_TARGET)


def test_every_loss_has_a_case_and_is_exported():
    from lossk.losses import batch, contrastive, margins, pairs

    assert (
        NAMES
        == {name for module in (batch, contrastive, margins, pairs) for name in module.__all__}
        <= set(losses.__all__)
    )


def name_of(case):
    return case.split()[0]


def adapted(module, case):
    """The loss with its matrices as input and linear_weight, whatever it calls them."""
    loss = getattr(module, name_of(case))

    def call(input, linear_weight=None, **own):
        if "similar_q" in own:
            own["similar"] = (own.pop("similar_indices"), own.pop("similar_q"))
        return loss(input, *([] if linear_weight is None else [linear_weight]), **own)

    return call


def pair(case):
    return adapted(losses, case), adapted(reference, case)


def problem_of(case, rows, vocab, dim, dtype=torch.float32, *, device="cpu", weighted=False, ignored=0.2, **options):
    """weighted: with token_weight, and tensors for the numbers that may be."""
    name, own = name_of(case), dict(CASES[case])
    p = random_problem(
        rows, vocab, dim, dtype, device=device, ignored=ignored, token_weight=weighted and name != "opl",
        bias=weighted and name in ("mw", "psl"), **options,
    )  # fmt: skip
    if own.get("symmetric"):
        del p.tensors["target"]
        own["linear_weight"] = p.tensors["linear_weight"][:rows]
    if name == "soft_info_nce":
        known = torch.stack([torch.randperm(vocab)[:3] for _ in range(rows)])
        known[torch.rand(rows, known.shape[1]) < 0.2] = -1
        q = torch.rand(known.shape).to(wide(dtype)) / 4
        own |= dict(similar_indices=known.to(device), similar_q=q.to(device))
    if name == "multi_similarity":
        del p.tensors["target"]
        if case.endswith("labels"):
            del p.tensors["linear_weight"]
            own["labels"] = torch.randint(-2, 3, (rows,), device=device)
        else:
            positives = torch.stack([torch.randperm(vocab)[:3] for _ in range(rows)])
            positives[torch.rand(rows, positives.shape[1]) < 0.3] = -1
            own["positives"] = positives.to(device)
    if name == "opl":
        del p.tensors["linear_weight"]
        p.options.pop("reduction", None)
        target = p.tensors["target"]
        own["target"] = torch.where(target == p.options.get("ignore_index", -100), target, target % 5)
    if weighted and name != "unpg":
        for number in {"temperature", "bias", "scale"} & own.keys() if name != "psl" else {"scale"}:
            shape = (rows,) if number != "bias" and "symmetric" not in own else ()
            own[number] = own[number] * (torch.rand(shape, device=device) + 0.5).to(wide(dtype))
    return p.with_(**own)


def check(case, problem, *, floor=0.0, **how):
    """The vectors' lengths are rounded into them in their dtype, as under autocast."""
    dtype = problem.tensors["input"].dtype
    floor = max(floor, rounding_floor(dtype), 2.0**-17, torch.finfo(dtype).eps if dtype != torch.float32 else 0.0)
    return assert_matches(problem, *pair(case), frozen=FROZEN, floor=floor, **how)


@each_case
@pytest.mark.float64
def test_float64(case, device):
    p = problem_of(case, 37, 59, 30, torch.float64, device=device, weighted=True)
    ours, right = (p.gradients(f, frozen=FROZEN) for f in pair(case))
    assert ours.keys() == right.keys()
    for name, x in ours.items():
        assert relative_error(x, right[name]) < 1e-9, name


@each_dtype(only=FLOAT32_AND_HALVES)
@each_case
def test_each(case, dtype, device):
    check(case, problem_of(case, 60, 203, 300, dtype, device=device))


@each_dtype(only=FLOAT32_AND_HALVES)
@each_case
def test_options(case, dtype, device):
    """Every reduction of every case, each in another dtype."""
    turn = list(CASES).index(case) + FLOAT32_AND_HALVES.index(dtype)
    reduction = ("mean", "sum", "none")[turn % 3]
    own = dict(ignore_index=5) if name_of(case) != "multi_similarity" else {}
    if "symmetric" in CASES[case]:
        own = {}
    check(case, problem_of(case, 37, 131, 40, dtype, device=device, weighted=True, reduction=reduction, **own))


@each_case
@pytest.mark.float64
def test_gradcheck(case, device):
    p = problem_of(case, 5, 7, 3, torch.float64, device=device, weighted=True, reduction="none")
    if name_of(case) == "adaface":  # the margin's dependence on lengths has no gradient, which differences do not know
        p = p.with_(h=0.0)
    names = [name for name, x in p.tensors.items() if x.is_floating_point() and name not in FROZEN]

    def f(*leaves):
        return pair(case)[0](**p.with_(**dict(zip(names, leaves, strict=True))).arguments())

    assert torch.autograd.gradcheck(f, [p.tensors[name].requires_grad_() for name in names])


@each_case
@pytest.mark.parametrize("spread", [1e-4, 1e3, 1e4])
def test_short_and_long_vectors_are_finite(spread, case, device):
    p = problem_of(case, 50, 63, 16, device=device, reduction="none")
    p = p.with_(input=p.tensors["input"] * spread)
    for name, x in p.gradients(pair(case)[0], frozen=FROZEN).items():
        assert x.isfinite().all(), name


@each_case
def test_equal_and_opposite_vectors_are_finite(case, device):
    """Cosines of 1 and -1, where an angle has no derivative, and a row of zeros."""
    p = problem_of(case, 24, 31, 8, device=device, reduction="none", ignored=0)
    x = p.tensors.get("linear_weight", p.tensors["input"])[:24].clone()
    x[::2] *= -3
    x[5] = 0
    for name, value in p.with_(input=x).gradients(pair(case)[0], frozen=FROZEN).items():
        assert value.isfinite().all(), name


@each_with_target
def test_ignored_rows_cost_nothing_whatever_they_hold(case, device):
    p = problem_of(case, 40, 63, 16, device=device, reduction="none")
    ignored = p.tensors["target"] == -100
    x = torch.where(ignored[:, None], math.nan, p.tensors["input"])
    with_nan, without = (q.gradients(pair(case)[0], frozen=FROZEN) for q in (p.with_(input=x), p))
    for name, value in without.items():
        assert_identical(with_nan[name], value, name)
    assert ignored.any() and not without["grad of input"][ignored].any()
    assert name_of(case) == "opl" or not without["loss"][ignored].any()


@each_with_target
def test_no_row_counts(case, device):
    p = problem_of(case, 6, 33, 8, device=device, ignored=1.1)
    if name_of(case) == "opl":
        assert p.values(pair(case)[0])["loss"] == 1
        return
    assert p.values(pair(case)[0])["loss"].isnan()
    for reduction in ("sum", "none"):
        for name, x in p.with_(reduction=reduction).gradients(pair(case)[0], frozen=FROZEN).items():
            assert not x.any(), name


@each_case
def test_of_a_single_class(case, device):
    rows = 1 if "symmetric" in CASES[case] else 5
    p = problem_of(case, rows, 1, 7, device=device, reduction="none", ignored=0)
    name = name_of(case)
    if name in ("dcl", "psl"):
        with pytest.raises(ValueError, match="must have 2 rows or more"):
            pair(case)[0](**p.arguments())
        return
    if name == "soft_info_nce":
        p = p.with_(alpha=0.0)
    results = p.gradients(pair(case)[0], frozen=FROZEN)
    assert all(x.isfinite().all() for x in results.values())
    if name in ("info_nce", "soft_info_nce", "cosface", "arcface", "adaface", "unpg", "mw"):
        assert not results["loss"].any()


@pytest.mark.parametrize("case", [*sorted(NAMES), "dcl of two views", "unpg arcface", "psl relu"])
def test_compiles(case, device):
    torch._dynamo.reset()
    p = problem_of(case, 24, 33, 8, device=device)
    loss = pair(case)[0]
    compiled = torch.compile(lambda **arguments: loss(**arguments), fullgraph=True, backend="aot_eager")
    eager = p.gradients(loss, frozen=FROZEN)
    for name, x in p.gradients(compiled, frozen=FROZEN).items():
        assert relative_error(x.double(), eager[name].double()) < 1e-6, name


@each_case
def test_leading_dimensions_and_names(case, device):
    name, loss = name_of(case), getattr(losses, name_of(case))
    assert loss.__name__ == name and "Source:" in loss.__doc__ and "arXiv" in loss.__doc__
    parameters = inspect.signature(loss).parameters
    assert name == "opl" or {"token_weight", "reduction"} <= parameters.keys()
    if name in TWO_SETS:
        assert list(parameters)[:2] == ["x", "y"]
        return
    p = problem_of(case, 24, 33, 8, device=device, reduction="none")
    shaped = p.map(lambda x: x.reshape(4, 6, *x.shape[1:]) if len(x) == 24 else x)
    whole, split = (q.gradients(pair(case)[0]) for q in (p, shaped))
    for key, x in whole.items():
        assert_identical(split[key].reshape(x.shape), x, key)
    assert name == "opl" or split["loss"].shape == (4, 6)


class Largest(TorchDispatchMode):
    """The most elements that an op has given."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for x in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(x, torch.Tensor):
                self.elements = max(self.elements, x.numel())
        return result


@pytest.mark.parametrize("case", [case for case in CASES if case.split()[0] != "unpg"])  # it goes in chunks
def test_no_matrix_of_similarities(case, device):
    p = problem_of(case, 90, 110, 4, device=device).leaves(FROZEN)
    with Largest() as largest:
        pair(case)[0](**p.arguments()).sum().backward()
    assert 0 < largest.elements < 90 * 90 // 2


# ---- what they are known to equal ------------------------------------------------------------------------------------


def two_sets(rows, others, dim=8, device="cpu"):
    return torch.randn(rows, dim, dtype=torch.float64), torch.randn(others, dim, dtype=torch.float64)


@pytest.mark.float64
def test_equalities(device):
    x, y = (t.to(device) for t in two_sets(12, 12))
    z = F.normalize(x) @ F.normalize(y).T / 0.07
    of = torch.arange(12, device=device)
    close = torch.testing.assert_close
    close(losses.info_nce(x, y), F.cross_entropy(z, of))
    close(losses.info_nce(x, y, symmetric=True), (F.cross_entropy(z, of) + F.cross_entropy(z.T, of)) / 2)
    close(losses.cosface(x, y, of, m=0.0, scale=1 / 0.07), F.cross_entropy(z, of))
    close(losses.arcface(x, y, of, m=0.0, scale=1 / 0.07), F.cross_entropy(z, of))
    nothing = torch.full((12, 1), -1, device=device), torch.zeros(12, 1, device=device)
    close(losses.soft_info_nce(x, y, similar=nothing, alpha=0.0), F.cross_entropy(z, of))
    own = torch.stack([of, of.roll(1)], 1), torch.rand(12, 2, device=device)
    passed_over = own[0].clone(), own[1].clone()
    passed_over[0][:, 0] = -1
    close(losses.soft_info_nce(x, y, similar=own), losses.soft_info_nce(x, y, similar=passed_over))


@pytest.mark.float64
def test_soft_info_nce_with_every_negative_known_is_the_paper(device):
    x, y = (t.to(device) for t in two_sets(9, 9))
    others = torch.stack([torch.tensor([v for v in range(9) if v != n]) for n in range(9)]).to(device)
    q = torch.randn(9, 8, dtype=torch.float64, device=device).softmax(-1)
    w = ((2 - 1.5 * q) / (2 - 1.5 / 8)).clip(min=0.1)
    e = (F.normalize(x) @ F.normalize(y).T / 0.2).exp()
    paper = -(e.diag() / (e.diag() + (w * e.gather(1, others)).sum(1))).log().mean()
    ours = losses.soft_info_nce(x, y, similar=(others, q), alpha=1.5, beta=2.0, temperature=0.2)
    torch.testing.assert_close(ours, paper)


@pytest.mark.float64
def test_a_learnt_temperature_of_all_rows(device):
    x, y = (t.to(device) for t in two_sets(7, 9))
    for loss, name in ((losses.info_nce, "temperature"), (losses.dcl, "temperature"), (losses.siglip, "scale")):
        value = torch.tensor(0.5, dtype=torch.float64, device=device, requires_grad=True)
        got = torch.autograd.grad(loss(x, y, **{name: value}), value)[0]
        step = 1e-6
        ahead, behind = (loss(x, y, **{name: 0.5 + d}) for d in (step, -step))
        assert (ahead - behind) / (2 * step) == pytest.approx(got.item(), rel=1e-6)


def test_arcface_asks_more_of_every_angle(device):
    """The target's logit falls with the angle from 0 to pi, past pi - m too."""
    angle = torch.linspace(0.01, math.pi - 0.01, 400, device=device)
    x = torch.stack([angle.cos(), angle.sin()], 1)
    w = torch.tensor([[1.0, 0.0], [0.0, -1.0]], device=device)
    target, others = torch.zeros(400, dtype=torch.int64, device=device), 64 * (x @ w[1])
    for m in (0.2, 0.5, 2.0):
        loss = losses.arcface(x, w, target, m=m, reduction="none").double()  # softplus(others - logit)
        logit = (others - loss.expm1().log())[(loss > 1e-3) & (loss < 200)]
        assert len(logit) > 100 and (logit.diff() < 1e-3).all(), m


@pytest.mark.float64
def test_adaface_with_numbers_of_the_batch(device):
    p = problem_of("adaface", 30, 11, 5, torch.float64, device=device)
    norm = p.tensors["input"][p.tensors["target"] >= 0].norm(dim=-1)
    given = p.with_(norm_mean=norm.mean().item(), norm_std=norm.std())
    torch.testing.assert_close(
        losses.adaface(**given.arguments()), losses.adaface(**p.arguments()), rtol=1e-12, atol=1e-12
    )


def test_psl_of_a_target_far_ahead(device):
    """The largest of the others counts, not the target: else all terms would be 0 in float32."""
    x = torch.linspace(1, 60, 30, device=device)[:, None]
    w = torch.tensor([[1.0], [-0.2], [0.0]], device=device)
    target = torch.zeros(30, dtype=torch.int64, device=device)
    p = Problem(dict(input=x, linear_weight=w, target=target), dict(normalize=False, scale=1.0, temperature=0.1))
    check("psl", p.with_(reduction="none"))


def test_rows_without_positives_have_no_nan_on_the_way(device):
    x = torch.randn(6, 8, device=device, requires_grad=True)
    with torch.autograd.set_detect_anomaly(True):
        losses.multi_similarity(x, labels=torch.tensor([0, 1, 1, 2, 3, 4], device=device)).backward()
    assert x.grad.isfinite().all()


@pytest.mark.float64
def test_quartiles_are_those_of_all_pairs(device):
    from lossk.losses.batch import _quartiles

    features = F.normalize(torch.randn(40, 6, dtype=torch.float64, device=device), dim=-1)
    for classes in (40, 3):
        label = torch.randint(-1, classes, (40,), device=device)
        pairs = (label[:, None] != label).triu(1) & (label[:, None] >= 0) & (label >= 0)
        order = (features @ features.T)[pairs].sort().values
        for got, rank in zip(_quartiles(features, label), (len(order) // 4, 3 * len(order) // 4)):
            assert 0 <= order[rank] - got < 2**-28


def test_unpg_in_chunks(device, monkeypatch):
    import lossk.losses.batch as batch

    p = problem_of("unpg", 50, 33, 16, device=device)
    whole = p.gradients(losses.unpg)
    monkeypatch.setattr(batch, "_CHUNK_ELEMENTS", 50 * 7)
    for name, x in p.gradients(losses.unpg).items():
        assert relative_error(x.double(), whole[name].double()) < 1e-6, name


@pytest.mark.parametrize("classes", [1, 60])
def test_opl_without_pairs_of_a_kind(classes, device):
    """The sums whose difference is 0 are rounded each by themselves."""
    p = problem_of("opl", 60, 61, 24, device=device, ignored=0)
    check("opl", p.with_(target=torch.arange(60, device=device) % classes))


def test_unpg_without_pairs_is_its_head(device):
    p = problem_of("cosface", 20, 33, 16, device=device)
    p = p.with_(target=torch.where(p.tensors["target"] < 0, -100, 7), m=0.5)
    unpg, cosface = (p.gradients(f) for f in (losses.unpg, losses.cosface))
    for name, x in cosface.items():
        assert_identical(unpg[name], x, name)


@pytest.mark.parametrize("name", ["cosface", "arcface", "info_nce"])
def test_live_columns(name, device):
    p = random_problem(rows_of_lists(device, ignored=0.2), 1003, 40, device=device, ignored=0.2)
    p = p.with_(reduction="none", **({"temperature": 0.005} if name == "info_nce" else {"scale": 200.0}))
    loss = adapted(losses, name)
    exact, live = p.gradients(loss), p.with_(tau=2**-12).gradients(loss)
    assert_identical(live["loss"], exact["loss"])
    for of in ("grad of input", "grad of linear_weight"):
        assert 2e-6 < relative_error(live[of].double(), exact[of].double()) < 0.05, of  # more than rounding


def test_autocast(device):
    p = problem_of("info_nce", 40, 50, 16, device=device, ignored=0)
    exact = losses.info_nce(*p.tensors.values(), temperature=0.3)
    with torch.autocast(device, torch.bfloat16):
        half = losses.info_nce(*p.tensors.values(), temperature=0.3)
    assert half.dtype == torch.float32 and 0 < abs(half - exact) < 0.02


# ---- errors ----------------------------------------------------------------------------------------------------------

X, Y, T = torch.randn(4, 8), torch.randn(9, 8), torch.randint(9, (4,))
SIMILAR = torch.zeros(4, 2, dtype=torch.int64), torch.zeros(4, 2)
REFUSED = [  # loss, arguments, options, what is said
    ("info_nce", (X[0], Y), {}, "x must be [N, D], got [8]"),
    ("info_nce", (X, Y[:, :7]), {}, "y must be [M, 8], got [9, 7]"),
    ("info_nce", (Y, X), {}, "y must have 9 rows or more where target is None, got [4, 8]"),
    ("info_nce", (X, Y), dict(symmetric=True), "y must have 4 rows, got [9, 8]"),
    ("info_nce", (X, Y, T), dict(symmetric=True), "target must be None with symmetric"),
    ("info_nce", (X, Y, T + 9), {}, "target must be in [0, 9)"),
    ("info_nce", (X, Y), dict(temperature=0.0), "temperature must be a finite number > 0 or a Tensor, got 0.0"),
    ("info_nce", (X, Y), dict(temperature=torch.ones(3)), "temperature must have shape [4], got [3]"),
    ("info_nce", (X, Y), dict(tau=2.0), "tau must be"),
    ("info_nce", (X, Y.double()), {}, "linear_weight must have input's dtype"),
    ("dcl", (X, Y, T), dict(within=True), "target must be None with within"),
    ("dcl", (X, Y), dict(reduction="average"), "reduction must be"),
    ("dcl", (X, Y), dict(token_weight=torch.ones(3)), "token_weight must have shape [4], got [3]"),
    ("soft_info_nce", (X, Y), dict(similar=SIMILAR[0]), "similar must be a pair (indices, q), got Tensor"),
    ("soft_info_nce", (X, Y), dict(similar=(SIMILAR[0] + 9, SIMILAR[1])), "similar indices must be in [0, 9)"),
    ("soft_info_nce", (X, Y), dict(similar=(SIMILAR[0], SIMILAR[1][:1])), "similar q must have shape [4, 2]"),
    ("soft_info_nce", (X, Y), dict(similar=SIMILAR, alpha=8.0), "alpha must be a finite number in [0, beta (M - 1))"),
    ("soft_info_nce", (X, Y), dict(similar=SIMILAR, least=0.0), "least must be"),
    ("siglip", (X, Y), dict(scale=-1.0), "scale must be a finite number > 0 or a Tensor"),
    ("siglip", (X, Y), dict(bias=torch.ones(4)), "bias must have shape [], got [4]"),
    ("siglip", (X, Y), dict(bias="0"), "bias must be a finite number or a Tensor, got str"),
    ("multi_similarity", (X, Y), {}, "exactly one of positives and labels must be given"),
    ("multi_similarity", (X, Y), dict(labels=T), "labels must be None where y is given"),
    ("multi_similarity", (X, Y, T), {}, "positives must have shape [4, 4], got [4]"),
    ("multi_similarity", (X, Y, T[:, None] + 9), {}, "positives must be in [0, 9) or -1"),
    ("multi_similarity", (X, Y, T[:, None]), dict(beta=0.0), "beta must be a finite number > 0"),
    ("opl", (X, T[:3]), {}, "target must have shape [4], got [3]"),
    ("opl", (X, T), dict(gamma=math.nan), "gamma must be a finite number, got nan"),
    ("opl", (T, T), {}, "input must be float32"),
    ("cosface", (X, Y, T), dict(m=math.inf), "m must be a finite number, got inf"),
    ("cosface", (X, Y, T), dict(scale=0.0), "scale must be a finite number > 0 or a Tensor, got 0.0"),
    ("arcface", (X, Y, T), dict(m=4.0), "m must be a number in [0, pi], got 4.0"),
    ("arcface", (X, Y, T + 9), {}, "target must be in [0, 9)"),
    ("adaface", (X, Y, T), dict(norm_mean=torch.ones(4)), "norm_mean must have shape [], got [4]"),
    ("adaface", (X, Y, T), dict(norm_std="1"), "norm_std must be None, a finite number or a Tensor, got str"),
    ("unpg", (X, Y, T), dict(margin="softmax"), "margin must be 'cosface' or 'arcface', got 'softmax'"),
    ("unpg", (X, Y, T), dict(scale=torch.tensor(64.0)), "scale must be a number"),
    ("unpg", (X, Y, T), dict(whisker=-1.0), "whisker must be a finite number >= 0, got -1.0"),
    ("mw", (X, Y, T), dict(scale=-1.0), "scale must be a finite number > 0 or a Tensor"),
    ("psl", (X, Y, T), dict(activation="atan"), "activation must be 'tanh' or 'relu', got 'atan'"),
    ("psl", (X, Y, T), dict(temperature=0.0), "temperature must be a finite number > 0"),
]


@pytest.mark.parametrize("refused", REFUSED, ids=lambda r: f"{r[0]}: {r[3]}")
def test_refused(refused):
    name, arguments, options, text = refused
    with pytest.raises((ValueError, TypeError)) as error:
        getattr(losses, name)(*arguments, **options)
    assert str(error.value).startswith(f"{name}: {text}")
