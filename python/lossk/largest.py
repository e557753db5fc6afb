"""The largest logits of a head, ranks, ranges and samples, none with logits in memory; z as in head.py."""

from typing import NamedTuple

import torch

from . import _arguments, _check
from ._compare_ops import pairwise_sums
from ._head_ops import STATS
from .stats import statistics

MOST = 128


class TopK(NamedTuple):
    values: torch.Tensor
    indices: torch.Tensor
    lse: torch.Tensor


class Range(NamedTuple):
    min: torch.Tensor
    max: torch.Tensor


class Sample(NamedTuple):
    token: torch.Tensor
    logp: torch.Tensor


@torch.no_grad()
def linear_topk(input, linear_weight, k, *, linear_bias=None, scale=1.0, softcap=None):
    """The k largest logits of each token and which they are: TopK(values [..., k], indices [..., k], lse [...]).

    Descending, of equal logits the smaller index first, nan before all, as torch.topk; log p of an entry is its value
    less lse. input [..., D], linear_weight [V, D], 1 <= k <= min(V, 128). No gradient: for one give the indices to
    linear_stats. One product. Errors as linear_cross_entropy.
    """
    op = "linear_topk"
    h = _arguments.head(op, input, linear_weight, linear_bias, scale, softcap)
    most = min(MOST, linear_weight.shape[0])
    if isinstance(k, bool) or not isinstance(k, int):
        raise TypeError(f"{op}: k must be an int in [1, {most}], got {type(k).__name__}")
    if not 1 <= k <= most:
        raise ValueError(f"{op}: k must be in [1, {most}], the lesser of {MOST} and the vocabulary, got {k}")
    values, indices, lse = torch.ops.lossk.linear_topk(*h[:4], None, h.softcap, k)
    return TopK(values.view(*h.shape, k), indices.view(*h.shape, k), lse.view(h.shape))


@torch.no_grad()
def linear_rank(input, linear_weight, target, *, linear_bias=None, scale=1.0, softcap=None, ignore_index=-100):
    """How many columns have a larger logit than the target, [...] int64: 0 is the best; -1 where target is ignored.

    input [..., D], linear_weight [V, D], target [...] int64. Two products, of which the first finds the target's logit
    with the rounding of the second. Errors as linear_cross_entropy; on a GPU a target out of range has the rank -1.
    """
    op = "linear_rank"
    h = _arguments.head(op, input, linear_weight, linear_bias, scale, softcap)
    index, _ = _arguments.targets(op, h, linear_weight.shape[0], target, None, ignore_index, 0.0)
    active = index[:, 0] >= 0
    logits = statistics(op, h, index, None, active, full=False)[1]
    above = pairwise_sums(h, logits[:, 0], index[:, 0].contiguous(), active, kind="above")
    known = active & (index[:, 0] < linear_weight.shape[0])
    return torch.where(known, above.long(), -1).view(h.shape)


@torch.no_grad()
def linear_range(input, linear_weight, *, linear_bias=None, scale=1.0, softcap=None):
    """Smallest and largest logit of each token: Range(min [...], max [...]), without gradient, by one product.

    The radius within which a step is safe is pi / (max - min) of the directional derivative's logits
    (lossk.tokens.step_radius). Arguments and errors as linear_stats.
    """
    op = "linear_range"
    h = _arguments.head(op, input, linear_weight, linear_bias, scale, softcap)
    rows = dict(zip(STATS, statistics(op, h, None, None, None, full=True)[0].unbind()))
    return Range(rows["min"].view(h.shape), rows["max"].view(h.shape))


@torch.no_grad()
def linear_sample(
    input, linear_weight, *, temperature=1.0, top_h=None, linear_bias=None, softcap=None, generator=None
):  # fmt: skip
    """A token of each row drawn from softmax(z), z = softcap((input linear_weight^T + linear_bias) / temperature), and
    its log-probability: Sample(token [...] int64, logp [...]).

    By Gumbel noise that is a function of a seed, the row and the column, so nothing of size V is kept, and a generator
    in the same state draws the same tokens, on a CPU and on a GPU alike but where two sums are within rounding.
    One product. temperature: a number > 0 or [...]; generator: of the input's device, torch's own where None.

    top_h in (0, 1]: of the 100 largest probabilities only the longest prefix whose entropy, sum -p log p, is at most
    top_h times that of all hundred, the first one always; token and logp are of the distribution over what is left.
    Source: Potraghloo et al. 2025, Top-H Decoding, arXiv:2509.02510 (theirs is 0.4).

    Errors as linear_cross_entropy; the vocabulary must not be empty.
    """
    op = "linear_sample"
    scale = _arguments.one_over(op, "temperature", temperature)
    h = _arguments.head(op, input, linear_weight, linear_bias, scale, softcap, "temperature")
    vocab = linear_weight.shape[0]
    if vocab == 0:
        raise ValueError(f"{op}: linear_weight must have rows, got {list(linear_weight.shape)}")
    # torch.Generator("cuda") has no index, and torch takes it for any.
    if generator is not None and generator.device not in (h.input.device, torch.device(h.input.device.type)):
        raise ValueError(f"{op}: generator must be on input's device {h.input.device}, got {generator.device}")
    if top_h is not None:
        _check.number(op, "top_h", top_h, 0, 1, "None or a number in (0, 1]")
        if top_h == 0:
            raise ValueError(f"{op}: top_h must be None or a number in (0, 1], got {top_h}")
        token, logp = _of_top(h, min(vocab, 100), top_h, generator)
    else:
        seed = torch.randint(2**63 - 1, (1,), dtype=torch.int64, device=h.input.device, generator=generator)
        token, logp = torch.ops.lossk.linear_sample(*h[:4], h.softcap, seed)
    return Sample(token.view(h.shape), logp.view(h.shape))


def _of_top(h, k, top_h, generator):
    values, indices, lse = torch.ops.lossk.linear_topk(*h[:4], None, h.softcap, k)
    logp = values - lse[:, None]
    entropy = torch.special.entr(logp.exp()).cumsum(-1)  # 0 of what is ruled out
    keep = entropy <= top_h * entropy[:, -1:]
    keep[:, 0] = True
    logp = values.masked_fill(~keep, -torch.inf).log_softmax(-1)
    # A row with nan has nan for its logp and any token, as without top_h.
    p = torch.where(logp.isnan().any(-1, keepdim=True), 1.0, logp.exp())
    choice = torch.multinomial(p, 1, generator=generator)
    return indices.gather(1, choice), logp.gather(1, choice)
