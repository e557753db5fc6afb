"""The demo's language model, pretrained on Python's own source: sampling from it, and its tokens' log-probabilities."""

from typing import NamedTuple

import torch
from lossk import LogP, linear_logp, linear_sample
from lossk.cli.demo_model import Run, SmallLM, build, lossk_head, rate
from lossk.cli.demo_text import Batches, encode, load_corpus, train_tokenizer
from torch import Tensor

CPU = torch.device("cpu")


class Pretrained(NamedTuple):
    model: SmallLM
    stream: Tensor  # int64 [tokens], what it has read
    words: list[str]  # of each token


def pretrain(*, megabytes=1.0, vocab=1024, steps=150, batch=8, context=64, seed=0) -> Pretrained:
    texts = load_corpus(megabytes).train
    tokenizer = train_tokenizer(texts, vocab)
    stream = encode(tokenizer, texts)
    run = Run(build(tokenizer.get_vocab_size(), seed, CPU), lossk_head, torch.float32)
    batches = Batches(stream, batch, context, seed, CPU)
    for step in range(steps):
        run.step(*batches.next(), rate(step / steps))
    words = [tokenizer.decode([i]) for i in range(tokenizer.get_vocab_size())]
    return Pretrained(run.model, stream, words)


def score(model: SmallLM, tokens: Tensor, prompt: int) -> LogP:
    """Of the tokens [B, T] after the prompt, each [B, T - prompt], differentiable; no logits are made."""
    hidden = model(tokens[:, :-1]).unflatten(0, (len(tokens), -1))[:, prompt - 1 :]
    return linear_logp(hidden, model.embedding.weight, tokens[:, prompt:])


@torch.no_grad()
def sample(model: torch.nn.Module, prompts: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """prompts [B, P] with `count` tokens more, drawn from the model: [B, P + count]."""
    tokens = prompts
    for _ in range(count):
        last = model(tokens).unflatten(0, (len(tokens), -1))[:, -1]
        token = linear_sample(last, model.embedding.weight, generator=generator).token
        tokens = torch.cat([tokens, token[:, None]], 1)
    return tokens


def windows(stream: Tensor, count: int, length: int, generator: torch.Generator) -> Tensor:
    starts = torch.randint(len(stream) - length, (count, 1), generator=generator)
    return stream[starts + torch.arange(length)]
