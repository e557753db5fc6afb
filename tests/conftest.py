"""The device fixture, and one seed per test: drawn from its name, printed when it fails, overridden by --seed."""

import ctypes
import gc
import os
import sys
import zlib

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: spinning threads cost 100x on a busy machine

import pytest
import torch

torch.set_printoptions(precision=9)
if sys.platform == "linux":  # pages that go back to the system with each large tensor cost more than the tests
    M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
    mallopt = getattr(ctypes.CDLL(None), "mallopt", lambda *_: None)  # glibc's
    mallopt(M_TRIM_THRESHOLD, 1 << 30)
    mallopt(M_MMAP_THRESHOLD, 32 << 20)  # the most it takes


def pytest_addoption(parser):
    parser.addoption("--seed", type=int, default=None, help="seed of every test instead of the one from its name")
    parser.addoption(
        "--device",
        choices=("cpu", "cuda", "emulator", "all"),
        default="all",
        help="all: cuda only where it is there; emulator: the CUDA kernels on a CPU's tensors",
    )


def pytest_configure(config):
    if config.getoption("--device") == "emulator":
        import emulated

        emulated.replace_cpu_kernels()
        # What a kernel leaves unwritten is nan: torch then fills new memory.
        torch.use_deterministic_algorithms(True, warn_only=True)


def on_gpu_kernels(item) -> bool:
    callspec = getattr(item, "callspec", None)
    if callspec is None or "device" not in callspec.params:
        return False
    return callspec.params["device"] == "cuda" or item.config.getoption("--device") == "emulator"


def pytest_collection_modifyitems(config, items):
    """float64 is for CPUs, some things for GPUs alone; what has no device is not for these, nor for the emulator."""
    keep, drop = [], []
    for item in items:
        gpu = on_gpu_kernels(item)
        only_cpu = item.get_closest_marker("float64")
        only_cpu = gpu and (only_cpu or item.callspec.params.get("dtype") == torch.float64)
        elsewhere = not gpu and config.getoption("--device") in ("emulator", "cuda")
        elsewhere |= bool(item.get_closest_marker("large")) and config.getoption("--device") == "emulator"
        if item.get_closest_marker("cuda"):
            elsewhere = item.callspec.params["device"] != "cuda"
        (drop if only_cpu or elsewhere else keep).append(item)
    if drop:
        config.hook.pytest_deselected(items=drop)
        items[:] = keep


def pytest_collection_finish(session):
    gc.collect()
    gc.freeze()  # thousands of tests and torch's modules, or each of Python's collections visits them all


def pytest_generate_tests(metafunc):
    if "device" in metafunc.fixturenames:
        import lossk

        given = metafunc.config.getoption("--device").replace("emulator", "cpu")
        cuda = torch.cuda.is_available() and lossk.build_info()["cuda"]
        metafunc.parametrize("device", [given] if given != "all" else ["cpu", "cuda"] if cuda else ["cpu"])


@pytest.fixture
def gpu_kernels(request, device) -> bool:
    return on_gpu_kernels(request.node)


@pytest.fixture(autouse=True)
def seed(request):
    given = request.config.getoption("--seed")
    value = zlib.crc32(request.node.nodeid.encode()) if given is None else given
    torch.manual_seed(value)
    request.node.user_properties.append(("seed", value))
    return value


def end_if_lost(item):
    """After an illegal access every call fails until the process ends: xdist begins another for the tests left."""
    if not torch.cuda.is_available() or "PYTEST_XDIST_WORKER" not in os.environ:
        return
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        print(f"{item.nodeid}: the GPU's context is lost with it", file=sys.stderr, flush=True)
        os._exit(1)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    if report.failed and on_gpu_kernels(item):
        end_if_lost(item)
    if report.failed:
        seed = dict(item.user_properties).get("seed")
        report.sections.append(("seed", f"--seed={seed}"))
    return report
