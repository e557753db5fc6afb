"""examples/harmonic: each experiment, shrunk, shows its effect; the committed tables are of the committed results."""

import json
from itertools import product
from pathlib import Path

import pytest
import torch

from examples.harmonic import __main__ as study
from examples.harmonic import digits, glyphs, lm, modular, report

FOLDER = Path(report.__file__).parent


def test_glyphs_are_ink_where_the_strokes_are():
    pixels, bar = torch.tensor([[0.0, 0.0], [3.0, 1.0], [3.0, 1.25], [6.0, 0.0]]), torch.tensor([[[[0.0, 0], [5, 0]]]])
    ink = glyphs.pen_at(pixels, bar, torch.tensor([1.0]))  # from 1/2 outside of the pen's edge to 1/2 inside
    torch.testing.assert_close(ink, torch.tensor([[1.0, 0.5, 0.25, 0.5]]))


def test_glyphs_depend_on_the_seed_alone():
    (x, y), (again, _), (other, _) = (glyphs.digits(2 * glyphs.BATCH + 1, seed) for seed in (1, 1, 2))
    assert torch.equal(x, again) and not torch.equal(x, other)
    assert x.shape == (len(y), digits.PIXELS) and y.unique().tolist() == list(range(10))


def test_harmonic_weights_are_class_centres():
    facts, pictures = digits.run(images=1000, epochs=25)
    cross_entropy, harmonic = (facts["found"][name] for name in ("cross-entropy", "harmonic, exponent 28"))
    assert min(cross_entropy["test_accuracy"], harmonic["test_accuracy"]) > 0.9
    assert harmonic["cosine"] > 2 * cross_entropy["cosine"]
    assert harmonic["distance"] < 0.85 * cross_entropy["distance"]
    assert [len(p) for p in pictures.values()] == [10] * (1 + len(digits.HEADS))


def test_harmonic_head_generalises_earlier():
    stage = modular.run(steps=600, seeds=1, decays=(1.0,))
    cross_entropy, harmonic = stage["runs"]
    assert min(cross_entropy["train"][-1], harmonic["train"][-1]) > 0.9
    assert harmonic["generalises"] < stage["steps"] and cross_entropy["generalises"] is None
    assert harmonic["centres"]["share"] > 1.5 * cross_entropy["centres"]["share"]


def test_principal_components_of_a_circle():
    angles = torch.arange(31) * (2 * torch.pi / 31)
    circle = torch.stack([angles.cos(), angles.sin(), torch.full_like(angles, 5)], 1)
    found = modular.principal(circle)
    assert found["share"] == pytest.approx(1)
    assert torch.tensor(found["points"]).norm(dim=1).tolist() == pytest.approx([1] * 31, abs=1e-3)


def test_language_models_fall_below_uniform(monkeypatch):
    for name, size in (("CONTEXT", 32), ("BATCH", 4), ("WINDOWS", 4)):
        monkeypatch.setattr(lm, name, size)
    stage = lm.run(megabytes=0.3, vocab=512, steps=15)
    loss = {name: head["held_out_loss"] for name, head in stage["heads"].items()}
    uniform = torch.tensor(stage["vocab"]).log().item()
    assert all(head["head_mib"] > 0 and len(head["curve"]) == 3 for head in stage["heads"].values())
    assert max(loss["cross-entropy"], loss["harmonic, exponent D"], loss["harmonic, exponent 2 D"]) < uniform - 0.5
    assert loss["harmonic, exponent √D"] > loss["harmonic, exponent D"] + 0.3


def test_committed_tables_and_pictures_are_of_the_committed_results(tmp_path):
    results, text = json.loads((FOLDER / "results.json").read_text()), (FOLDER / "README.md").read_text()
    assert list(results) == list(report.TABLES)
    (tmp_path / "README.md").write_text(text)
    report.report(results, tmp_path)
    assert (tmp_path / "README.md").read_text() == text
    for stage, place in product(report.TABLES, (FOLDER, tmp_path)):
        if place == FOLDER or stage != "digits":  # whose picture is of weights, drawn as they are trained
            assert 10_000 < (place / f"{stage}.png").stat().st_size < 300_000
            assert f"]({stage}.png)" in text


def test_command_runs_what_it_is_asked(tmp_path, capsys):
    (tmp_path / "README.md").write_text("<!-- digits:begin --><!-- digits:end -->prose\n")
    study.main([f"--folder={tmp_path}", "--images=200", "--epochs=1", "digits", "report"])
    assert list(json.loads((tmp_path / "results.json").read_text())) == ["digits"]
    assert (tmp_path / "digits.png").stat().st_size > 10_000
    text = (tmp_path / "README.md").read_text()
    assert "| harmonic, exponent 56 |" in text and text.endswith("<!-- digits:end -->prose\n")
    (tmp_path / "README.md").write_text("no marks")
    with pytest.raises(SystemExit, match=r"README.md needs a line <!-- digits:begin -->"):
        study.main([f"--folder={tmp_path}", "report"])
    with pytest.raises(SystemExit):
        study.main(["digit"])
    assert "no such stage: digit" in capsys.readouterr().err
