"""Stage `measure`: gradient error and time of lossk's live columns and of CCE's tile rule on the batches of `train`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lossk
from rich.progress import track
from torch import Tensor

from bench import timing

from . import lm, rules
from .rules import Gradients

TAUS = (2.0**-8, 2.0**-10, 2.0**-12, 2.0**-14)
METHODS: list[dict[str, Any]] = [{"tau": None}, *({"tau": tau, "fill": fill} for fill in (True, False) for tau in TAUS)]
CCE_EPS = 2.0**-12  # what CCE takes for bfloat16
NEGLIGIBLE_ROW = 1e-3  # of the largest row's norm


def measure(cache: Path, rounds: int) -> dict[str, Any]:
    batches = {name: study(batch, rounds) for name, batch in track(lm.load(cache).items(), "measuring")}
    return {"rounds": rounds, "dtype": "float32", "negligible_row": NEGLIGIBLE_ROW, "batches": batches}


def study(batch: lm.Batch, rounds: int) -> dict[str, Any]:
    h, w, y = batch.hidden.double(), batch.weight.double(), batch.target
    residual, loss = rules.residual(h, w, y)
    exact = rules.exact(h, w, residual)
    runs = [kernels(batch, options) for options in METHODS]
    entries = []
    for options, run in zip(METHODS, runs):
        with lossk.live_report() as reports:
            found = run()
        entry = {"method": "exact", "live_share": 1.0, "dropped_mass": 0.0} | errors(found, exact)
        if options["tau"] is not None:
            rule = rules.filtered(h, w, residual, rules.live_columns(residual, y, options["tau"]), options["fill"])
            entry |= {
                "method": "fill" if options["fill"] else "drop",
                "tau": options["tau"],
                "live_share": reports[0].live_share,
                "dropped_mass": reports[0].dropped_mass.mean().item(),
                "dlogits_error_predicted": reports[0].dlogits_error,
                "dlogits_error": rule.dlogits_error,
                "float64": errors(rule, exact),
            }
        entries.append(entry)

    live = rules.live_tiles(h, w, residual, CCE_EPS)
    cce = rules.filtered(h, w, residual, live)
    facts = {"live_share": live.double().mean().item(), "dropped_mass": cce.dropped, "dlogits_error": cce.dlogits_error}
    entries.append({"method": "cce", "eps": CCE_EPS} | facts | errors(cce, exact))

    yardstick = lambda: batch.hidden @ batch.weight.T  # noqa: E731
    seconds = timing.interleave({"matmul": yardstick} | {str(i): run for i, run in enumerate(runs)}, rounds)
    for entry, own in zip(entries, list(seconds.values())[1:]):
        entry["matmul_times"] = timing.ratio(own, seconds["matmul"])
    return {
        "about": batch.about,
        "loss": loss.item(),
        "rows": len(h),
        "dim": h.shape[1],
        "vocab": len(w),
        "matmul_ms": 1e3 * sorted(seconds["matmul"])[rounds // 2],
        "methods": entries,
    }


def kernels(batch: lm.Batch, options: dict[str, Any]) -> Callable[[], Gradients]:
    """Forward and backward of lossk on float32 leaves."""
    h, w = batch.hidden.clone().requires_grad_(), batch.weight.clone().requires_grad_()

    def run() -> Gradients:
        h.grad = w.grad = None
        lossk.linear_cross_entropy(h, w, batch.target, **options).backward()
        return Gradients(h.grad, w.grad)

    return run


def errors(found: Gradients, exact: Gradients) -> dict[str, Any]:
    """Of both gradients, and the share of vocabulary rows which get none at all."""
    return {
        "dE": row_errors(found.hidden, exact.hidden),
        "dC": row_errors(found.weight, exact.weight),
        "zero_rows": (found.weight == 0).all(1).double().mean().item(),
    }


def row_errors(found: Tensor, exact: Tensor) -> dict[str, float]:
    """In norm, relative: of the whole, and of the worst among the rows that are not negligible; its lowest cosine."""
    found, size = found.double(), exact.norm(dim=1)
    error = (found - exact).norm(dim=1)
    cosine = ((found * exact).sum(1) / found.norm(dim=1) / size).nan_to_num(0.0)  # of a row without gradient: 0
    counted = size > NEGLIGIBLE_ROW * size.max()
    return {
        "error": (error.norm() / size.norm()).item(),
        "worst_row": (error / size)[counted].max().item(),
        "worst_cosine": cosine[counted].min().item(),
        "counted_rows": counted.double().mean().item(),
    }
