"""The study of live columns: its rules against gradients written out in full, and the whole of it on little text."""

import json
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from examples.live_columns import __main__ as study
from examples.live_columns import compare, lm, measure, report, rules

N, D, V = 200, 16, 300  # neither a whole number of blocks nor of tiles
close = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-15)


class Case:
    """Some tokens are likely everywhere, as in text; targets are drawn from the model."""

    def __init__(self, dtype=torch.float64):
        self.h, self.w = 0.4 * torch.randn(N, D, dtype=dtype) + 1, torch.randn(V, D, dtype=dtype)
        self.y = (self.h @ self.w.T).softmax(1).multinomial(1)[:, 0]
        self.residual, self.loss = rules.residual(self.h, self.w, self.y)

    def gradients(self, live, fill=False):
        return rules.filtered(self.h, self.w, self.residual, live, fill)

    def from_dlogits(self, residual):
        return residual @ self.w / N, residual.T @ self.h / N

    def by_autograd(self):
        h, w = self.h.clone().requires_grad_(), self.w.clone().requires_grad_()
        loss = F.cross_entropy(h @ w.T, self.y)
        return loss, *torch.autograd.grad(loss, (h, w))


@pytest.fixture
def case(seed):
    return Case()


def per_row(live):
    return live.repeat_interleave(rules.ROWS, 0)[:N]


def test_exact_is_autograd(case):
    loss, *expected = case.by_autograd()
    close(case.loss, loss.detach())
    close(list(rules.exact(case.h, case.w, case.residual)[:2]), expected)


@pytest.mark.parametrize("fill", [True, False])
def test_everything_is_live_at_a_tiny_tau(case, fill):
    found = case.gradients(rules.live_columns(case.residual, case.y, 1e-300), fill)
    assert found.dropped == found.dlogits_error == 0
    close(list(found[:2]), list(case.by_autograd()[1:]))


