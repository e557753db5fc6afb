"""The family `live`: forward and backward over live columns, where the logits are a trained model's."""

import functools
import math

import torch

from bench.gpu import trained
from bench.gpu.families import DRY_HEAD, Clock, Row, by_path, family, paths, timed
from bench.shapes import SHAPES, Shape
from bench.timing import ratio


def live_rows(clock: Clock, shape_name: str, shape: Shape) -> list[Row]:
    """Forward and backward over live columns, exact ones and the matmul beside it, on a trained model's logits."""
    import lossk

    p = trained.make(clock, shape, torch.bfloat16)
    leaves, target = (p.input, p.weight), p.target
    input, weight = p.input.detach(), p.weight.detach()
    logits = torch.empty(shape.n, shape.v, device=clock.device, dtype=torch.bfloat16)

    def gradients(tau: float | None) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(lossk.linear_cross_entropy(*leaves, target, tau=tau), leaves)

    exact = gradients(None)
    runs, facts = {"matmul": lambda: torch.mm(input, weight.T, out=logits)}, {}
    for path in paths(clock):
        for tau in (None, 2.0**-8, 2.0**-12):
            name = f"linear_cross_entropy {'exact' if tau is None else f'tau=2^{math.log2(tau):.0f}'} {path}"
            runs[name] = by_path(path, functools.partial(gradients, tau))
            if tau is None:
                continue
            with lossk.live_report() as reports:
                found = runs[name]()
            share = reports[0].live_share
            errors = [((a - b).norm() / b.norm()).item() for a, b in zip(found, exact, strict=True)]
            facts[name] = {
                "live_share": round(share, 4),
                "input_grad_error": round(errors[0], 5),
                "weight_grad_error": round(errors[1], 5),
                "goal_times_matmul": round(1.15 + 3.3 * share, 4),
            }
    times = clock.interleaved(runs)
    return [
        {
            "name": name,
            "shape": shape_name,
            **timed(milliseconds),
            "times_matmul": round(ratio(milliseconds, times["matmul"]), 4),
            **facts.get(name, {}),
        }
        for name, milliseconds in times.items()
    ]


@family
def live(clock: Clock) -> list[Row]:
    """cuda/head/live: the time of a backward over live columns, the share it visits and what that costs in gradient."""
    shapes = {"dry": DRY_HEAD} if clock.dry else {"reference": SHAPES["reference"]}
    return [row for name, shape in shapes.items() for row in live_rows(clock, name, shape)]
