"""Stage `train`: the demo's language model, and what its vocabulary head sees at four moments."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from lossk import linear_logp
from lossk.cli.demo_model import BATCH, CONTEXT, Run, build, lossk_head, rate
from lossk.cli.demo_text import Batches, encode, held_out_windows, load_corpus, train_tokenizer
from rich.progress import track
from torch import Tensor

from bench.problems import sample_targets

CPU = torch.device("cpu")
WINDOWS = 16  # of CONTEXT held-out tokens each: 4096 rows
PEAKED_NATS = 2.7


class Text(NamedTuple):
    train: Tensor  # int64 [tokens]
    held_out: Tensor
    vocab: int


class Batch(NamedTuple):
    """One batch at the head; rows of `hidden` are in the order of the text."""

    hidden: Tensor  # [N, D] float32
    weight: Tensor  # [V, D] float32
    target: Tensor  # [N] int64
    about: str


def read(megabytes: float, vocab: int) -> Text:
    corpus = load_corpus(megabytes)
    tokenizer = train_tokenizer(corpus.train, vocab)
    return Text(encode(tokenizer, corpus.train), encode(tokenizer, corpus.held_out), tokenizer.get_vocab_size())


def train(cache: Path, megabytes: float, vocab: int, steps: int, seed: int) -> dict[str, Any]:
    text = read(megabytes, vocab)
    run = Run(build(text.vocab, seed, CPU), lossk_head, torch.bfloat16)
    batches = Batches(text.train, BATCH, CONTEXT, seed, CPU)
    tokens, targets = held_out_windows(text.held_out, WINDOWS, CONTEXT, CPU)

    def seen_by_the_head() -> Batch:
        with torch.no_grad():
            hidden = run.model(tokens)
        about = f"{len(run.losses)} of {steps} steps"
        return Batch(hidden, run.model.embedding.weight.detach().clone(), targets.flatten(), about)

    kept = {"init": seen_by_the_head()}
    for step in track(range(steps), "training"):
        if step == steps // 8:
            kept["early"] = seen_by_the_head()
        run.step(*batches.next(), rate(step / steps))
    kept["trained"] = seen_by_the_head()
    kept["peaked"] = peaked(kept["trained"], seed)
    cache.mkdir(parents=True, exist_ok=True)
    for name, batch in kept.items():
        torch.save(batch._asdict(), cache / f"{name}.pt")
    return {"steps": steps, "seed": seed, "megabytes": megabytes, "tokens": len(text.train), "vocab": text.vocab}


def peaked(batch: Batch, seed: int) -> Batch:
    """Sharper rows than a small model has: longer hidden states, and targets drawn from the softmax they give.

    The factor is the smallest power of 1.05 at which such targets are expected to cost at most PEAKED_NATS.
    """
    factor = 1.0
    while linear_logp(*batch[:3], temperature=1 / factor).entropy.mean() > PEAKED_NATS:
        factor *= 1.05
    hidden = factor * batch.hidden
    about = f"trained, hidden states times {factor:.2f}, targets drawn from the model"
    return Batch(hidden, batch.weight, sample_targets(hidden, batch.weight, "peaked", seed), about)


def load(cache: Path) -> dict[str, Batch]:
    return {name: Batch(**torch.load(cache / f"{name}.pt")) for name in ("init", "early", "trained", "peaked")}
