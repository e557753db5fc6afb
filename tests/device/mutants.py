"""Seeded bugs that the tests of the kernels must find: `python tests/device/mutants.py BUILD_FOLDER`.

A mutant is one edit of a kernel or of the device layer. Its launcher is compiled with the edit and linked to the tests
that are built already; they must fail, in the build with the race detector or else in that with AddressSanitizer. A
kernel without an edit must pass in the same way, or a kill would prove nothing.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 120  # a mutant that takes longer hangs, which the emulator should have noticed
SEEDS = "2"

FLAGS = {
    "race": ["-fsanitize=thread", "-fno-threadsafe-statics"],
    "asan": ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"],
}
ENGINE = {"race": ["engine_race", "engine_plain"], "asan": ["engine_asan"]}


class Kernel(NamedTuple):
    """A launcher whose kernels can be edited, and the tests that run them."""

    launcher: str
    tests: tuple[str, ...]


MMA = Kernel("head/lse/lse.cu", ("lse_mma_bf16", "lse_mma_edges", "lse_mma_bank_conflicts"))
WGMMA = Kernel("head/lse/lse_sm90.cu", ("lse_wgmma_bf16", "lse_wgmma_edges"))


class Mutant(NamedTuple):
    kind: str
    kernel: Kernel
    file: str  # below cuda/
    right: str  # occurs once
    wrong: str

    @property
    def name(self) -> str:
        right, wrong = (" ".join(text.split()) for text in (self.right, self.wrong))
        return f"{Path(self.file).name}: {right[:44]} -> {wrong[:40] or 'nothing'}"


_MMA, _WGMMA, _ROW = "head/lse/lse_mma.cuh", "head/lse/lse_wgmma.cuh", "head/lse/row_lse.cuh"
_RING = "device/ring.h"
_RELEASE_NOW = "if (lane == 0) shared.ring.release(turn);"

MUTANTS = [
    # ---- mma.sync with cp.async
    Mutant("missing barrier", MMA, _MMA, "sync_block();  // this step's stage", "// this step's stage"),
    Mutant("missing barrier", MMA, _MMA, "sync_block();  // also: every warp", "// also: every warp"),
    Mutant("missing wait", MMA, _MMA, "cp_async_wait<C::kStages - 2>();", ""),
    Mutant("missing wait", MMA, _MMA, "cp_async_wait<C::kStages - 2>();", "cp_async_wait<C::kStages - 1>();"),
    Mutant("early release", MMA, _MMA, "i < C::kStages - 1; ++i) load_next();", "i < C::kStages; ++i) load_next();"),
    Mutant(
        "wrong swizzle",
        MMA,
        _MMA,
        "cp_async<16>(tile_address<kSwizzle>(tile",
        "cp_async<16>(tile_address<Swizzle::none>(tile",
    ),
    Mutant("wrong swizzle", MMA, "device/swizzle.h", "chunk ^ offset / 128", "chunk ^ offset / 256"),
    Mutant("wrong layout", MMA, _MMA, "lane % 8 + lane / 16 * 8;", "lane % 16;"),
    Mutant("wrong layout", MMA, _MMA, "{b[2], b[3]}", "{b[3], b[2]}"),
    Mutant("off-by-one tail", MMA, _MMA, "first + row < count &&", "first + row <= count &&"),
    Mutant("off-by-one tail", MMA, _MMA, "feature < d;", "feature <= d;"),
    Mutant("off-by-one tail", MMA, _ROW, "if (column >= p.v)", "if (column > p.v)"),
    Mutant("off-by-one tail", MMA, "head/lse/merge.cuh", "if (row >= p.n)", "if (row > p.n)"),
    Mutant("off-by-one tail", MMA, _MMA, "if (row >= p.n) continue;", "if (row > p.n) continue;"),
    Mutant("overrun", MMA, _MMA, "shared.other_half[row_of(i, half) - first_row] =", "shared.other_half[1024] ="),
    Mutant(
        "divergence", MMA, _MMA, "rows[i][half].found.merge_quad();", "if (lane % 4) rows[i][half].found.merge_quad();"
    ),
    Mutant("missing reduction", MMA, _MMA, "rows[i][half].found.merge_quad();", ""),
    Mutant("missing reduction", MMA, _MMA, "rows[i][half].found.merge(shared.other_half[row - first_row]);", ""),
    Mutant("stale registers", MMA, _MMA, "d[i][j / 4][j % 4] = 0;", ";"),
    Mutant("wrong value", MMA, _ROW, "top == kNone ? 0 : top * kLog2E;\n    sum *=", "top * kLog2E;\n    sum *="),
    Mutant("wrong value", MMA, _ROW, "column == target)", "column == target + 1)"),
    Mutant("wrong tile", MMA, "device/tiles.h", "rows - first < band ? rows - first : band", "band"),
    Mutant("two owners", MMA, "device/tiles.h", "i_ += gridDim.x;", "i_ += 1;"),
    # ---- TMA, mbarriers and wgmma
    Mutant("wrong parity", WGMMA, _RING, "turn.phase ^ 1);", "turn.phase);"),
    Mutant("wrong parity", WGMMA, _RING, "&full[turn.stage], turn.phase)", "&full[turn.stage], turn.phase ^ 1)"),
    Mutant("wrong count", WGMMA, _WGMMA, "C::kConsumers * kWarpgroup / kWarp", "C::kConsumers"),
    Mutant("wrong count", WGMMA, _WGMMA, "kConsumers * kWarpgroup / kWarp)", "kConsumers * kWarpgroup / kWarp + 1)"),
    Mutant("missing fence", WGMMA, _RING, "fence_mbarrier_init();", ""),
    Mutant("missing fence", WGMMA, _WGMMA, "wgmma_fence();", ""),
    Mutant("missing barrier", WGMMA, _WGMMA, "  sync_block();\n", ""),
    Mutant("missing wait", WGMMA, _WGMMA, "shared.ring.wait_full(turn);", ""),
    Mutant("missing wait", WGMMA, _RING, "mbarrier_wait(&empty[turn.stage], turn.phase ^ 1);", ""),
    Mutant("missing wait", WGMMA, _WGMMA, "wgmma_wait<0>();", ""),
    Mutant("wrong bytes", WGMMA, _WGMMA, "turn, C::kStageBytes)", "turn, C::kStageBytes / 2)"),
    Mutant("early release", WGMMA, _WGMMA, "if (i > 0 && lane == 0) shared.ring.release(turn.before());", _RELEASE_NOW),
    Mutant("early release", WGMMA, _WGMMA, "wgmma_wait<1>();", "wgmma_wait<2>();"),
    Mutant("missing release", WGMMA, _WGMMA, "keep(d);\n      if (lane == 0) shared.ring.release(", "keep(d), void("),
    Mutant("too many arrivals", WGMMA, _WGMMA, "if (i > 0 && lane == 0)", "if (i > 0)"),
    Mutant("too many arrivals", WGMMA, _WGMMA, "threadIdx.x < kWarp && elect_one()", "threadIdx.x < kWarp"),
    Mutant("wrong layout", WGMMA, _WGMMA, "b + 2 * k, 16, 8 * kRowBytes", "b + 2 * k, 16, 4 * kRowBytes"),
    Mutant("misalignment", WGMMA, _WGMMA, "align_shared<1024>", "align_shared<16>"),
    Mutant("stale registers", WGMMA, _WGMMA, "i > 0 || k > 0", "true"),
    Mutant("divergence", WGMMA, _WGMMA, "wgmma_commit();", "if (lane) wgmma_commit();"),
    Mutant(
        "off-by-one tail",
        WGMMA,
        _WGMMA,
        "column < end_column; column += C::kColumns)\n",
        "column + 1 < end_column; column += C::kColumns)\n",
    ),
    Mutant("off-by-one tail", WGMMA, _WGMMA, "if (row + 8 * half < p.n", "if (row + 8 * half <= p.n"),
    Mutant("wrong tile", WGMMA, _WGMMA, "full, i * kDepth, column", "full, i * kDepth, column + 1"),
]


def mutated(source: str, mutant: Mutant) -> str:
    """The edited file; an edit that fits nowhere, or in two places, is an error: the list has gone stale."""
    if source.count(mutant.right) != 1:
        raise ValueError(f"{mutant.file} has {source.count(mutant.right)} places like {mutant.right!r}, expected 1")
    return source.replace(mutant.right, mutant.wrong)


def objects(build: Path, kind: str, launcher: str) -> list[str]:
    """What the mutant's launcher is linked to: the test program but for the launcher, and the engine."""
    sources = [ROOT / "tests/device/main.cpp", *(ROOT / "tests/device/kernels").glob("*.cu")]
    sources += [path for path in (ROOT / "cuda").rglob("*.cu") if path.parent.name != "probe"]
    folder = build / f"CMakeFiles/kernels_{kind}.dir"
    found = []
    for source in sources:  # cmake names an object after its source, from some folder on
        if source != ROOT / "cuda" / launcher:
            ending = f"/{source.parent.name}/{source.name}.o" if source.suffix == ".cu" else f"/{source.name}.o"
            found += [str(path) for path in folder.rglob("*.o") if str(path).endswith(ending)]
    if len(found) != len(sources) - 1:
        raise ValueError(f"not all objects of kernels_{kind} are in {build}: build the tests first")
    return found + [str(build / f"lib{engine}.a") for engine in ENGINE[kind]]


