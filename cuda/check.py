"""What the compiler makes of every kernel: `python cuda/check.py [--update] [--nvcc PATH]`, no GPU needed.

Compiles each .cu file as the package does, reads registers, stack and spills from ptxas and the instructions from the
disassembly, and compares with RESOURCES.md. Some rules hold whatever that table says. The compiler is pinned, so a
difference comes from the source. The device tests are compiled too: each PTX wrapper assembles.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "cuda" / "RESOURCES.md"
INSTALLED = ROOT / ".venv" / "nvcc" / "nvidia" / "cu13" / "bin" / "nvcc"
UPDATE = "python cuda/check.py --update"
JOBS = 2

ANYWHERE = ("sm_80", "sm_90")  # a file without a suffix, which CMakeLists.txt compiles for newer ones too
ONLY = {"_sm90": "sm_90a", "_sm100": "sm_100a"}
WARNINGS = ["-Xptxas=-v,-warn-spills,-warn-lmem-usage", "-Werror", "all-warnings"]

# The opcodes that tell what a kernel does, up to their first modifiers.
INSTRUCTIONS = (
    *("HMMA", "HGMMA", "LDGSTS", "LDSM", "STSM", "UTMALDG", "UTMASTG", "UTMAREDG", "UBLKCP", "SYNCS", "USETMAXREG"),
    *("MUFU.EX2", "LDL", "STL", "BAR", "MEMBAR.ALL.GPU"),
)
LOCAL_MEMORY = ("LDL", "STL")
# Fences of all memory that a product may have: at a cluster's barriers, before and after its work. One where a stage is
# handed on, which is what an arrival with .release.cluster compiles to, would wait for memory at every step.
MOST_FENCES = 2
ALL = "all"  # how many instructions, of 16 bytes: what is far more than an instruction cache holds is slow
HEADER = """\
# What each kernel takes

Registers, static shared memory, how many instructions of 16 bytes and some of them of each kernel, as `make cuda-check`
reads them off the compiler's output. Where it finds others, it fails; `python cuda/check.py --update` writes this file
again.

Compiler: nvcc {version}

| File | Kernel | For | Registers | Shared | Instructions | Among them |
| --- | --- | --- | ---: | ---: | ---: | --- |
"""
BLOCKS = """
Shared memory that a launch asks for, in bytes, and threads, from each configuration.

| File | Configuration | Shared | Threads |
| --- | --- | ---: | ---: |
"""
ROW = re.compile(r"\| (\S+\.(?:cu|h)) \| `(.+?)` \| (sm_\w+ \|)?")


class Frame(NamedTuple):
    """Local memory of one function, in bytes."""

    stack: int
    spill: int


class Ptxas(NamedTuple):
    """What ptxas said of one file; all by mangled name."""

    registers: dict[str, int]  # of the kernels
    shared: dict[str, int]  # of the kernels, static, in bytes
    frames: dict[str, Frame]  # of the kernels and of functions that were not inlined
    trouble: list[str]  # warnings, and what ptxas calls information but is one


class Kernel(NamedTuple):
    file: str
    name: str
    arch: str
    registers: int
    shared: int
    instructions: dict[str, int]

    @property
    def key(self) -> tuple[str, str, str]:
        return self.file, self.name, self.arch

    @property
    def row(self) -> str:
        counts = ", ".join(f"{name} {self.instructions[name]}" for name in INSTRUCTIONS if self.instructions.get(name))
        size = self.instructions.get(ALL, 0)
        return f"| {self.file} | `{self.name}` | {self.arch} | {self.registers} | {self.shared} | {size} | {counts} |"


class Block(NamedTuple):
    """What a struct of a config.h makes a launch ask for."""

    file: str
    name: str
    shared: int
    threads: int

    @property
    def row(self) -> str:
        return f"| {self.file} | `{self.name}` | {self.shared} | {self.threads} |"


class Job(NamedTuple):
    file: str  # from the root on
    arch: str
    test: bool = False  # only to compile


# ---- what the tools print


def parse_ptxas(text: str) -> Ptxas:
    """`text` is the standard error of nvcc with -Xptxas=-v."""
    result = Ptxas({}, {}, {}, [])
    kernel = function = ""
    for line in text.splitlines():
        if found := re.search(r"Compiling entry function '(\S+)'", line):
            kernel = found[1]
        elif found := re.search(r"Function properties for (\S+)", line):
            function = found[1]
        elif found := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
            result.frames[function] = Frame(int(found[1]), int(found[2]) + int(found[3]))
        elif found := re.search(r"Used (\d+) registers", line):
            shared = re.search(r"(\d+) bytes smem", line)
            result.registers[kernel], result.shared[kernel] = int(found[1]), int(shared[1]) if shared else 0
        # C75xx: a wgmma pipeline that was serialized, a setmaxnreg that was ignored. No flag makes them warnings.
        elif re.search(r"warning|\bC75\d\d\b|error", line, re.IGNORECASE):
            result.trouble.append(line.strip())
    if not result.trouble:  # ptxas warns of it; this is for a release that has another warning
        local = {name: frame for name, frame in result.frames.items() if any(frame)}
        result.trouble.extend(f"'{n}' has {f.stack} bytes of stack, {f.spill} bytes spilled" for n, f in local.items())
    return result


def parse_sass(text: str) -> dict[str, Counter]:
    """Selected instructions of each function of nvdisasm's output, by mangled name."""
    counts: dict[str, Counter] = {}
    current = Counter()
    for line in text.splitlines():
        if found := re.match(r"\s*\.section\s+\.text\.([^\s,\"]+)", line):
            current = counts.setdefault(found[1], Counter())
        elif found := re.match(r"\s*/\*[0-9a-f]+\*/\s+(?:@!?\w+\s+)?([A-Z][A-Z0-9_.]*)", line):
            current[ALL] += 1
            current.update(name for name in INSTRUCTIONS if f"{found[1]}.".startswith(f"{name}."))
    return counts


