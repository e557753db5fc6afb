"""A random call of a head, run by any implementation and judged by the one rule of tolerance.py."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
import torch
from tolerance import assert_as_good_as_torch, rounding_floor
from torch import Tensor

FLOAT32_AND_HALVES = [torch.float32, torch.bfloat16, torch.float16]
DTYPES = [torch.float64, *FLOAT32_AND_HALVES]

SHAPES = [  # rows, vocabulary, dim
    pytest.param(64, 128, 64, id="aligned"),
    pytest.param(37, 1003, 64, id="vocabulary_off_128"),
    pytest.param(129, 259, 300, id="dim_over_256"),
    pytest.param(400, 1003, 48, id="several_segments_of_rows_and_vocabulary"),
    pytest.param(385, 769, 33, id="one_past_each_segment"),
    pytest.param(3, 2, 5, id="two_classes"),
    pytest.param(5, 1, 7, id="one_class_has_no_loss"),
    pytest.param(9, 33, 1, id="one_feature"),
    pytest.param(1, 129, 16, id="one_row"),
    pytest.param(0, 33, 8, id="no_rows"),
]

OPTIONS = {
    "plain": {},
    "bias": dict(bias=True),
    "class_weight": dict(class_weight=True),
    "token_weight": dict(token_weight=True),
    "label_smoothing": dict(label_smoothing=0.1),
    "uniform_target": dict(label_smoothing=1.0),
    "z_loss": dict(z_loss=1e-2),
    "softcap": dict(softcap=3.0),
    "scale": dict(scale=0.7),
    "token_scale": dict(token_scale=True),
    "margin": dict(margin=0.35),
    "ignore_index_in_the_vocabulary": dict(ignore_index=5),
    "soft_target": dict(soft=3),
    "soft_target_smoothed": dict(soft=3, label_smoothing=0.1, class_weight=True),
    "everything_hard": dict(
        bias=True, class_weight=True, token_weight=True, token_scale=True, label_smoothing=0.1, z_loss=1e-2,
        softcap=3.0, margin=0.35,
    ),
    "everything_soft": dict(
        bias=True, class_weight=True, token_weight=True, token_scale=True, label_smoothing=0.1, z_loss=1e-2,
        softcap=3.0, soft=4,
    ),
}  # fmt: skip


def ids(values):
    return [str(v).removeprefix("torch.") for v in values]


def each_dtype(*, only=DTYPES):
    return pytest.mark.parametrize("dtype", only, ids=ids(only))


each_shape = pytest.mark.parametrize(("rows", "vocab", "dim"), SHAPES)
each_option = pytest.mark.parametrize("option", OPTIONS)
each_reduction = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])


def wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


MEAN_LOGIT_FLOOR = 2.0**-17  # logits of both signs cancel: the mean's error is that of the largest logit
SURE_FLOOR = 2.0**-8  # entropy of sure rows, log(1 + rest): beside the 1 a float32 sum keeps few bits of the rest
CUT_OFF = 2.0**-30  # of a value for each of its depth: tensor cores cut the bits off that float32's matmul rounds
EXTREME_FLOOR = 2.0**-14  # a few roundings of a float32 logit of 1e4, which its probability has relatively


@dataclass(frozen=True)
class Problem:
    """tensors by argument name (soft_target as soft_indices, soft_weights) and the options that are not tensors."""

    tensors: dict[str, Tensor]
    options: dict = field(default_factory=dict)

    def arguments(self) -> dict:
        given = self.tensors | self.options
        if "soft_indices" in given:
            given["soft_target"] = (given.pop("soft_indices"), given.pop("soft_weights"))
        return given

    def map(self, function: Callable[[Tensor], Tensor]) -> "Problem":
        return replace(self, tensors={name: function(x) for name, x in self.tensors.items()})

    def cast(self, dtype: torch.dtype) -> "Problem":
        return self.map(lambda x: x.to(dtype) if x.is_floating_point() else x)

    def with_(self, **changes) -> "Problem":
        tensors = {k: v for k, v in changes.items() if isinstance(v, Tensor)}
        options = {k: v for k, v in changes.items() if not isinstance(v, Tensor)}
        return Problem(self.tensors | tensors, self.options | options)

    def values(self, head: Callable) -> dict[str, Tensor]:
        with torch.no_grad():
            return outputs(head(**self.arguments()))

    def leaves(self, frozen=()) -> "Problem":
        """Fresh leaves with the values and strides of the tensors; class weights, beside a linear_weight, are none."""
        constant = {"aux", *frozen} | ({"weight"} if "linear_weight" in self.tensors else set())
        return Problem(
            {
                name: x.detach().requires_grad_(x.is_floating_point() and name not in constant)
                for name, x in self.tensors.items()
            },
            self.options,
        )

    def gradients(self, head: Callable, *, frozen=(), upstream: float | None = None) -> dict[str, Tensor]:
        """Outputs, then gradients of sum(upstream x output), upstream random and different for each entry."""
        leaves = self.leaves(frozen)
        results = outputs(head(**leaves.arguments()))
        torch.autograd.backward(
            *zip(
                *((x, upstream_of(x, upstream)) for x in results.values() if x.is_floating_point() and x.requires_grad)
            )
        )
        grads = {f"grad of {name}": x.grad for name, x in leaves.tensors.items() if x.requires_grad}
        return {name: x.detach() for name, x in results.items()} | grads


def outputs(result) -> dict[str, Tensor]:
    if isinstance(result, Tensor):
        return {"loss": result}
    return {name: x for name, x in result._asdict().items() if x is not None}


def upstream_of(x: Tensor, value: float | None = None) -> Tensor:
    if value is not None:
        return torch.full_like(x, value)
    noise = torch.Generator().manual_seed(x.numel())
    return torch.empty(x.shape).uniform_(0.5, 1.5, generator=noise).to(x)


def random_problem(
    rows, vocab, dim, dtype=torch.float32, *, kind="plain", lead=None, device="cpu", ignored=0.2, bias=False,
    class_weight=False, token_weight=False, token_scale=False, soft=0, **options,
) -> Problem:  # fmt: skip
    """kind: plain (logits of deviation 2), flat (0.01), peaked (half the rows sure of their target), extreme (1e4)."""
    deviation = {"plain": 2.0, "peaked": 2.0, "flat": 1e-2, "extreme": 4e3}[kind]
    weight = torch.randn(vocab, dim) * deviation / dim**0.5
    target = torch.randint(vocab, (rows,))
    input = torch.randn(rows, dim)
    if kind == "peaked":
        sure = torch.rand(rows, 1) < 0.5
        input += 15 * sure * weight[target] / weight[target].square().sum(-1, keepdim=True).clamp(min=1)
    target[torch.rand(rows) < ignored] = options.get("ignore_index", -100)
    tensors = {"input": input.to(dtype), "linear_weight": weight.to(dtype)}
    if soft:
        indices = torch.randint(vocab, (rows, soft))
        absent = (torch.rand(rows, soft) < 0.3) | (target == options.get("ignore_index", -100)).unsqueeze(-1)
        tensors["soft_indices"] = indices.masked_fill(absent, options.get("ignore_index", -100))
        tensors["soft_weights"] = torch.rand(rows, soft).to(wide(dtype))
    else:
        tensors["target"] = target
    if bias:
        tensors["linear_bias"] = torch.randn(vocab).to(dtype)
    if class_weight:
        tensors["weight"] = (torch.rand(vocab) + 0.1).to(wide(dtype))
    if token_weight:
        tensors["token_weight"] = (torch.rand(rows) + 0.1).to(wide(dtype))
    if token_scale:
        tensors["scale"] = (torch.rand(rows) + 0.5).to(wide(dtype))
    if lead is not None:
        per_class = {"linear_weight", "linear_bias", "weight"}
        tensors = {k: x if k in per_class else x.reshape((*lead, *x.shape[1:])) for k, x in tensors.items()}
    return Problem(tensors, options).map(lambda x: x.to(device))


def assert_matches(
    problem: Problem,
    head: Callable,
    reference: Callable,
    *,
    grads=True,
    frozen=(),
    upstream=None,
    factor=1.5,
    floor=None,
) -> dict:
    """head's values are as good as torch's in float32 (float64), its gradients as torch's in the same dtype."""
    __tracebackhide__ = True

    def run(p, f):
        return p.gradients(f, frozen=frozen, upstream=upstream) if grads else p.values(f)

    input = problem.tensors["input"]
    dtype = input.dtype
    cut = CUT_OFF * input.shape[-1] if input.is_cuda and dtype.itemsize == 2 else 0.0
    ours, exact = run(problem, head), run(problem.cast(torch.float64), reference)
    same, widened = run(problem, reference), problem.cast(wide(dtype)).values(reference)
    assert ours.keys() <= exact.keys()
    for name, x in ours.items():
        expected = problem.tensors[name.removeprefix("grad of ")].dtype if name.startswith("grad of ") else wide(dtype)
        if not x.is_floating_point():
            assert torch.equal(x, exact[name]), name
            continue
        assert x.dtype == expected, f"{name}: dtype {x.dtype}, expected {expected}"
        least = MEAN_LOGIT_FLOOR if name == "mean_logit" and floor is None and dtype != torch.float64 else floor
        if cut and name in widened:
            least = cut + (rounding_floor(x.dtype) if least is None else least)
        assert_as_good_as_torch(x, exact[name], widened.get(name, same[name]), name=name, floor=least, factor=factor)
    return ours


SMOOTH_STATS = ("lse", "lse_excl", "logits", "mean_logit", "entropy", "lse2", "aux_mean")
ALL_STATS = (*SMOOTH_STATS, "max", "argmax", "min")


def random_stats_problem(rows, vocab, dim, dtype=torch.float32, *, entries=3, lead=None, device="cpu", **options):
    """index has repeated and absent entries."""
    p = random_problem(rows, vocab, dim, dtype, device=device, ignored=0, **options)
    index = torch.randint(vocab, (rows, entries), device=device)
    index[:, 0] = p.tensors.pop("target")
    index[::5, -1] = index[::5, 0]
    index[1::4, -1] = -1
    aux = (torch.rand(vocab, device=device) + 0.1).to(wide(dtype))
    p = p.with_(index=index, aux=aux)
    if lead is None:
        return p
    shared = {"linear_weight", "linear_bias", "aux"}
    return p.with_(**{k: x.reshape((*lead, *x.shape[1:])) for k, x in p.tensors.items() if k not in shared})
