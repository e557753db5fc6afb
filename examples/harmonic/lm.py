"""A small language model with its embedding as the head: by cross-entropy, and by distances to the same vectors."""

from functools import partial
from statistics import median
from typing import Any

import torch
from lossk import linear_cross_entropy
from lossk.cli.demo_model import DIM, Head, Run, SmallLM, build, rate
from lossk.cli.demo_text import Batches, encode, held_out_windows, load_corpus, train_tokenizer
from lossk.nn import HarmonicHead
from rich.progress import track
from torch import Tensor

from bench.memory import peak_mib

CPU = torch.device("cpu")
CONTEXT, BATCH, WINDOWS = 64, 8, 64
CURVE = 5  # steps in a point of a training curve


def harmonic(model: SmallLM, exponent: float) -> Head:
    """Tied to the model's embedding."""
    head = HarmonicHead(DIM, model.embedding.num_embeddings, exponent=exponent)
    head.weight = model.embedding.weight
    return lambda h, w, y: head(h, y)  # w is its own


# Features of a LayerNorm have |x|^2 = D and the vectors are short: -e/2 log d^2 is e/D x.w then, and what all share.
# Hence a scale of 2 beside the exponent 2 D: does training gain by the distances, or by sharper logits?
HEADS = {
    "cross-entropy": lambda model: linear_cross_entropy,
    "cross-entropy, scale 2": lambda model: partial(linear_cross_entropy, scale=2.0),
    "harmonic, exponent √D": lambda model: harmonic(model, DIM**0.5),
    "harmonic, exponent D": lambda model: harmonic(model, DIM),
    "harmonic, exponent 2 D": lambda model: harmonic(model, 2 * DIM),
}


def run(*, megabytes: float, vocab: int, steps: int, seed: int = 0) -> dict[str, Any]:
    corpus = load_corpus(megabytes)
    tokenizer = train_tokenizer(corpus.train, vocab)
    train, held_out = (encode(tokenizer, texts) for texts in (corpus.train, corpus.held_out))
    vocab = tokenizer.get_vocab_size()
    validation = held_out_windows(held_out, WINDOWS, CONTEXT, CPU)
    batches = Batches(train, BATCH, CONTEXT, seed, CPU)
    runs = {}
    for name, of in HEADS.items():
        model = build(vocab, seed, CPU)
        runs[name] = Run(model, of(model), torch.float32)
    batch = batches.next()
    peaks = {name: peak(run, *batch) for name, run in runs.items()}
    for step in track(range(steps), "language models"):
        batch = batches.next()
        for run in runs.values():
            run.step(*batch, rate(step / steps))
    heads = {
        name: {
            "held_out_loss": evaluate(run, *validation),
            "step_ms": 1e3 * median(run.step_seconds),
            "head_ms": 1e3 * median(run.head_seconds),
            "head_mib": peaks[name],
            "curve": [sum(part) / len(part) for part in zip(*[iter(run.losses)] * CURVE)],
        }
        for name, run in runs.items()
    }
    sizes = {"vocab": vocab, "dim": DIM, "rows": BATCH * CONTEXT, "steps": steps, "tokens": len(train)}
    return sizes | {"held_out_tokens": validation[1].numel(), "curve_steps": CURVE, "heads": heads}


def peak(run: Run, tokens: Tensor, targets: Tensor) -> float:
    """MiB that a forward and backward of the head take beside its inputs, gradients included."""
    with torch.no_grad():
        h = run.hidden(tokens)
    h, w, y = h.requires_grad_(), run.model.embedding.weight, targets.flatten()

    def call() -> None:
        run.head(h, w, y).backward()
        h.grad = w.grad = None

    call()  # thread pools and code that stay are not the batch's
    return peak_mib(call)


@torch.no_grad()
def evaluate(run: Run, tokens: Tensor, targets: Tensor) -> float:
    """Mean loss in nats per token by the head itself, one window at a time."""
    windows = zip(tokens.split(1), targets.split(1))
    losses = [run.head(run.model(x), run.model.embedding.weight, y.flatten()).item() for x, y in windows]
    return sum(losses) / len(losses)
