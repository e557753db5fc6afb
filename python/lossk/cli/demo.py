"""`lossk demo`: the same small language model trained twice, once with torch's head and once with lossk's."""

from __future__ import annotations

import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from . import require

if TYPE_CHECKING:  # at run time only once `require` has seen to their packages
    from torch import Tensor

    from .demo_model import Run
    from .demo_text import Batches

LARGEST_VOCAB = 2**20
VALIDATION_WINDOWS = 32
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Options:
    seconds: float
    vocab: int
    dtype: torch.dtype
    device: torch.device
    out: Path
    seed: int
    text_mb: float
    model: str


class HeadFailed(Exception):
    """A head cannot run here; the message says which and why."""


def demo(
    seconds: Annotated[float, typer.Option(help="Time for the training of both models together.")] = 170.0,
    vocab: Annotated[int, typer.Option(help="Entries of the vocabulary.")] = 32768,
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16; the weights are float32 in both.")] = "float32",
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    out: Annotated[Path, typer.Option(help="Folder for demo.json and demo.png.")] = Path("lossk-demo"),
    seed: Annotated[int, typer.Option(help="For weights and batches.")] = 0,
    text_mb: Annotated[float, typer.Option(help="Megabytes of Python's standard library to read.")] = 10.0,
    model: Annotated[str, typer.Option(help="small, or 100m for a GPU.")] = "small",
) -> None:
    """Train a small language model with torch's head and with lossk's; compare time, memory and loss.

    The text is the source of Python's standard library. Both models start from the same weights and see the same
    batches, in turns, so that whatever else the machine does slows both. Ctrl-C ends the training early.
    """
    require("tokenizers", "matplotlib")
    from .demo_model import SIZES
    from .demo_text import TooLittleText

    if model not in SIZES:
        raise typer.BadParameter(f"--model {model}: expected {' or '.join(SIZES)}")
    _check_numbers(seconds, vocab, text_mb)
    if dtype not in DTYPES:
        raise typer.BadParameter(f"--dtype {dtype}: expected {' or '.join(DTYPES)}")
    where = _checked_device(device)
    _check_folder(out)
    console = Console()
    try:
        interrupted = _run(console, Options(seconds, vocab, DTYPES[dtype], where, out, seed, text_mb, model))
    except TooLittleText as error:
        raise typer.BadParameter(str(error)) from None
    except HeadFailed as error:
        console.print(str(error), markup=False)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        console.print("stopped; nothing to report")
        raise typer.Exit(130) from None
    if interrupted:
        raise typer.Exit(130)


def _run(console: Console, options: Options) -> bool:
    """Text, measurements, training, report; True where Ctrl-C cut the training short."""
    from . import demo_model, demo_report, demo_text
    from .demo_plot import draw

    size, device = demo_model.SIZES[options.model], options.device
    batch, context = size.batch, size.context
    with console.status("reading text, training the tokenizer"):
        corpus = demo_text.load_corpus(options.text_mb)
        tokenizer = demo_text.train_tokenizer(corpus.train, options.vocab)
        stream = demo_text.encode(tokenizer, corpus.train)
        held_out = demo_text.encode(tokenizer, corpus.held_out)
        validation = demo_text.held_out_windows(held_out, VALIDATION_WINDOWS, context, device)
    console.print(f"text: {corpus.megabytes:.1f} MB of Python's standard library, {corpus.files} files")
    console.print(f"tokens: {len(stream)} to train on, {len(held_out)} held out")
    vocab = tokenizer.get_vocab_size()
    if vocab < options.vocab:
        console.print(f"vocabulary: the text yields only {vocab} of {options.vocab} entries; using {vocab}")

    batches = demo_text.Batches(stream, batch, context, options.seed, device)
    runs = {
        name: demo_model.Run(demo_model.build(vocab, options.seed, device, size), head, options.dtype)
        for name, head in demo_model.HEADS.items()
    }
    with console.status("measuring the heads' memory"):
        peaks = _peaks(runs, *batches.next())
    parameters = sum(p.numel() for p in runs["torch"].model.parameters())
    console.print(f"model: {parameters / 1e6:.1f} M parameters, {batch * context} tokens a step")
    interrupted = _train(console, runs, batches, options.seconds, size.peak_rate)
    with console.status("validating"):
        scores = {name: demo_model.evaluate(run.model, *validation) for name, run in runs.items()}

    figures = demo_report.collect(
        runs,
        peaks,
        scores,
        options,
        vocab=vocab,
        parameters=parameters,
        interrupted=interrupted,
        tokens_per_step=batch * context,
        held_out_tokens=validation[1].numel(),
    )
    console.print(demo_report.table(figures))
    written = [demo_report.save(figures, options.out / "demo.json"), draw(figures, options.out / "demo.png")]
    console.print("written: " + ", ".join(map(str, written)), markup=False, highlight=False, soft_wrap=True)
    return interrupted


