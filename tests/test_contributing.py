"""CONTRIBUTING's page on kernels, true to the letter: its files, in a copy of the project, with its commands."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text().split("## Write a kernel", 1)[1].split("\n## ", 1)[0]
FILES = re.findall(r"```cpp\n// (\S+)\n(.*?)```", PAGE, re.S)
COMMANDS = re.findall(r"```sh\n(.*?)```", PAGE, re.S)


def test_the_page_has_files_and_commands():
    assert [name for name, _ in FILES] == [
        "cuda/head/turn/params.h",
        "cuda/head/turn/turn.cuh",
        "cuda/head/turn/turn.cu",
        "tests/device/kernels/turn.cu",
    ]
    assert len(COMMANDS) == 1


@pytest.mark.slow
def test_a_kernel_written_by_the_page_runs(tmp_path):
    others = shutil.ignore_patterns("head", "probe", "kernels", "conformance", "faults")  # minutes to compile
    for folder in ("cuda", "cpp", "tests/device"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=others)
    (tmp_path / "tests/device/library.cpp").write_text("")
    for name in ("Makefile", "pyproject.toml", "CMakeLists.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    for name, content in FILES:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"// {name}\n{content}")

    def run(command):
        return subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True)

    make, *programs = COMMANDS[0].splitlines()
    built = run(make)
    assert built.returncode == 0, built.stdout[-2000:] + built.stderr[-2000:]
    for program in programs:
        ran = run(program)
        assert ran.returncode == 0 and "1 passed, 0 failed" in ran.stdout, ran.stdout

    kernel = tmp_path / "cuda/head/turn/turn.cuh"
    kernel.write_text(kernel.read_text().replace("device::sync_block();", ""))
    assert run(make).returncode == 0
    ran = run(programs[1])
    assert ran.returncode != 0
    assert re.search(r"a load at cuda/head/turn/turn\.cuh:\d+, .* reads (what an|shared)", ran.stdout)
