"""The kernel sets that this machine would not choose: LOSSK_CPU lowers the choice, read once per process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECK = """
import elementwise, lossk, torch
from lossk import reference
from lossk.divergence import KINDS
from problem import DTYPES, assert_matches, random_problem
from test_divergence import everything

assert lossk.build_info()["cpu"]["float32"] == "NAME", lossk.build_info()
torch.manual_seed(0)
for dtype in DTYPES:
    every = dict(margin=0.3, bias=True, token_scale=True)
    for options in (dict(), dict(softcap=3.0, label_smoothing=0.1, **every), dict(tau=2.0**-30, softcap=3.0, **every)):
        for reduction in ("mean", "none"):
            p = random_problem(37, 1003, 45, dtype, reduction=reduction, **options)
            assert_matches(p, lossk.linear_cross_entropy, reference.linear_cross_entropy)
    for kind in KINDS:
        p = everything(37, 1003, 45, dtype, kind=kind)
        assert_matches(p, lossk.linear_divergence, reference.linear_divergence, floor=2.0**-8)
    for case in elementwise.CASES:
        elementwise.check(elementwise.problem_of(case, 37, 403, 45, dtype, masked=True, smoothing=0.1))
    x, w = torch.randint(-2, 3, (9, 40)).to(dtype), torch.randint(-2, 3, (1003, 40)).to(dtype)
    assert torch.equal(lossk.linear_topk(x, w, 3).values.double(), (x.double() @ w.double().T).topk(3).values)
"""


def run(cpu: str, code: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"LOSSK_CPU": cpu, "PYTHONPATH": str(Path(__file__).parent)}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def runnable() -> list[str]:
    """Every set up to the best one here, which the refusal of an unknown name tells."""
    names = ["portable", "avx2", "avx512", "avx512bf16", "amxbf16"]
    best = run("nothing", "import lossk").stderr.split("at most ")[1].split(",")[0]
    return names[: names.index(best) + 1]


def test_lower_kernel_sets_are_as_good(runnable):
    for cpu in runnable:
        of_float32 = "avx512" if cpu in ("avx512bf16", "amxbf16") else cpu
        done = run(cpu, CHECK.replace("NAME", of_float32))
        assert done.returncode == 0, f"{cpu}: {done.stderr[-2000:]}"


def test_an_unknown_set_is_refused():
    done = run("sse9", "import lossk")
    assert done.returncode != 0
    assert "LOSSK_CPU must be portable, avx2, avx512, avx512bf16 or amxbf16" in done.stderr
    assert "got sse9" in done.stderr