def shorten(name: str) -> str:
    """A demangled kernel without its type, parameters and what all have in common; template arguments stay."""
    name = name.replace("(anonymous namespace)::", "").replace("lossk::", "")
    depth = start = 0
    for i, c in enumerate(name):
        depth += (c == "<") - (c == ">")
        if c == " " and not depth:
            start = i + 1
        elif c == "(" and not depth:
            return name[start:i]
    return name[start:]


def demangle(text: str) -> str:
    """`text` with every mangled name in it as in C++."""
    return subprocess.run(["c++filt"], input=text, capture_output=True, text=True, check=True).stdout


# ---- rules and the table


def must_have(kernel: Kernel) -> tuple[str, ...]:
    """A kernel's name says which instructions it is written for; without them it is something else, and slow."""
    name = kernel.name.split("<")[0]
    if "wgmma" in name:
        return ("HGMMA", "UTMALDG", "SYNCS", "USETMAXREG") if kernel.file.endswith("_sm90.cu") else ()
    return ("HMMA", "LDSM", "LDGSTS") if "mma_sync" in name or "_mma" in name else ()


def broken_rules(kernels: Iterable[Kernel]) -> list[str]:
    problems = []
    for k in kernels:
        where = f"{k.file}, {k.name}, {k.arch}"
        problems += [f"{where}: has no {name}" for name in must_have(k) if not k.instructions.get(name)]
        problems += [f"{where}: uses local memory ({name})" for name in LOCAL_MEMORY if k.instructions.get(name)]
        fences = k.instructions.get("MEMBAR.ALL.GPU", 0)
        if must_have(k) and fences > MOST_FENCES:
            problems.append(f"{where}: fences all memory in {fences} places, not {MOST_FENCES} at most")
    return problems


def render(kernels: Iterable[Kernel], blocks: Iterable[Block], version: str) -> str:
    rows = "".join(f"{k.row}\n" for k in kernels)
    return HEADER.format(version=version) + rows + BLOCKS + "".join(f"{b.row}\n" for b in blocks)


def differences(rows: Iterable[Kernel | Block], table: str) -> list[str]:
    """How the kernels' and blocks' rows differ from those of `table`."""
    old = {found[0]: found.string for line in table.splitlines() if (found := ROW.match(line))}
    new = {ROW.match(row.row)[0]: row.row for row in rows}
    lines = []
    for key in dict.fromkeys([*new, *old]):
        if old.get(key) != new.get(key):
            lines += [f"  was {old.get(key, 'not there')}", f"  is  {new.get(key, 'gone')}"]
    return lines


# ---- the compiler


def find_jobs(root: Path) -> list[Job]:
    """Every kernel and conformance test, once per architecture."""
    jobs = []
    for source in sorted((root / "cuda").rglob("*.cu")):
        archs = next(((arch,) for suffix, arch in ONLY.items() if source.stem.endswith(suffix)), ANYWHERE)
        jobs += [Job(source.relative_to(root).as_posix(), arch) for arch in archs]
    for source in sorted((root / "tests" / "device" / "conformance").glob("*.cu")):
        archs = ("sm_90a",) if source.stem.endswith("_sm90") else ("sm_80", "sm_90a")
        jobs += [Job(source.relative_to(root).as_posix(), arch, test=True) for arch in archs]
    return jobs


def compile(job: Job, nvcc: Path, cubin: Path) -> Ptxas:
    """Writes `cubin`, unless there is trouble."""
    arch = job.arch.removeprefix("sm_")
    options = [f"-gencode=arch=compute_{arch},code=sm_{arch}", "-cubin", "-std=c++20", *WARNINGS]
    options += ["-Icuda", "-Icpp"] + ["-Itests"] * job.test
    run = subprocess.run([nvcc, *options, "-o", cubin, job.file], capture_output=True, text=True, cwd=ROOT)
    output = run.stderr + run.stdout
    result = parse_ptxas(output)
    if run.returncode and not result.trouble:
        result.trouble.append(output.strip() or f"nvcc: exit status {run.returncode}")
    return result


