"""Inputs of a real model: its hidden states of held-out text and its head, as a head of any size.

A small language model is trained where the benches run, in half a minute, on the source of the torch that runs it.
Part of its vocabulary is in no text, as most of a large vocabulary is in no batch. A wider head is the model's own,
turned into more dimensions, which keeps every logit; a larger vocabulary has more of the idle entries.
"""

from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.gpu.check import FOLDER
from bench.gpu.families import Clock
from bench.problems import Problem
from bench.shapes import Shape

SPREAD = 0.25  # of one idle entry about another, in units of the length of both


class Plan(NamedTuple):
    dim: int
    layers: int
    heads: int
    context: int
    batch: int
    rate: float
    megabytes: float
    tokens: int  # of the vocabulary in the text
    idle: int  # the others
    steps: int
    rows: int  # kept


# No head of bench/shapes.py has fewer entries than tokens and idle ones; the steps go twice over the text.
FULL = Plan(768, 4, 12, 512, 32, 6e-4, 30, 28000, 4000, 800, 16384)
DRY = Plan(64, 1, 2, 32, 4, 3e-3, 0.3, 260, 20, 20, 128)


def plan(clock: Clock) -> Plan:
    return DRY if clock.dry else FULL


class Trained(NamedTuple):
    hidden: Tensor  # [rows, dim] bfloat16, in the order of the text
    weight: Tensor  # [tokens + idle, dim] bfloat16
    target: Tensor  # [rows] int64, the text's next tokens
    loss: float  # of these rows in nats


def train(how: Plan, device: torch.device) -> Trained:
    from lossk.cli import demo_model, demo_text  # here, for benches are imported before lossk is built

    size = demo_model.Size(*how[:6])
    corpus = demo_text.load_corpus(how.megabytes, Path(torch.__file__).parent)
    tokenizer = demo_text.train_tokenizer(corpus.train, how.tokens)
    batches = demo_text.Batches(demo_text.encode(tokenizer, corpus.train), size.batch, size.context, 0, device)
    # torch's head: inputs must not depend on what is measured with them.
    model = demo_model.build(how.tokens + how.idle, 0, device, size)
    run = demo_model.Run(model, demo_model.torch_head, torch.bfloat16)
    for step in range(how.steps):
        run.step(*batches.next(), demo_model.rate(step / how.steps, size.peak_rate))
    held_out = demo_text.encode(tokenizer, corpus.held_out)
    x, y = demo_text.held_out_windows(held_out, how.rows // size.context, size.context, device)
    target, weight = y.flatten(), model.embedding.weight.detach().bfloat16()
    with torch.no_grad():
        hidden = torch.cat([run.hidden(part) for part in x.split(4)])
        parts = zip(hidden.split(1024), target.split(1024), strict=True)
        loss = sum(F.cross_entropy((h @ weight.T).float(), t, reduction="sum").item() for h, t in parts)
    return Trained(hidden, weight, target, loss / len(hidden))


def load(how: Plan, device: torch.device, folder: Path) -> Trained:
    """The model that an earlier bench on this machine has trained, or one trained now."""
    path = folder / f"trained-{how.dim}-torch-{torch.__version__}.pt"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(train(how, device)._asdict(), path)
    return Trained(**torch.load(path, map_location=device))


def head(model: Trained, shape: Shape, idle: int) -> tuple[Tensor, Tensor]:
    """Hidden states [n, d] and weight [v, d] in float32; the first logits are the model's own.

    Entries beyond the model's own are its last `idle` ones over again, each a little off.
    """
    n, d, v, _ = shape
    (rows, dim), entries, device = model.hidden.shape, len(model.weight), model.hidden.device
    if n > rows or d < dim or v < entries:
        raise ValueError(f"head [{v}, {d}] for {n} rows: the model has {rows} rows and a head [{entries}, {dim}]")
    g = torch.Generator(device).manual_seed(0)
    weight = model.weight.float()
    more = weight[entries - idle + torch.randint(idle, (v - entries,), generator=g, device=device)]
    noise = torch.randn(more.shape, generator=g, device=device)
    more += SPREAD * more.norm(dim=1, keepdim=True) * noise / dim**0.5
    turn = torch.linalg.qr(torch.randn(d, dim, generator=g, device=device)).Q.T  # [dim, d], its rows orthonormal
    return model.hidden[:n].float() @ turn, torch.cat([weight, more]) @ turn


def make(clock: Clock, shape: Shape, dtype: torch.dtype) -> Problem:
    how = plan(clock)
    model = load(how, torch.device(clock.device), FOLDER)
    leaves = (x.to(dtype).requires_grad_() for x in head(model, shape, how.idle))
    upstream = torch.full((shape.n,), 1 / shape.n, device=clock.device)
    return Problem(*leaves, model.target[: shape.n], upstream)
