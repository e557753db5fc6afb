"""The list of seeded bugs: every edit still fits, and no kernel is without."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "device"))

import mutants  # noqa: E402


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda m: m.name)
def test_the_edit_fits(mutant):
    source = (ROOT / "cuda" / mutant.file).read_text()
    assert mutants.mutated(source, mutant) != source


def test_a_stale_edit_is_refused():
    with pytest.raises(ValueError, match="2 places"):
        mutants.mutated("a a", mutants.Mutant("kind", mutants.STATS_MMA, "file", "a", "b"))
    with pytest.raises(ValueError, match="0 places"):
        mutants.mutated("", mutants.Mutant("kind", mutants.STATS_MMA, "file", "a", "b"))


def test_every_launcher_has_mutants_of_the_classes():
    launchers = {str(path.relative_to(ROOT / "cuda")) for path in (ROOT / "cuda").rglob("*.cu")}
    assert {m.kernel.launcher for m in mutants.MUTANTS} == {name for name in launchers if not name.startswith("probe/")}
    kinds = {m.kind for m in mutants.MUTANTS}
    assert kinds >= {
        *("missing barrier", "missing wait", "missing fence", "wrong parity", "early release", "wrong swizzle"),
        *("off-by-one tail", "overrun", "misalignment", "divergence", "wrong count"),
    }
    assert len(mutants.MUTANTS) >= 20


def test_some_are_of_every_kind_and_launcher():
    chosen = mutants.some()
    for of in (lambda m: m.kind, lambda m: m.kernel.launcher):
        assert {of(m) for m in chosen} == {of(m) for m in mutants.MUTANTS}
    assert len(chosen) < len(mutants.MUTANTS) / 2


def test_the_tests_that_must_kill_exist():
    sources = "".join(path.read_text() for path in (ROOT / "tests/device/kernels").glob("*.cu"))
    tests = set(re.findall(r"LOSSK_TEST\((\w+)\)", sources))
    assert all(set(kernel.tests) <= tests for kernel in mutants.KERNELS)
