"""pytest-benchmark's files without host names, user names, branches or paths."""

import pytest

from bench.machine import machine_info
from bench.shapes import SHAPES


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--shape", choices=sorted(SHAPES), default="cpu-reference", help="which head to measure")


def pytest_benchmark_generate_machine_info(config: pytest.Config) -> dict:
    return machine_info()


def pytest_benchmark_update_commit_info(config: pytest.Config, commit_info: dict) -> None:
    for key in set(commit_info) - {"id", "time", "dirty"}:
        del commit_info[key]
