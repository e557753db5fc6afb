"""torch.library.opcheck of every op: schema, autograd registration, fake kernel, AOT dispatch with dynamic shapes."""

import lossk
import pytest
import torch
from problem import FLOAT32_AND_HALVES, each_dtype

N, V, D, K = 9, 203, 12, 3


def head(dtype, device, requires_grad=False):
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    tensors = dict(
        input=torch.randn(N, D, dtype=dtype), linear_weight=torch.randn(V, D, dtype=dtype),
        linear_bias=torch.randn(V, dtype=wide), scale=torch.rand(N, dtype=wide) + 0.5, index=torch.randint(V, (N, K)),
        aux=torch.randn(V, dtype=wide), active=torch.rand(N) < 0.8,
    )  # fmt: skip
    tensors["index"][2, 1] = -1
    return {
        k: x.to(device).requires_grad_(requires_grad and x.is_floating_point() and k != "aux")
        for k, x in tensors.items()
    }


def with_and_without_options(tensors):
    yield tensors
    yield tensors | dict.fromkeys(["linear_bias", "scale", "aux", "active"])


@each_dtype(only=[torch.float32, torch.bfloat16])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_cce(reduction, dtype, device):
    t = head(dtype, device, requires_grad=True)
    y = t["index"][:, 0].clone()
    y[4] = -100
    options = dict(reduction=reduction, softcap=3.0, label_smoothing=0.1, z_loss=1e-2)
    op = torch.ops.lossk.cce.default
    torch.library.opcheck(op, (t["input"], t["linear_weight"], y))
    torch.library.opcheck(op, (t["input"], t["linear_weight"], y, t["linear_bias"]), options)
    torch.library.opcheck(op, (t["input"].reshape(3, 3, D), t["linear_weight"], y.reshape(3, 3)), dict(shift=1))


@each_dtype(only=[torch.float64, *FLOAT32_AND_HALVES])
@pytest.mark.parametrize("tau", [0.0, 0.1])
@pytest.mark.parametrize("full", [False, True])
def test_linear_stats(full, tau, dtype, device):
    for t in with_and_without_options(head(dtype, device)):
        torch.library.opcheck(torch.ops.lossk.linear_stats.default, (*t.values(), 3.0, 0.2, full, tau, True, 0))


@each_dtype(only=[torch.float64, *FLOAT32_AND_HALVES])
@pytest.mark.parametrize("full", [False, True])
def test_linear_stats_backward(full, dtype, device):
    for t in with_and_without_options(head(dtype, device)):
        stats, logits, *_ = torch.ops.lossk.linear_stats(*t.values(), 3.0, 0.2, True, 0.0, True, 0)
        coefficients = torch.randn(6 if full else 1, N).to(stats), torch.randn(N, K).to(logits)
        args = (*t.values(), 3.0, 0.2, stats[:2], stats[3:5] if full else None, *coefficients, None, None, 0)
        for needs in ([True] * 4, [True, False, False, False], [False, True, False, False]):
            torch.library.opcheck(torch.ops.lossk.linear_stats_backward.default, (*args, needs, True))


@each_dtype(only=[torch.float64, *FLOAT32_AND_HALVES])
@pytest.mark.parametrize("fill", [False, True])
@pytest.mark.parametrize("full", [False, True])
def test_linear_live_backward(full, fill, dtype, device):
    softcap = 0.0 if full else 3.0
    for t in with_and_without_options(head(dtype, device)):
        stats, logits, _, _, sketch, _ = torch.ops.lossk.linear_stats(*t.values(), softcap, 0.2, full, 0.1, fill, 0)
        coefficients = torch.randn(6 if full else 1, N).to(stats), torch.randn(N, K).to(logits)
        for needs in ([True] * 4, [True, False, False, False], [False, True, False, False]):
            torch.library.opcheck(
                torch.ops.lossk.linear_live_backward.default,
                (*t.values(), softcap, 0.2, stats, sketch, *coefficients, 0.1, fill, needs, True),
            )


