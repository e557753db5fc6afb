"""No logits: the whole process stays far below the size of the matrix that is never written."""

import subprocess
import sys

import pytest

SCRIPT = """
import re, torch, lossk
from pathlib import Path

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024

def step(rows, vocab, dim=16, dtype=torch.float32):
    x = torch.randn(rows, dim, dtype=dtype, requires_grad=True)
    w = torch.randn(vocab, dim, dtype=dtype, requires_grad=True)
    {call}

step(512, 1024)
before = peak()
step(4096, 16384)
print(peak() - before)
"""


def harmonic(options=""):
    return f"lossk.harmonic.harmonic_loss(x, w, torch.arange(rows), {options}).backward()"


CALLS = {
    "mean": "lossk.linear_cross_entropy(x, w, torch.arange(rows)).backward()",
    "none": 'lossk.linear_cross_entropy(x, w, torch.arange(rows), reduction="none").sum().backward()',
    "smoothed": "lossk.linear_cross_entropy(x, w, torch.arange(rows), label_smoothing=0.1, softcap=5.0).backward()",
    "live": "lossk.linear_cross_entropy(x, w, torch.arange(rows), tau=2.0**-8).backward()",
    "live everywhere": "lossk.linear_cross_entropy(x, w, torch.arange(rows), tau=2.0**-30).backward()",
    "jsd": 'lossk.linear_divergence(x, w, x, w, kind="jsd", train_teacher=True).backward()',
    "forward_kl": "lossk.linear_divergence(x, w, x.detach(), w.detach()).backward()",
    "pairwise": 'lossk.linear_pairwise(x, w, torch.arange(rows), kind="mw").backward()',
    "topk": "lossk.linear_topk(x, w, 128), lossk.linear_sample(x, w), lossk.linear_rank(x, w, torch.arange(rows))",
    "euclidean": harmonic(),
    "cosine": harmonic('distance="cosine", reduction="sum", floor=0.01'),
    "euclidean live": harmonic("tau=2.0**-8"),
    "manhattan": harmonic('distance="manhattan"'),
    "canberra": harmonic('distance="canberra"'),
    "logp": "sum(y.sum() for y in lossk.linear_logp(x, w, torch.arange(rows))).backward()",
}


@pytest.mark.parametrize("call", CALLS)
def test_peak_memory_is_a_fraction_of_the_logits(call):
    run = subprocess.run([sys.executable, "-c", SCRIPT.format(call=CALLS[call])], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    logits = 4096 * 16384 * 4 / 2**20
    assert float(run.stdout) < logits / 4, f"{run.stdout} MiB, the logits would be {logits} MiB"
