"""`lossk doctor`: what was built, what runs here, and whether it computes the right numbers."""

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
import torch.nn.functional as F
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from .. import __version__, build_info, linear_cross_entropy
from .machine import cpu_count, cpu_name

OPTIONAL = {
    "demo": ("typer", "rich", "tokenizers", "matplotlib"),
    "tests and bench": ("numpy", "pytest", "hypothesis", "pytest-benchmark"),
}
# Norm-relative errors a correct build stays well below: rounding of sums in fp32, of gradients stored in bf16.
LIMIT = {torch.float32: 1e-5, torch.bfloat16: 1e-2}


def doctor() -> None:
    """Show what was built and what runs here; exit with 1 where lossk computes wrong numbers."""
    console = Console()
    built = build_info()
    facts = Table(show_header=False, box=None, pad_edge=False)
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column()
    for name, value in (*_built(built), *_here(), *_packages()):
        facts.add_row(name, value)
    console.print(facts)
    console.print()

    devices = ["cpu"]  # the head has no CUDA kernels yet
    wrong = 0
    for device in devices:
        for dtype in LIMIT:
            name = f"{device} {str(dtype).removeprefix('torch.')}"
            try:
                error = self_check(torch.device(device), dtype)
            except Exception as failure:  # the report goes on whatever a broken build raises
                wrong += 1
                console.print(f"check {name}: failed: {type(failure).__name__}: {failure}", markup=False)
                continue
            good = error <= LIMIT[dtype]
            wrong += not good
            console.print(
                f"check {name}: error {error:.1e} of float64, limit {LIMIT[dtype]:.0e}: {'good' if good else 'WRONG'}"
            )
    console.print(verdict(wrong, built, devices))
    raise typer.Exit(1 if wrong else 0)


def self_check(device: torch.device, dtype: torch.dtype) -> float:
    """Largest norm-relative error of loss, dh and dw against float64, on a small ragged case with an ignored row."""
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(37, 72, generator=generator).to(device, dtype)
    w = torch.randn(1003, 72, generator=generator).div(4).to(device, dtype)
    y = torch.randint(1003, (37,), generator=generator).to(device)
    y[5] = -100

    def outcome(head: Any, *inputs: Tensor) -> list[Tensor]:
        leaves = [t.detach().requires_grad_() for t in inputs]
        loss = head(*leaves)
        return [loss.detach(), *torch.autograd.grad(loss, leaves)]

    got = outcome(lambda h, w: linear_cross_entropy(h, w, y), h, w)
    expected = outcome(lambda h, w: F.cross_entropy(F.linear(h, w), y), h.double(), w.double())
    # nan compares as larger than nothing: make it an error that no limit admits
    return max(((g.double() - e).norm() / e.norm()).nan_to_num(float("inf")).item() for g, e in zip(got, expected))


def verdict(wrong: int, built: dict[str, Any], devices: list[str]) -> str:
    if wrong:
        return f"lossk is BROKEN here: {wrong} of {len(devices) * len(LIMIT)} checks failed"
    if torch.cuda.is_available() and not built.get("cuda"):
        return "lossk works on the CPU; CUDA is here, but lossk was built without it: build again where nvcc is"
    return f"lossk works here on {' and '.join(devices)}"


def _built(built: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "lossk", str(built.get("version", __version__))
    yield "built against torch", str(built.get("torch", "unknown"))
    yield "CPU kernels", _words(built.get("cpu")) or "unknown"
    yield "CUDA kernels", _words(built.get("cuda")) or "not built"
    for key, value in built.items():
        if key not in {"version", "torch", "cpu", "cuda"}:
            yield key, _words(value)


def _here() -> Iterator[tuple[str, str]]:
    yield "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield "torch", str(torch.__version__)
    yield "CPU", cpu_name()
    yield "threads", f"{torch.get_num_threads()} of {cpu_count()} CPUs"
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            major, minor = torch.cuda.get_device_capability(index)
            yield f"CUDA device {index}", f"{torch.cuda.get_device_name(index)}, sm_{major}{minor}, {_ran_on(index)}"
    else:
        yield "CUDA device", "none" if torch.version.cuda else "none (this torch is built without CUDA)"


def _ran_on(index: int) -> str:
    """Which of the compiled architectures the device ran, by a kernel that only says so."""
    try:
        arch = torch.ops.lossk.gpu_arch(torch.empty(0, device=f"cuda:{index}")).item()
    except RuntimeError as failure:
        return f"runs nothing of lossk: {str(failure).splitlines()[0]}"
    return f"runs lossk's code for sm_{arch // 10}"


def _packages() -> Iterator[tuple[str, str]]:
    for extra, names in OPTIONAL.items():
        yield f"for {extra}", ", ".join(f"{name} {_version(name)}" for name in names)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def _words(value: Any) -> str:
    """A value of build_info as text: dictionaries and lists of whatever, or nothing."""
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_words(each)}" for key, each in value.items() if _words(each))
    if isinstance(value, (list, tuple, set)):
        return " ".join(_words(each) for each in value)
    return "" if value is None else str(value)
