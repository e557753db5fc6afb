"""What was built: it says what it is, is stable ABI, and carries nothing of the machine that built it."""

import subprocess
import sys
from pathlib import Path

import lossk
import pytest
import torch
from torch_abi_audit.cli import main as torch_abi_audit

REPOSITORY = Path(__file__).resolve().parents[1]
LIBRARIES = [path for path in Path(lossk._C.__file__).parent.glob("*.so") if path.name.startswith(("_C", "_cuda"))]


def test_build_info():
    info = lossk.build_info()
    assert info.keys() >= {"version", "torch", "cpu", "cuda"}
    assert info["version"] == lossk.__version__
    assert info["torch"].split(".")[0] == torch.__version__.split(".")[0]


def test_import_is_quiet():
    script = "import lossk; lossk.linear_cross_entropy"
    run = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda path: path.name.split(".")[0])
def test_libraries_are_stable_abi(library, capsys):
    status = torch_abi_audit(["--check", "torch", "--verbose", str(library)])
    report = capsys.readouterr().out
    assert status == 0, report
    assert "STABLE" in report and "UNSTABLE" not in report and "2.10.0" in report, report


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda path: path.name.split(".")[0])
def test_libraries_do_not_name_the_folder_they_were_built_in(library):
    content = library.read_bytes()
    for folder in (REPOSITORY, Path.home()):
        assert len(folder.parts) < 2 or bytes(folder) + b"/" not in content


def test_there_is_a_library():
    assert any(path.name.startswith("_C") for path in LIBRARIES)
