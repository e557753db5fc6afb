"""Distances that no product gives, in plain torch with all differences [..., V, D] in memory."""


def distance(input, weight, kind, p=1.0, row_term=None, column_term=None):
    """d [..., V] of input [..., D] from each of weight [V, D], delta = x - w:

    manhattan          sum |delta|                     canberra           sum |delta| / (|x| + |w| + p)
    bray_curtis        the same / S                    canberra_robust    sum |delta| / max(|x| + |w|, p)
    chebyshev          max |delta|                     canberra_weighted  sum |delta| s^(p-1) / sum s^p
    smooth_chebyshev   log(sum e^(p |delta|)) / p                         with s = |x| + |w| + 1e-4
    minkowski          (sum |delta|^p)^(1/p)

    S = row_term [...] + column_term [V]; bray_curtis_standard: max(|row_term + column_term| + p, 10 p). Slopes at
    delta = 0 are 0, also where they are infinite, of minkowski with p < 1 or at d = 0.
    """
    x, w = input.unsqueeze(-2), weight
    size = (x - w).abs()
    if kind == "chebyshev":
        return size.max(-1).values if size.shape[-1] else size.sum(-1)
    if kind == "smooth_chebyshev":
        return (p * size).logsumexp(-1) / p
    if kind == "minkowski":
        power = lambda x, p: x.where(x > 0, 1).pow(p).where(x > 0, x)  # noqa: E731
        return power(power(size, p).sum(-1), 1 / p)
    if kind.startswith("canberra"):
        scale = x.abs() + w.abs()
        if kind == "canberra":
            return (size / (scale + p)).sum(-1)
        if kind == "canberra_robust":
            return (size / scale.clamp(min=p)).sum(-1)
        scale = scale + 1e-4
        return (size * scale ** (p - 1)).sum(-1) / (scale**p).sum(-1)
    if kind == "manhattan":
        return size.sum(-1)
    total = row_term.unsqueeze(-1) + column_term
    return size.sum(-1) / (total if kind == "bray_curtis" else (total.abs() + p).clamp(min=10 * p))


def logits(input, weight, target, kind, p=1.0, power=1.0, eps=1e-4, row_term=None, column_term=None):
    """z [..., V] = -power log((d^2 + eps) / (d_y^2 + eps)), d_y the distance of the target [...]."""
    square = distance(input, weight, kind, p, row_term, column_term).square() + eps
    return -power * (square / square.gather(-1, target.unsqueeze(-1))).log()
