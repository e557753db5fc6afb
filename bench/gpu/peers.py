"""Wheels of the peers, for a machine with a GPU and no network.

`python -m bench.gpu peers`, where there is a network, puts them into folders of at most PART bytes under build/peers,
cutting those that are larger; the benches put them together again. Copy the folders, in several turns if need be.
"""

import io
import shutil
import site
import subprocess
import sys
import zipfile
from pathlib import Path

from bench.gpu.check import FOLDER, ROOT

WHEELS, INSTALLED = ROOT / "build" / "peers", FOLDER / "peers"
PART = 48 << 20
CUTLASS = "4.8.1"  # its parts must be of one release
PACKAGES = (
    *("liger-kernel>=0.8.5", "cut-cross-entropy>=25.1", "quack-kernels>=0.6.5"),
    *(f"nvidia-cutlass-dsl{part}=={CUTLASS}" for part in ("", "-libs-base", "-libs-core", "-libs-cu13")),
    *("apache-tvm-ffi>=0.1.6,<0.2", "torch-c-dlpack-ext", "einops"),
)
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_24_x86_64", "manylinux2014_x86_64", "any")


def download(python: str, wheels: Path = WHEELS) -> None:
    """For that version of Python, which need not be this one; without what they depend on, torch above all."""
    shutil.rmtree(wheels, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--python-version", python, "--dest", str(wheels / "whole")]
    command += [part for platform in PLATFORMS for part in ("--platform", platform)]
    subprocess.run([*command, *PACKAGES], check=True)
    for folder in divide(wheels / "whole", wheels):
        print(f"{folder.relative_to(ROOT)}: {sum(p.stat().st_size for p in folder.iterdir()) / 2**20:.0f} MiB")


def divide(whole: Path, wheels: Path, part: int = PART) -> list[Path]:
    """Moves the files of `whole` into wheels/0, wheels/1, ..., cut into pieces name.0, name.1, ... where too large."""
    folders: list[Path] = []
    room = 0
    for path in sorted(whole.iterdir()):
        data = path.read_bytes()
        pieces = [data[i : i + part] for i in range(0, len(data), part)]
        for number, piece in enumerate(pieces):
            if len(piece) > room:
                folders.append(wheels / str(len(folders)))
                folders[-1].mkdir()
                room = part
            name = path.name if len(pieces) == 1 else f"{path.name}.{number}"
            (folders[-1] / name).write_bytes(piece)
            room -= len(piece)
        path.unlink()
    whole.rmdir()
    return folders


def join(wheels: Path, to: Path) -> list[Path]:
    """The wheels whole again."""
    to.mkdir(parents=True, exist_ok=True)
    pieces: dict[str, dict[int, bytes]] = {}
    for path in wheels.glob("*/*.whl*"):
        name, _, number = path.name.partition(".whl")
        pieces.setdefault(f"{name}.whl", {})[int(number.strip(".") or 0)] = path.read_bytes()
    made = []
    for name, parts in sorted(pieces.items()):
        made.append(to / name)
        whole = b"".join(parts[k] for k in sorted(parts))
        if sorted(parts) != list(range(len(parts))) or not zipfile.is_zipfile(io.BytesIO(whole)):
            raise ValueError(f"{name}: pieces are missing; there are {sorted(parts)}")
        made[-1].write_bytes(whole)
    return made


def make_available() -> None:
    """Behind all that is installed: a machine's torch and triton are not to be replaced."""
    if not INSTALLED.exists() and WHEELS.exists():
        made = join(WHEELS, FOLDER / "wheels")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile"]
        subprocess.run([*command, "--target", str(INSTALLED), *map(str, made)], check=True)
    if INSTALLED.exists():
        site.addsitedir(str(INSTALLED))  # with what its .pth files name
