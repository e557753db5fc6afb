"""The device fixture, and one seed per test: drawn from its name, printed when it fails, overridden by --seed."""

import os
import zlib

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: spinning threads cost 100x on a busy machine

import pytest
import torch

torch.set_printoptions(precision=9)


def pytest_addoption(parser):
    parser.addoption("--seed", type=int, default=None, help="seed of every test instead of the one from its name")
    parser.addoption("--device", choices=("cpu", "cuda", "all"), default="all", help="all: cuda only where it is there")


def pytest_generate_tests(metafunc):
    if "device" in metafunc.fixturenames:
        import lossk

        given = metafunc.config.getoption("--device")
        cuda = torch.cuda.is_available() and lossk.build_info()["cuda"]
        metafunc.parametrize("device", [given] if given != "all" else ["cpu", "cuda"] if cuda else ["cpu"])


@pytest.fixture(autouse=True)
def seed(request):
    given = request.config.getoption("--seed")
    value = zlib.crc32(request.node.nodeid.encode()) if given is None else given
    torch.manual_seed(value)
    request.node.user_properties.append(("seed", value))
    return value


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    if report.failed:
        seed = dict(item.user_properties).get("seed")
        report.sections.append(("seed", f"--seed={seed}"))
    return report