@each_dtype(only=[torch.float64, *FLOAT32_AND_HALVES])
def test_cce_forward(dtype, device):
    for t in with_and_without_options(head(dtype, device)):
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        coefficients = [torch.rand(shape, dtype=wide, device=device) for shape in ((3, N), (N, K))]
        for needs in ([True] * 4, [False] * 4):
            for loss_coef in (coefficients[0], coefficients[0][:2]):
                arguments = (*t.values(), 3.0, 0.2, loss_coef, coefficients[1], needs)
                torch.library.opcheck(torch.ops.lossk.cce_forward.default, arguments)


def two_heads(dtype, device):
    a, b = (head(dtype, device) for _ in range(2))
    keep = ("input", "linear_weight", "linear_bias", "scale")
    b["input"], b["linear_weight"] = b["input"][:, :7].contiguous(), b["linear_weight"][:, :7].contiguous()
    yield *(a[k] for k in keep), *(b[k] for k in keep), a["active"]
    yield *(a[k] for k in keep[:2]), None, None, *(b[k] for k in keep[:2]), None, None, None


@each_dtype(only=[torch.float64, torch.bfloat16])
@pytest.mark.parametrize("kind", ["forward_kl", "jsd"])
def test_linear_divergence(kind, dtype, device):
    for tensors in two_heads(dtype, device):
        torch.library.opcheck(torch.ops.lossk.linear_divergence.default, (*tensors, 3.0, 0.0, kind, 0.3))


@each_dtype(only=[torch.float64, torch.bfloat16])
@pytest.mark.parametrize("kind", ["jsd", "logit_mse"])
def test_linear_divergence_backward(kind, dtype, device):
    for tensors in two_heads(dtype, device):
        stats = torch.ops.lossk.linear_divergence(*tensors, 3.0, 0.0, kind, 0.3)
        for needs in ([True] * 8, [True, False] * 4, [False] * 5 + [True] * 3):
            torch.library.opcheck(
                torch.ops.lossk.linear_divergence_backward.default,
                (*tensors, 3.0, 0.0, kind, 0.3, stats, torch.randn(N).to(stats), needs, [True, False]),
            )


def pairs(dtype, device):
    t = head(dtype, device)
    offset = torch.randn(2, N).to(t["scale"])
    yield t["input"], t["linear_weight"], t["linear_bias"], t["scale"], offset, t["index"][:, 0].clone(), t["active"]
    yield t["input"], t["linear_weight"], None, None, offset, None, None


@each_dtype(only=[torch.float64, torch.bfloat16])
@pytest.mark.parametrize("kind", ["softplus", "psl_tanh"])
def test_linear_pairwise(kind, dtype, device):
    for tensors in pairs(dtype, device):
        torch.library.opcheck(torch.ops.lossk.linear_pairwise.default, (*tensors, 3.0, kind, 0.7))


@each_dtype(only=[torch.float64, torch.bfloat16])
def test_linear_pairwise_backward(dtype, device):
    for tensors in pairs(dtype, device):
        for needs in ([True] * 4, [True, False, False, False], [False, True, False, False]):
            torch.library.opcheck(
                torch.ops.lossk.linear_pairwise_backward.default,
                (*tensors, 3.0, "softplus", 0.7, torch.randn(N).to(tensors[4]), needs, True),
            )


@each_dtype(only=[torch.float64, torch.bfloat16])
def test_linear_topk(dtype, device):
    for t in with_and_without_options(head(dtype, device)):
        rest = [t[k] for k in ("input", "linear_weight", "linear_bias", "scale", "active")]
        torch.library.opcheck(torch.ops.lossk.linear_topk.default, (*rest, 3.0, 5))


@each_dtype(only=[torch.float64, torch.bfloat16])
def test_linear_sample(dtype, device):
    for t in with_and_without_options(head(dtype, device)):
        rest = [t[k] for k in ("input", "linear_weight", "linear_bias", "scale")]
        torch.library.opcheck(torch.ops.lossk.linear_sample.default, (*rest, 3.0, torch.tensor([7], device=device)))


def elementwise(kind, dtype, device):
    t = head(dtype, device)
    terms = [None, None]
    if kind == "bray_curtis":
        terms = [t["scale"] + 20, t["linear_bias"].abs()]
    target = t["index"][:, 0].clone()
    for active in (t["active"], None):
        yield t["input"], t["linear_weight"], target, active, *terms, kind, 0.7, 1.5, 1e-4