def _peaks(runs: dict[str, Run], tokens: Tensor, targets: Tensor) -> dict[str, int]:
    """Each head's peak memory in bytes, on one real batch and before anything is trained."""
    from .demo_memory import head_peak_bytes

    peaks = {}
    for name, run in runs.items():
        with _named(name):
            with torch.no_grad():
                h, w = run.hidden(tokens), run.model.embedding.weight.to(run.dtype)
            peaks[name] = head_peak_bytes(run.head, h, w, targets.flatten())
    return peaks


@contextmanager
def _named(head: str) -> Iterator[None]:
    """Errors of a head that cannot run here (no kernels for the device, no memory) say whose they are."""
    try:
        yield
    except (RuntimeError, TypeError, ValueError) as error:
        raise HeadFailed(f"{head}'s head does not run here: {error}") from error


def _train(console: Console, runs: dict[str, Run], batches: Batches, seconds: float, peak_rate: float) -> bool:
    """Step the runs in turns until the time is up, at least twice; True where Ctrl-C ended it.

    Always the same batch, learning rate and number of steps for all. The schedule follows the time that has passed,
    not a number of steps guessed beforehand, which other work on the machine would make wrong.
    """
    from .demo_model import rate

    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[state]}"),
        TimeRemainingColumn(),
        console=console,
    )
    task = progress.add_task("training", total=seconds, state="")
    with progress, _interrupt(lambda: progress.update(task, description="stopping")) as stop:
        begin, step, passed = time.perf_counter(), 0, 0.0
        while not stop.is_set() and (passed < seconds or step < 2):
            tokens, targets = batches.next()
            for name, run in runs.items():
                with _named(name):
                    run.step(tokens, targets, rate(passed / seconds, peak_rate))
            step, passed = step + 1, time.perf_counter() - begin
            losses = "  ".join(f"{name} {run.losses[-1]:.3f}" for name, run in runs.items())
            progress.update(task, completed=min(passed, seconds), state=f"step {step}  {losses}")
    return stop.is_set()


@contextmanager
def _interrupt(on_first: Callable[[], None]) -> Iterator[threading.Event]:
    """Ctrl-C sets the event, so that both models end at the same step; a second one ends the program."""
    stop = threading.Event()

    def on_interrupt(*_: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        on_first()

    if threading.current_thread() is not threading.main_thread():  # no other thread may handle signals
        yield stop
        return
    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


def _checked_device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        raise typer.BadParameter(f"--device {name}: expected cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise typer.BadParameter(f"--device {name}: expected cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise typer.BadParameter(f"--device {name}: torch sees {torch.cuda.device_count()} CUDA devices here")
    return device


def _check_numbers(seconds: float, vocab: int, text_mb: float) -> None:
    from .demo_text import SMALLEST_VOCAB

    if not 0 < seconds < float("inf"):
        raise typer.BadParameter(f"--seconds {seconds}: expected more than 0")
    if vocab < SMALLEST_VOCAB:
        raise typer.BadParameter(f"--vocab {vocab}: the 256 bytes and a mark for a file's end need {SMALLEST_VOCAB}")
    if vocab > LARGEST_VOCAB:
        raise typer.BadParameter(f"--vocab {vocab}: no standard library yields more than {LARGEST_VOCAB} entries")
    if not 0 < text_mb < float("inf"):
        raise typer.BadParameter(f"--text-mb {text_mb}: expected more than 0")


def _check_folder(out: Path) -> None:
    """Fail before the training, not after it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise typer.BadParameter(f"--out {out}: cannot write there ({error.strerror})") from None
