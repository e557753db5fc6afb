"""Text that every machine has: the source of Python's own standard library, as tokens.

Files are taken in the order of the SHA-256 of their content, so that a small sample is a fair one, and every tenth is
held out whole. Equal files are read once, hence no text is on both sides.
"""

import hashlib
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

FILE_END = "<|file_end|>"
SMALLEST_VOCAB = 256 + 1  # all bytes, FILE_END
HELD_OUT_EVERY = 10
NOT_OURS = {"site-packages", "dist-packages", "__pycache__"}


class TooLittleText(Exception):
    """The text found cannot fill the request; the message says why."""


@dataclass(frozen=True)
class Corpus:
    train: list[str]
    held_out: list[str]

    @property
    def files(self) -> int:
        return len(self.train) + len(self.held_out)

    @property
    def megabytes(self) -> float:
        return sum(len(text) for text in self.train + self.held_out) / 1e6


def standard_library() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def load_corpus(megabytes: float, root: Path | None = None) -> Corpus:
    """Up to `megabytes` of Python source under `root` (default: the standard library)."""
    root = root or standard_library()
    contents: dict[str, bytes] = {}
    for path in root.rglob("*.py"):
        if not NOT_OURS.intersection(path.relative_to(root).parts):
            try:
                content = path.read_bytes()
            except OSError:
                continue
            contents[hashlib.sha256(content).hexdigest()] = content

    texts: list[str] = []
    room = megabytes * 1e6
    for _, content in sorted(contents.items()):
        if len(content) <= room:
            room -= len(content)
            texts.append(content.decode("utf-8", errors="replace"))
    if not contents:
        raise TooLittleText(f"no Python source under {root}")
    if len(texts) < 2:
        raise TooLittleText(f"{megabytes} MB of text are not two files: raise --text-mb")
    held_out = texts[::HELD_OUT_EVERY]
    return Corpus([text for rank, text in enumerate(texts) if rank % HELD_OUT_EVERY], held_out)


def train_tokenizer(texts: Iterable[str], vocab: int) -> Tokenizer:
    """Byte-level BPE with at most `vocab` entries; fewer where the text has no more pairs to merge."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[FILE_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def encode(tokenizer: Tokenizer, texts: list[str]) -> Tensor:
    """All texts one after the other, FILE_END after each: int64 [tokens]."""
    file_end = tokenizer.token_to_id(FILE_END)
    ids = [token for encoded in tokenizer.encode_batch_fast(texts) for token in (*encoded.ids, file_end)]
    return torch.tensor(ids, dtype=torch.int64)


class Batches:
    """The same random windows for everyone who asks with the same seed: `(tokens, targets)`, int64 [batch, context]."""

    def __init__(self, stream: Tensor, batch: int, context: int, seed: int, device: torch.device) -> None:
        if len(stream) <= context + 1:
            raise TooLittleText(f"{len(stream)} tokens of text cannot fill a context of {context}: raise --text-mb")
        self.stream, self.batch, self.context, self.device = stream, batch, context, device
        self.generator = torch.Generator().manual_seed(seed)

    def next(self) -> tuple[Tensor, Tensor]:
        starts = torch.randint(len(self.stream) - self.context, (self.batch,), generator=self.generator)
        return _windows(self.stream, starts, self.context, self.device)


def held_out_windows(stream: Tensor, windows: int, context: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """At most `windows` windows that do not overlap, spread evenly over the whole stream."""
    windows = min(windows, (len(stream) - 1) // context)
    if windows < 1:
        raise TooLittleText(f"{len(stream)} held-out tokens cannot fill a context of {context}: raise --text-mb")
    stride = (len(stream) - 1) // windows
    return _windows(stream, torch.arange(windows) * stride, context, device)


def _windows(stream: Tensor, starts: Tensor, context: int, device: torch.device) -> tuple[Tensor, Tensor]:
    rows = stream[starts[:, None] + torch.arange(context + 1)].to(device)
    return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()
