"""Calls of the ops of elementwise distances, and the same in plain torch."""

from typing import NamedTuple

import pytest
import torch
from lossk.reference import elementwise
from problem import Problem, assert_matches, wide
from tolerance import relative_error

CASES = {
    **{kind: (kind, 1.0) for kind in ("manhattan", "bray_curtis", "chebyshev")},
    "bray_curtis_standard": ("bray_curtis_standard", 1e-2),
    "smooth_chebyshev": ("smooth_chebyshev", 10.0),
    **{f"minkowski_{p}": ("minkowski", p) for p in (0.5, 1.0, 1.5, 2.0, 2.7, 3.0, 4.0)},
    "canberra": ("canberra", 1e-3),
    "canberra_robust": ("canberra_robust", 0.5),
    **{f"canberra_weighted_{p}": ("canberra_weighted", p) for p in (0.5, 2.0)},
}
each_case = pytest.mark.parametrize("case", CASES)


class Loss(NamedTuple):
    loss: torch.Tensor
    distance: torch.Tensor  # of the target


def smoothed(lse, total, vocab, smoothing):
    return lse - smoothing / vocab * total


def ours(
    input, linear_weight, target, *, kind, p, power, eps=1e-4, smoothing=0.0, active=None, row_term=None,
    column_term=None,
):  # fmt: skip
    lse, total, distance, _ = torch.ops.lossk.elementwise_stats(
        input, linear_weight, target, active, row_term, column_term, kind, p, power, eps
    )
    return Loss(smoothed(lse, total, linear_weight.shape[0], smoothing), distance.detach())


def right(
    input, linear_weight, target, *, kind, p, power, eps=1e-4, smoothing=0.0, active=None, row_term=None,
    column_term=None,
):  # fmt: skip
    z = elementwise.logits(input, linear_weight, target, kind, p, power, eps, row_term, column_term)
    d = elementwise.distance(input, linear_weight, kind, p, row_term, column_term).gather(-1, target[:, None])[:, 0]
    loss = smoothed(z.logsumexp(-1), z.sum(-1), len(linear_weight), smoothing)
    acc = wide(input.dtype)
    keep = torch.ones_like(target, dtype=torch.bool) if active is None else active
    return Loss(loss.to(acc).where(keep, 0), d.detach().to(acc).where(keep, 0))


def problem_of(case, rows, vocab, dim, dtype=torch.float32, *, device="cpu", masked=False, power=2.5, **options):
    kind, p = CASES[case]
    t = {
        "input": torch.randn(rows, dim).to(dtype),
        "linear_weight": torch.randn(vocab, dim).to(dtype),
        "target": torch.randint(vocab, (rows,)),
    }
    if kind.startswith("bray_curtis"):
        size = (lambda x: x.double().abs().sum(-1) + 0.01) if kind == "bray_curtis" else lambda x: x.double().sum(-1)
        t |= {"row_term": size(t["input"]).to(wide(dtype)), "column_term": size(t["linear_weight"]).to(wide(dtype))}
    if masked:
        t["active"] = torch.rand(rows) < 0.7
    return Problem(t, dict(kind=kind, p=p, power=power) | options).map(lambda x: x.to(device))


def check(problem, **how):
    """The floor is a few roundings of a float32 sum of both signs: z is multiplied by the exponent."""
    how.setdefault("floor", None if problem.tensors["input"].dtype == torch.float64 else 2.0**-17)
    if problem.tensors["input"].dtype in (torch.bfloat16, torch.float16):
        how["floor"] = torch.finfo(problem.tensors["input"].dtype).eps
    return assert_matches(problem, ours, right, **how)


def errors(problem):
    """Relative, of value and gradients against float64 of the same numbers; all finite."""
    got, exact = problem.gradients(ours), problem.cast(torch.float64).gradients(right)
    assert all(x.isfinite().all() for x in got.values())
    return {name: relative_error(x.double(), exact[name]) for name, x in got.items()}
