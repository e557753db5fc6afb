"""Divergences between a head and its teacher, both without logits; z, shapes and dtypes as in head.py."""

import torch

from . import _arguments, _check
from ._compare_ops import divergence

KINDS = ("forward_kl", "reverse_kl", "jsd", "skew_kl", "alpha", "tvd", "logit_mse", "bernoulli_kl", "log_cosh")
WITH_BETA = ("jsd", "skew_kl", "alpha")
LEAST_BETA = 1e-6  # float32 knows no 1 - 1e-8


def linear_divergence(
    input,
    linear_weight,
    teacher_input,
    teacher_linear_weight,
    *,
    kind="forward_kl",
    beta=0.5,
    temperature=1.0,
    teacher_temperature=None,
    linear_bias=None,
    teacher_linear_bias=None,
    softcap=None,
    teacher_softcap=None,
    token_weight=None,
    mask=None,
    reduction="mean",
    train_teacher=False,
):
    """Divergence of a linear head from another on the same tokens: distillation without either's logits.

    z = softcap((input linear_weight^T + linear_bias) / temperature), u the teacher's, p = softmax(z), q = softmax(u),
    m = beta q + (1 - beta) p. Per token, in nats:

    forward_kl    sum q log(q / p)                       skew_kl  sum q log(q / m)
    reverse_kl    sum p log(p / q)                       jsd      beta sum q log(q / m) + (1 - beta) sum p log(p / m)
    tvd           sum |p - q| / 2                        alpha    (1 - sum q^beta p^(1 - beta)) / (beta (1 - beta))
    logit_mse     sum (z - u)^2                          log_cosh sum log cosh((z - u) / 2)
    bernoulli_kl  sum of the divergences of the coins sigmoid(z) from the coins sigmoid(u)

    input [..., D], linear_weight [V, D]; teacher_input [..., D'], teacher_linear_weight [V, D'], of another width and
    dtype if they like; the biases [V]; temperatures numbers > 0 or [...], the teacher's the student's where None;
    token_weight [...] of any sign; mask [...] bool: tokens that do not count are False, and cost nothing; beta, of jsd,
    skew_kl and alpha, in (0, 1) and at least 1e-6 from its ends. Nothing is multiplied by temperature^2, which keeps
    gradients at their size (Hinton et al. 2015, arXiv:1503.02531, section 2.1).

    Returns float32 (float64): a scalar, or [...] for reduction 'none'; 'mean' divides by the number of tokens that
    count, and is nan where none does. Gradients to input, linear_weight, linear_bias, temperature and token_weight; to
    the teacher's only with train_teacher=True, which costs as much again. Products with the vocabulary: 2 forward, 4
    backward; jsd, skew_kl, alpha and tvd, which need both normalisers first, 2 more. A teacher that is a list of its
    largest probabilities: linear_cross_entropy(soft_target=).

    Errors: ValueError, TypeError on wrong shapes, dtypes, devices, vocabularies and options; RuntimeError on a second
    derivative. Sources: jsd Agarwal et al. 2023, On-Policy Distillation, arXiv:2306.13649; skew_kl Ko et al. 2024,
    DistiLLM, arXiv:2402.03898; log_cosh and bernoulli_kl Yang et al. 2024, Dual-Head Knowledge Distillation,
    arXiv:2411.08937.
    """
    op = "linear_divergence"
    if kind not in KINDS:
        raise ValueError(f"{op}: kind must be one of {list(KINDS)}, got {kind!r}")
    _check.number(op, "beta", beta)
    if kind in WITH_BETA and not LEAST_BETA <= beta <= 1 - LEAST_BETA:
        raise ValueError(
            f"{op}: beta must be in [{LEAST_BETA}, 1 - {LEAST_BETA}] for {kind}, got {beta}; at the ends use "
            "forward_kl or reverse_kl"
        )
    _check.reduction(op, reduction)
    scale = _arguments.one_over(op, "temperature", temperature)
    student = _arguments.head(op, input, linear_weight, linear_bias, scale, softcap, "temperature")
    scale = 1.0 if teacher_temperature is None else _arguments.one_over(op, "teacher_temperature", teacher_temperature)
    taught_by = (teacher_input, teacher_linear_weight, teacher_linear_bias, scale, teacher_softcap)
    teacher = _arguments.head(op, *taught_by, "teacher_temperature", prefix="teacher_")
    _arguments.same_rows_and_vocabulary(op, student, teacher)
    if teacher_temperature is None:
        teacher = teacher._replace(scale=student.scale)
    if not train_teacher:
        teacher = teacher._replace(
            **{name: x.detach() for name, x in zip(teacher._fields[:4], teacher) if x is not None}
        )
    active = None
    if mask is not None:
        _check.tensor(op, "mask", mask)
        if mask.dtype != torch.bool:
            raise TypeError(f"{op}: mask must be a bool tensor, got {mask.dtype}")
        _check.sized(op, "mask", mask, student.shape, student.input)
        active = mask.reshape(-1)
    loss = divergence(student, teacher, active, kind, beta)
    if token_weight is not None:
        _check.floats(op, "token_weight", token_weight, student.shape, student.input)
        weight = token_weight.reshape(-1).to(student.acc)
        loss = loss * (weight if active is None else torch.where(active, weight, 0))
    if reduction == "none":
        return loss.view(student.shape)
    return loss.sum() / (loss.numel() if active is None else active.sum()) if reduction == "mean" else loss.sum()
