"""Divergences of two heads in plain torch, with both logits in memory; shapes and dtypes as in head.py."""

import math

import torch
import torch.nn.functional as F

from .head import logits


def of_logits(z, u, kind, beta):
    """The divergence of z [..., V] from the teacher's u [..., V], each [...]."""
    logp, logq = z.log_softmax(-1), u.log_softmax(-1)
    p, q = logp.exp(), logq.exp()
    logm = torch.logaddexp(logq + math.log(beta), logp + math.log(1 - beta)) if 0 < beta < 1 else None
    kl = lambda a, b: F.kl_div(b, a, log_target=True, reduction="none")  # noqa: E731  # a log(a / b)
    terms = {
        "forward_kl": lambda: kl(logq, logp),
        "reverse_kl": lambda: kl(logp, logq),
        "jsd": lambda: beta * kl(logq, logm) + (1 - beta) * kl(logp, logm),
        "skew_kl": lambda: kl(logq, logm),
        "alpha": lambda: (beta * q + (1 - beta) * p - (beta * logq + (1 - beta) * logp).exp()) / (beta * (1 - beta)),
        "tvd": lambda: (p - q).abs() / 2,
        "logit_mse": lambda: (z - u) ** 2,
        "bernoulli_kl": lambda: (
            u.sigmoid() * (F.logsigmoid(u) - F.logsigmoid(z)) + (-u).sigmoid() * (F.logsigmoid(-u) - F.logsigmoid(-z))
        ),
        "log_cosh": lambda: F.softplus(z - u) - (z - u) / 2 - F.softplus(0 * z),
    }
    return terms[kind]().sum(-1)


def linear_divergence(
    input, linear_weight, teacher_input, teacher_linear_weight, *, kind="forward_kl", beta=0.5, temperature=1.0,
    teacher_temperature=None, linear_bias=None, teacher_linear_bias=None, softcap=None, teacher_softcap=None,
    token_weight=None, mask=None, reduction="mean", train_teacher=False,
):  # fmt: skip
    z = logits(input, linear_weight, linear_bias, 1 / temperature, softcap)
    temperature = temperature if teacher_temperature is None else teacher_temperature
    u = logits(teacher_input, teacher_linear_weight, teacher_linear_bias, 1 / temperature, teacher_softcap)
    loss = of_logits(z, u if train_teacher else u.detach(), kind, beta)
    loss = loss if token_weight is None else loss * token_weight.to(loss.dtype)
    if mask is not None:
        loss = loss.where(mask, 0)
    if reduction == "none":
        return loss
    return loss.sum() / (loss.numel() if mask is None else mask.sum()) if reduction == "mean" else loss.sum()