@pytest.mark.parametrize("fill", [True, False])
def test_live_columns_written_out(case, fill):
    p = (case.h @ case.w.T).softmax(1)
    live, expected = rules.live_columns(case.residual, case.y, 0.25), torch.zeros_like(p)
    for rows in (slice(0, 128), slice(128, N)):
        dead = [v for v in range(V) if p[rows, v].sum() < 0.25 and v not in case.y[rows]]
        assert 0 < len(dead) < V and live[rows.start // 128].logical_not().nonzero()[:, 0].tolist() == dead
        expected[rows] = p[rows] - F.one_hot(case.y[rows], V)
        lost = p[rows][:, dead]
        expected[rows, dead] = lost.sum(1, keepdim=True) * lost.sum(0) / lost.sum() if fill else 0
    found = case.gradients(live, fill)
    close(list(found[:2]), list(case.from_dlogits(expected)))
    assert found.dropped == pytest.approx((p * ~per_row(live)).sum().item() / N)
    error = (expected - case.residual).norm() / case.residual.norm()
    assert found.dlogits_error == pytest.approx(error.item()) and error > 0.01


def test_fill_leaves_no_token_without_gradient(case):
    live = rules.live_columns(case.residual, case.y, 0.25)
    filled, dropped = ((case.gradients(live, fill).weight == 0).all(1).sum() for fill in (True, False))
    assert filled == 0 < dropped


def test_tiles_written_out(case):
    """A skipped tile is one whose every |P - onehot| is below eps, of tokens sorted by their mean logit."""
    eps, order = 2.0**-6, (case.h @ case.w.T).mean(0).argsort()
    expected = torch.zeros_like(case.residual)
    kept = 0
    for rows in torch.arange(N).split(128):
        for columns in order.split(128):
            tile = case.residual[rows[:, None], columns]
            if not (tile.abs() < eps).all():
                kept, expected[rows[:, None], columns] = kept + 1, tile
    live = rules.live_tiles(case.h, case.w, case.residual, eps)
    assert 0 < kept < 6 and torch.equal(per_row(live), expected != 0)
    close(list(case.gradients(live)[:2]), list(case.from_dlogits(expected)))


def test_tiles_keep_everything_at_eps_0_for_nothing_is_below_it(case):
    live = rules.live_tiles(case.h, case.w, case.residual, 0.0)
    assert live.all()
    close(list(case.gradients(live)[:2]), list(case.by_autograd()[1:]))


def test_tiles_keep_at_eps_1_only_what_is_wrong_by_exactly_1(case):
    assert not rules.live_tiles(case.h, case.w, case.residual, 1.0).any()
    case.h[130], case.y[130] = 1e4 * case.w[8], case.w.mv(case.w[8]).argmin()  # one P is 1, the target's is 0
    case.residual, _ = rules.residual(case.h, case.w, case.y)
    live = rules.live_tiles(case.h, case.w, case.residual, 1.0)
    assert case.residual[130, case.y[130]] == -1 and live[1, case.y[130]]
    assert not live[0].any() and live[1].sum() <= 2 * rules.COLUMNS


def test_cce_head_scales_its_gradients_after_the_rule(monkeypatch):
    case = Case(torch.float32)
    h, w = case.h.requires_grad_(), case.w.requires_grad_()
    for eps, factor in ((0.0, 2.0), (1.0, 0.0)):
        monkeypatch.setattr(compare, "CCE_EPS", eps)
        h.grad = w.grad = None
        (2 * compare.CCE.apply(h, w, case.y)).backward()
        _, *expected = case.by_autograd()
        torch.testing.assert_close([h.grad, w.grad], [factor * g for g in expected], rtol=1e-4, atol=1e-6)


def test_errors_of_rows_leave_negligible_ones_out():
    exact = torch.tensor([[5.0, 0.0], [0.0, 1.0], [0.0, 1e-3]], dtype=torch.float64)
    found = torch.tensor([[5.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    errors = measure.errors(rules.Gradients(found, found), rules.Gradients(exact, exact))
    assert errors["dE"] == errors["dC"] and errors["zero_rows"] == pytest.approx(1 / 3)
    assert errors["dC"] == pytest.approx(
        {"error": 1 / 26**0.5, "worst_row": 1, "worst_cosine": 0.5**0.5, "counted_rows": 2 / 3}, rel=1e-5
    )
    silent = measure.row_errors(torch.zeros(3, 2), exact)
    assert silent["worst_row"] == 1 and silent["worst_cosine"] == 0


def test_curves_are_means_over_stretches():
    assert compare.smooth([1.0, 2.0, 3.0]) == [1.0, 2.0, 3.0]
    assert compare.smooth([float(i // 2) for i in range(199)]) == [float(i) for i in range(99)]


def test_percent():
    shares = (0.0, 3e-6, 2e-5, 0.00045, 0.0175, 0.25, 1.0)
    words = ["0 %", "< 0.001 %", "0.002 %", "0.045 %", "1.8 %", "25 %", "100 %"]
    assert [report.percent(share) for share in shares] == words


README = f"# Study\n{report.BEGIN}\nold\n{report.END}\nprose\n"


def test_report_fills_the_readme(tmp_path):
    row = {"error": 0.0175, "worst_row": 0.25, "worst_cosine": 0.97, "counted_rows": 0.5}
    facts = {"live_share": 0.08, "dropped_mass": 0.12, "dlogits_error": 0.02, "dE": row, "dC": row, "zero_rows": 0.0}
    fill = facts | {"method": "fill", "tau": 2.0**-8, "dlogits_error_predicted": 0.03, "matmul_times": 1.25}
    methods = [facts | {"method": "exact", "matmul_times": 3.0}, fill, facts | {"method": "cce", "eps": 2.0**-12}]
    batch = {"about": "none", "loss": 5.1, "rows": 256, "dim": 8, "vocab": 64, "matmul_ms": 9.0, "methods": methods}
    stage = {"machine": {"cpu": "Test CPU", "threads": 2, "torch": "2.13"}, "date": "2026-01-01"}
    readme = tmp_path / "README.md"
    readme.write_text(README)
    for _ in range(2):  # the second finds the tables of the first
        report.report({"measure": stage | {"batches": {"early": batch}}}, tmp_path)
    text = readme.read_text()
    assert text.startswith(f"# Study\n{report.BEGIN}\n") and text.endswith(f"{report.END}\nprose\n")
    assert "old" not in text and text.count("**early**: none; loss 5.10 nats") == 1
    cells = "8.0 % | 12 % | 2.0 % (3.0 %) | 1.8 % | 25 % (0.970) | 1.8 % | 25 % (0.970) | 0 % | 1.25"
    assert f"| lossk, fill, tau=2^-8 | {cells} |" in text and "| CCE's tiles, eps=2^-12 |" in text
    readme.write_text(report.BEGIN)
    with pytest.raises(SystemExit, match=r"README.md needs a line"):
        report.report({}, tmp_path)


def test_whole_study_on_little_text(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(lm, "BATCH", 1)
    monkeypatch.setattr(lm, "WINDOWS", 2)
    monkeypatch.setattr(compare, "BATCH", 1)
    monkeypatch.setattr(compare, "WINDOWS", 2)
    monkeypatch.setattr(compare, "VOCAB", 300)
    (tmp_path / "README.md").write_text(README)
    sizes = {"megabytes": 0.3, "vocab": 300, "steps": 4, "rounds": 1, "compare-steps": 2, "seeds": 1}
    study.main([f"--folder={tmp_path}", *(f"--{name}={size}" for name, size in sizes.items())])
    results = json.loads((tmp_path / "results.json").read_text())
    assert list(results) == ["train", "measure", "compare"]
    for name, batch in results["measure"]["batches"].items():
        methods = {(m["method"], m.get("tau")): m for m in batch["methods"]}
        assert len(methods) == 10 and methods["exact", None]["dC"]["error"] < 1e-5, name
        assert methods["fill", 2.0**-14]["dE"]["error"] < 1e-3, name
    assert [run["head"] for run in results["compare"]["runs"]] == list(compare.HEADS)
    assert (tmp_path / "live_columns.png").stat().st_size > 10_000
    with pytest.raises(SystemExit):
        study.main(["trian"])
    assert "no such stage: trian" in capsys.readouterr().err