def examine(job: Job, nvcc: Path, cubin: Path) -> tuple[list[Kernel], list[str]]:
    """The kernels of one file for one architecture, under their mangled names, and the compiler's trouble with it."""
    said = compile(job, nvcc, cubin)
    if said.trouble:
        return [], [f"{job.file} for {job.arch}:", *(f"  {line}" for line in said.trouble)]
    if job.test:
        return [], []
    sass = subprocess.run([nvcc.with_name("nvdisasm"), "-c", cubin], capture_output=True, text=True, check=True)
    counts = parse_sass(sass.stdout)
    return [Kernel(job.file, n, job.arch, r, said.shared[n], counts[n]) for n, r in said.registers.items()], []


def run_all(jobs: list[Job], nvcc: Path) -> tuple[list[Kernel], list[str]]:
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(JOBS) as pool:
        cubins = [Path(folder) / f"{i}.cubin" for i in range(len(jobs))]
        results = list(pool.map(examine, jobs, [nvcc] * len(jobs), cubins))
    kernels = [k for found, _ in results for k in found]
    names = demangle("".join(f"{k.name}\n" for k in kernels)).splitlines()
    kernels = [k._replace(name=shorten(name)) for k, name in zip(kernels, names, strict=True)]
    kernels.sort(key=lambda k: (k.file, k.name, int(re.search(r"\d+", k.arch)[0])))
    return kernels, [line for _, trouble in results for line in trouble]


def find_blocks(root: Path) -> list[Block]:
    """Every struct with kSharedBytes and kThreads of a config.h, asked by a program of the host's compiler."""
    files, lines = [], []
    for path in sorted((root / "cuda").rglob("config.h")):
        file, room = path.relative_to(root).as_posix(), path.relative_to(root / "cuda").parts[0]
        files.append(f'#include "{path.relative_to(root / "cuda").as_posix()}"\n')
        for struct in re.findall(r"^struct (\w+Config) {", path.read_text(), re.MULTILINE):
            name = f"lossk::{room}::{struct}"
            lines.append(f'printf("{file} {room}::{struct} %d %d\\n", {name}::kSharedBytes, {name}::kThreads);')
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "blocks"
        source = "#include <cstdio>\n" + "".join(files) + "int main() {\n" + "\n".join(lines) + "\n}\n"
        program.with_suffix(".cpp").write_text(source)
        command = ["g++", "-std=c++20", "-w", "-Icuda", "-Icpp", program.with_suffix(".cpp"), "-o", program]
        subprocess.run(command, check=True, cwd=root)
        said = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    words = [line.split() for line in said.splitlines()]
    return [Block(file, name, int(shared), int(threads)) for file, name, shared, threads in words]


def compiler_version(nvcc: Path) -> str:
    """Of a compiler that is the pinned one: another allots other registers, and the table would mean nothing."""
    said = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    version = re.search(r"V(\d+\.\d+\.\d+)", said)[1]
    pinned = re.search(r"nvidia-cuda-nvcc==([\d.]+)", (ROOT / "pyproject.toml").read_text())[1]
    if version != pinned:
        raise SystemExit(f"cuda-check: {nvcc} is {version}, not the pinned {pinned}; make cuda-check installs that one")
    return version


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--update", action="store_true", help="write RESOURCES.md")
    parser.add_argument("--nvcc", type=Path, default=INSTALLED, help="the compiler; nvdisasm lies beside it")
    args = parser.parse_args(argv)
    nvcc = args.nvcc.absolute()
    for tool in (nvcc, nvcc.with_name("nvdisasm")):
        if not tool.exists():
            raise SystemExit(f"cuda-check: no {tool.name}; make cuda-check installs it")

    version = compiler_version(nvcc)
    kernels, trouble = run_all(find_jobs(ROOT), nvcc)
    blocks = find_blocks(ROOT)
    problems = trouble or broken_rules(kernels)
    if args.update and not problems:
        TABLE.write_text(render(kernels, blocks, version))
        print(f"wrote {TABLE.relative_to(ROOT)}")
    other = differences([*kernels, *blocks], TABLE.read_text() if TABLE.exists() else "")
    if problems:
        print(demangle("\n".join(problems)).rstrip())
    if other and not trouble:
        print("\n".join(["Not what RESOURCES.md says:", *other, f"If that is meant: {UPDATE}"]))
    if problems or other:
        print("cuda-check: failed")
        return 1
    functions, files = {k.key[:2] for k in kernels}, {k.file for k in kernels}
    print(f"cuda-check: {len(functions)} kernels in {len(files)} files, all within the table")
    return 0


if __name__ == "__main__":
    sys.exit(main())