def outcome(kernel: Kernel, overlay: Path | None, kind: str, build: Path, place: Path) -> str | None:
    """What the tests say of the edited kernel: None where they pass."""
    program = place / kind
    folders = ([overlay] if overlay else []) + [ROOT / folder for folder in ("cuda", "cpp", "tests")]
    includes = [f"-I{folder}" for folder in folders]
    maps = [f"-ffile-prefix-map={ROOT}=/lossk"] + ([f"-ffile-prefix-map={overlay}=/lossk/cuda"] if overlay else [])
    command = [
        "g++",
        "-std=c++20",
        "-g",
        "-O1",
        "-w",
        "-Wno-psabi",
        "-fno-optimize-sibling-calls",
        *FLAGS[kind],
        *includes,
        *maps,
    ]
    source = ROOT / "cuda" / kernel.launcher
    subprocess.run([*command, "-x", "c++", "-c", source, "-o", f"{program}.o"], check=True)
    link = FLAGS[kind] if kind == "asan" else []
    subprocess.run(
        ["g++", *link, f"{program}.o", *objects(build, kind, kernel.launcher), "-ldl", "-o", program], check=True
    )
    for test in kernel.tests:
        try:
            run = subprocess.run(
                [program, "--only", test, "--seeds", SEEDS],
                capture_output=True,
                text=True,
                timeout=SECONDS,
            )
        except subprocess.TimeoutExpired:
            return f"still running after {SECONDS} s"
        if run.returncode:
            lines = [line for line in (run.stdout + run.stderr).splitlines() if "FAILED" in line or "ERROR" in line]
            return lines[0] if lines else f"exit status {run.returncode}"
    return None


