"""Every function of the device layer has a conformance test of its name, and every file that needs Hopper says so."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEADERS = sorted((ROOT / "cuda" / "device").glob("*.h"))
TESTS = sorted((ROOT / "tests" / "device" / "conformance").glob("*.cu"))

# A function: what follows LOSSK_DEVICE, LOSSK_HOST_DEVICE, inline or [[nodiscard]] up to its parameter list, at the
# beginning of a line; those of a class are indented, and the class is tested as a whole.
FUNCTION = re.compile(r"^(?:LOSSK_DEVICE|LOSSK_HOST_DEVICE|inline|\[\[nodiscard\]\])[^;={}]*?\b(\w+)\(", re.M)
CLASS = re.compile(r"^(?:struct|class) (\w+)(?: \{|$)", re.M)
PLAIN_DATA = {"Bf16", "Fp16", "Launch", "Tensor", "Tile"}


def _definitions(header: Path) -> set[str]:
    text = header.read_text()
    behaving = set()
    for match in CLASS.finditer(text):
        body = text[match.end() : text.find("\n};", match.end())]
        if "LOSSK_DEVICE" in body or "LOSSK_HOST_DEVICE" in body:
            behaving.add(match.group(1))
    return set(FUNCTION.findall(text)) | behaving - PLAIN_DATA - {"Wgmma"}  # Wgmma is how wgmma is written


def _tests() -> dict[str, str]:
    """Test name -> body."""
    found = {}
    for path in TESTS:
        for part in path.read_text().split("LOSSK_TEST(")[1:]:
            found[part.split(")", 1)[0]] = path.read_text()
    return found


@pytest.mark.parametrize("header", HEADERS, ids=lambda path: path.name)
def test_every_device_function_has_a_conformance_test(header):
    missing = _definitions(header) - set(_tests())
    assert not missing, f"{header.name}: no LOSSK_TEST named {sorted(missing)}"


def test_the_parser_sees_the_functions():
    names = set().union(*map(_definitions, HEADERS))
    assert len(names) > 70
    assert names >= {"ldmatrix", "wgmma", "tma_reduce_add", "mbarrier_try_wait", "swizzled", "Ring", "launch", "keep"}


@pytest.mark.parametrize("name", sorted(_tests()))
def test_a_conformance_test_calls_what_it_is_named_after(name):
    assert re.search(rf"\b{name}\b(<[^;()]*>)?[ ({{]", _tests()[name].replace(f"LOSSK_TEST({name})", "")), name


def test_every_device_function_has_two_halves():
    """What nvcc compiles to PTX, the emulator does in its own way."""
    for header in HEADERS:
        half = ROOT / "cuda" / "emulator" / header.name
        text = header.read_text()
        if "#else" not in text or not half.exists() or header.name in ("platform.h", "launch.h"):
            continue
        ptx = text[text.index("#else") : text.rindex("#endif")]
        here = set(FUNCTION.findall(ptx))
        there = set(FUNCTION.findall(half.read_text()))
        assert here <= there, f"{header.name}: the emulator lacks {sorted(here - there)}"


def test_tensor_maps_are_grid_constants():
    """Without it the map lies in a thread's own memory, where TMA cannot read: the emulator would not notice."""
    for path in [*ROOT.glob("cuda/**/*.cuh"), *ROOT.glob("tests/device/**/*.cu")]:
        for found in re.finditer(r"(\w+)\s+TensorMap (\w+)[,)]", path.read_text()):
            assert found[1] == "__grid_constant__", f"{path.name}: {found[2]}"