@each_dtype(only=[torch.float64, torch.bfloat16])
@pytest.mark.parametrize("kind", ["bray_curtis", "chebyshev", "minkowski"])
def test_elementwise_stats(kind, dtype, device):
    for arguments in elementwise(kind, dtype, device):
        torch.library.opcheck(torch.ops.lossk.elementwise_stats.default, arguments)


@each_dtype(only=[torch.float64, torch.bfloat16])
@pytest.mark.parametrize("kind", ["bray_curtis", "chebyshev", "minkowski"])
def test_elementwise_backward(kind, dtype, device):
    for arguments in elementwise(kind, dtype, device):
        stats = torch.ops.lossk.elementwise_stats(*arguments)
        for needs in ([True] * 4, [True, False, False, False], [False, True, False, True]):
            torch.library.opcheck(
                torch.ops.lossk.elementwise_backward.default,
                (*arguments, stats, torch.randn(2, N).to(stats), needs, True),
            )


PROBES = {"cuda_build_info", "gpu_arch"}


def harmonic(dtype, device, kind, requires_grad=False):
    t = head(dtype, device, requires_grad)
    wide = t["aux"].dtype
    rows = torch.rand(4, N, dtype=wide, device=device) + 0.5
    rows[1] += 40  # so that no distance is below 0
    return t["input"], t["linear_weight"], rows, t["aux"].abs(), t["index"][:, :1], t["active"], kind, 3.0


each_kind = pytest.mark.parametrize("kind", ["euclidean", "hamming", "cosine"])


@each_dtype(only=[torch.float64, *FLOAT32_AND_HALVES])
@each_kind
def test_harmonic_stats(kind, dtype, device):
    for full, tau in ((False, 0.0), (True, 0.0), (False, 0.1)):
        arguments = harmonic(dtype, device, kind, requires_grad=True)
        arguments = [a.detach() if k in (2, 3) else a for k, a in enumerate(arguments)]
        torch.library.opcheck(torch.ops.lossk.harmonic_stats.default, (*arguments, full, tau, True))


@each_dtype(only=[torch.float64, *FLOAT32_AND_HALVES])
@each_kind
def test_harmonic_backward(kind, dtype, device):
    arguments = harmonic(dtype, device, kind)
    stats, _ = torch.ops.lossk.harmonic_stats(*arguments, False, 0.0, True)
    coefs = torch.rand(1, N).to(stats), torch.rand(N, 1).to(stats)
    for needs in ([True, True], [True, False], [False, True]):
        torch.library.opcheck(torch.ops.lossk.harmonic_backward.default, (*arguments, stats[:2], *coefs, needs, True))


@each_dtype(only=[torch.float64, *FLOAT32_AND_HALVES])
@each_kind
def test_harmonic_live_backward(kind, dtype, device):
    arguments = harmonic(dtype, device, kind)
    stats, sketch = torch.ops.lossk.harmonic_stats(*arguments, False, 0.1, True)
    coefs = torch.rand(1, N).to(stats), torch.rand(N, 1).to(stats)
    for needs in ([True, True], [True, False], [False, True]):
        torch.library.opcheck(
            torch.ops.lossk.harmonic_live_backward.default,
            (*arguments, stats, sketch, *coefs, 0.1, True, needs, False),
        )


@each_dtype(only=[torch.float64, *FLOAT32_AND_HALVES])
@each_kind
def test_harmonic_forward(kind, dtype, device):
    arguments = harmonic(dtype, device, kind, requires_grad=True)
    arguments = [a.detach() if k in (2, 3) else a for k, a in enumerate(arguments)]
    for rows in (2, 3):
        coefs = torch.rand(rows, N).to(arguments[2]), torch.rand(N, 1).to(arguments[2])
        torch.library.opcheck(torch.ops.lossk.harmonic_forward.default, (*arguments, *coefs, [True, True]))


def test_every_op_is_checked_here():
    names = {
        name.split("::")[1].split(".")[0] for name in torch._C._dispatch_get_all_op_names() if name[:7] == "lossk::"
    }
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert lossk and names <= tested | PROBES, f"without a test: {sorted(names - tested - PROBES)}"