def judge(mutant: Mutant | None, kernel: Kernel, build: Path, folder: Path) -> str | None:
    folder.mkdir(parents=True)
    overlay = None
    if mutant:
        overlay = folder / "cuda"
        path = overlay / mutant.file
        path.parent.mkdir(parents=True)
        path.write_text(mutated((ROOT / "cuda" / mutant.file).read_text(), mutant))
    for kind in FLAGS:
        if said := outcome(kernel, overlay, kind, build, folder):
            return f"{kind}: {said}"
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", type=Path, help="where the tests of the device code are built")
    parser.add_argument("--only", default="", help="mutants whose kind or name contains this")
    args = parser.parse_args()
    work = args.build / "mutants"
    shutil.rmtree(work, ignore_errors=True)
    chosen = [m for m in MUTANTS if args.only in m.kind or args.only in m.name]

    started = time.monotonic()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        sound = [pool.submit(judge, None, k, args.build, work / f"sound{i}") for i, k in enumerate((MMA, WGMMA))]
        results = [pool.submit(judge, m, m.kernel, args.build, work / str(i)) for i, m in enumerate(chosen)]
        for kernel, future in zip((MMA, WGMMA), sound):
            if said := future.result():
                print(f"{kernel.launcher} fails without any edit: {said}")
                return 1
        alive = 0
        for mutant, future in zip(chosen, results):
            said = future.result()
            alive += said is None
            print(f"{'killed' if said else 'ALIVE '} {mutant.kind:17} {mutant.name}")
            print(f"       {said or ''}"[:240], flush=True)
    print(f"{len(chosen)} mutants of {len({m.kind for m in chosen})} kinds, {time.monotonic() - started:.0f} s")
    print(f"{len(chosen) - alive} killed, {alive} alive")
    return int(alive > 0)


if __name__ == "__main__":
    sys.exit(main())
