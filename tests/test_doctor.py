"""`lossk doctor`: its report, its self-check and its exit code."""

import pytest
import torch
import torch.nn.functional as F
from lossk.cli import app, doctor
from typer.testing import CliRunner


def report():
    result = CliRunner().invoke(app.app, ["doctor"])
    return result.exit_code, " ".join(result.output.split())


def test_says_what_is_here_and_that_it_works():
    code, output = report()
    assert code == 0, output
    for fact in (torch.__version__, f"threads {torch.get_num_threads()} of", "typer ", "pytest ", "CPU kernels"):
        assert fact in output
    assert "cpu float32: error" in output and "cpu bfloat16: error" in output
    assert "lossk works" in output


def test_self_check_admits_exact_and_refuses_wrong_gradients(monkeypatch):
    def twice_the_gradient(h, w, y):
        loss = F.cross_entropy(F.linear(h, w), y)
        return 2 * loss - loss.detach()

    for head, good in ((lambda h, w, y: F.cross_entropy(F.linear(h, w), y), True), (twice_the_gradient, False)):
        monkeypatch.setattr(doctor, "linear_cross_entropy", head)
        error = doctor.self_check(torch.device("cpu"), torch.float32)
        assert (error <= doctor.LIMIT[torch.float32]) == good


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_wrong_numbers_are_an_exit_code(monkeypatch, value):
    monkeypatch.setattr(doctor, "linear_cross_entropy", lambda h, w, y: (h.sum() + w.sum()) * value)
    code, output = report()
    assert code == 1 and "WRONG" in output and output.endswith("lossk is BROKEN here: 2 of 2 checks failed")


def test_a_crash_is_reported_and_the_rest_still_runs(monkeypatch):
    def crash(h, w, y):
        if h.dtype == torch.float32:
            raise RuntimeError("no kernel [float32]")  # rich would read the brackets as markup
        return F.cross_entropy(F.linear(h, w).float(), y)

    monkeypatch.setattr(doctor, "linear_cross_entropy", crash)
    code, output = report()
    assert code == 1 and "check cpu float32: failed: RuntimeError: no kernel [float32]" in output
    assert "check cpu bfloat16: error" in output and "1 of 2 checks failed" in output


@pytest.mark.parametrize(
    "cpu, cuda, expected",
    [
        ("avx2", None, ("CPU kernels avx2", "CUDA kernels not built")),
        ({"float32": "avx512"}, {"version": "13.0", "arch": ["80", "90a"]}, ("float32: avx512", "arch: 80 90a")),
    ],
)
def test_build_info_is_shown_whatever_its_form(monkeypatch, cpu, cuda, expected):
    info = {"version": "9.9", "torch": "2.10", "cpu": cpu, "cuda": cuda, "compiler": "g++ 14"}
    monkeypatch.setattr(doctor, "build_info", lambda: info)
    _, output = report()
    for fact in ("lossk 9.9", "built against torch 2.10", "compiler g++ 14", *expected):
        assert fact in output


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(doctor.OPTIONAL, "demo", ("no-such-package",))
    assert "for demo no-such-package missing" in report()[1]


def test_a_build_without_cuda_beside_a_cuda_device_is_said(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert "built without it" in doctor.verdict(0, {"cuda": None}, ["cpu"])
    assert doctor.verdict(0, {"cuda": {"version": "13.0"}}, ["cpu", "cuda"]) == "lossk works here on cpu and cuda"
