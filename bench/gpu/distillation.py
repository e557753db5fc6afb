"""The family `distillation`: divergences of two heads and log-probabilities with entropy, beside cross-entropy."""

from collections.abc import Callable

import torch
from torch import Tensor

from bench.gpu.cross_entropy import why
from bench.gpu.families import DRY_HEAD, Clock, Row, by_path, family, paths, timed
from bench.shapes import SHAPES
from bench.timing import ratio

# Products of the size of the logits that forward and backward take.
PRODUCTS = {"forward_kl": 6, "reverse_kl": 6, "jsd": 8}


def liger_jsd() -> Callable | None:
    """A peer that writes [N, V] floats of losses, where it is installed."""
    try:
        from liger_kernel.ops.fused_linear_jsd import LigerFusedLinearJSDFunction
    except ImportError:
        return None
    return LigerFusedLinearJSDFunction.apply


def torch_logp(input: Tensor, weight: Tensor, target: Tensor, rows: int = 2048) -> tuple[Tensor, Tensor]:
    """Gradients of log-probabilities with an entropy bonus, as training code has them in torch: in chunks of rows."""
    dx, dw = [], torch.zeros_like(weight, dtype=torch.float32)
    for x, y in zip(input.detach().split(rows), target.split(rows), strict=True):
        leaves = x.requires_grad_(), weight.detach().requires_grad_()
        logp = (leaves[0] @ leaves[1].T).float().log_softmax(-1)
        entropy = -(logp.exp() * logp).sum(-1)
        loss = (logp.gather(1, y[:, None])[:, 0] + 1e-3 * entropy).sum()
        found = torch.autograd.grad(loss, leaves)
        dx.append(found[0])
        dw += found[1]
    return torch.cat(dx), dw.to(weight.dtype)


@family
def distillation(clock: Clock) -> list[Row]:
    """linear_divergence and linear_logp, forward and backward, in matmul times, beside torch's and Liger's."""
    import lossk

    name, shape = ("dry", DRY_HEAD) if clock.dry else ("qwen3.5-35b-a3b", SHAPES["qwen3.5-35b-a3b"])
    n, d, v, _ = shape
    draw = lambda rows: torch.randn(rows, d, device=clock.device).mul(d**-0.25).bfloat16()  # noqa: E731
    input, weight, taught, teacher = draw(n), draw(v), draw(n), draw(v)
    target, leaves = torch.randint(v, (n,), device=clock.device), (input.requires_grad_(), weight.requires_grad_())
    logits = torch.empty(n, v, device=clock.device, dtype=torch.bfloat16)

    def divergence(kind: str) -> object:
        return torch.autograd.grad(lossk.linear_divergence(*leaves, taught, teacher, kind=kind), leaves)

    def log_probabilities() -> object:
        logp, entropy, _ = lossk.linear_logp(*leaves, target)
        return torch.autograd.grad((logp + 1e-3 * entropy).sum(), leaves)

    def cross_entropy() -> object:
        return torch.autograd.grad(lossk.linear_cross_entropy(*leaves, target, reduction="none").sum(), leaves)

    runs = {"matmul": lambda: torch.mm(input.detach(), weight.detach().T, out=logits)}
    for path in paths(clock):
        for kind in PRODUCTS:
            runs[f"{kind} {path}"] = by_path(path, lambda kind=kind: divergence(kind))
        runs[f"linear_logp, entropy {path}"] = by_path(path, log_probabilities)
        runs[f"linear_cross_entropy none {path}"] = by_path(path, cross_entropy)
    failed = []
    if (peer := liger_jsd()) and not clock.dry:
        liger = lambda: torch.autograd.grad(peer(input, weight, taught, teacher), leaves)  # noqa: E731
        try:
            liger()
            runs["liger jsd"] = liger
        except Exception as error:
            failed.append({"name": "liger jsd", "shape": name, "failed": why(error)})
    runs["torch logp, entropy in chunks"] = lambda: torch_logp(input, weight, target)
    for ours, theirs in zip(log_probabilities(), torch_logp(input, weight, target), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.1, atol=0.02 * theirs.abs().max().item())
    times = clock.interleaved(runs)
    rows = []
    for run, milliseconds in times.items():
        row = {"name": run, "shape": name, **timed(milliseconds)}
        row["times_matmul"] = round(ratio(milliseconds, times["matmul"]), 4)
        if products := PRODUCTS.get(run.split()[0]):
            row["goal_times_matmul"] = round(1.1 * products, 2)
        rows.append(row)
    return rows + failed
