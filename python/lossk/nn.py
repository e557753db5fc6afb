"""Modules: a head that owns its weight and returns the loss."""

import math

import torch

from .harmonic import harmonic_logits, harmonic_loss
from .head import linear_cross_entropy


class LinearCrossEntropyLoss(torch.nn.Module):
    """A vocabulary projection and its cross-entropy in one; the logits never exist.

    loss = cross_entropy(softcap(scale (input weight^T + bias)), target); every option of
    lossk.linear_cross_entropy. weight [num_classes, in_features], bias [num_classes] or None.
    forward(input [..., in_features], target [...], **per_token) -> loss in float32; per_token: token_weight,
    soft_target, scale, and group, of which num_classes is then this rank's shard.

    Tie it to an embedding by assignment: loss.weight = embedding.weight.
    """

    def __init__(
        self,
        in_features,
        num_classes,
        *,
        bias=False,
        weight=None,
        ignore_index=-100,
        reduction="mean",
        label_smoothing=0.0,
        z_loss=0.0,
        softcap=None,
        scale=1.0,
        margin=0.0,
        shift=0,
        tau=None,
        fill=True,
        device=None,
        dtype=None,
    ):
        super().__init__()
        self.in_features, self.num_classes = in_features, num_classes
        self.weight = torch.nn.Parameter(torch.empty(num_classes, in_features, device=device, dtype=dtype))
        self.bias = torch.nn.Parameter(torch.empty(num_classes, device=device, dtype=dtype)) if bias else None
        self.register_buffer("class_weight", weight)
        self.options = {
            "ignore_index": ignore_index,
            "reduction": reduction,
            "label_smoothing": label_smoothing,
            "z_loss": z_loss,
            "softcap": softcap,
            "scale": scale,
            "margin": margin,
            "shift": shift,
            "tau": tau,
            "fill": fill,
        }
        self.reset_parameters()

    def reset_parameters(self):
        """As torch.nn.Linear."""
        bound = 1 / math.sqrt(self.in_features) if self.in_features > 0 else 0
        torch.nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            torch.nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, input, target=None, **per_token):
        return linear_cross_entropy(
            input, self.weight, target, linear_bias=self.bias, weight=self.class_weight, **{**self.options, **per_token}
        )

    def extra_repr(self):
        given = ", ".join(f"{name}={value}" for name, value in self.options.items())
        return f"in_features={self.in_features}, num_classes={self.num_classes}, bias={self.bias is not None}, {given}"


class HarmonicHead(torch.nn.Module):
    """Class centres and their harmonic probabilities: in the place of a model's last linear layer.

    p_v is proportional to (d(input, weight_v)^2 + eps)^(-exponent / 2); weight [num_classes, in_features] holds the
    centres, exponent is sqrt(in_features) where None, distance one of lossk.harmonic_loss's. For mahalanobis,
    precision "diagonal" learns the logarithm of a diagonal, "factor" a matrix F with P = F F^T; both begin at identity.
    metric: the distance's other options, {"p": 3.0}, {"variant": "robust"}, ...

    forward(input [..., in_features]) -> logits [..., num_classes] in float32, whose softmax is p: what a model's
    generate() wants of its lm_head. forward(input, target) -> the loss, without logits; `options` are harmonic_loss's
    (label_smoothing, floor, ignore_index, reduction, tau, ...), and may be given there anew.

    Tie it to an embedding by assignment: head.weight = embedding.weight.
    """

    def __init__(
        self,
        in_features,
        num_classes,
        *,
        distance="euclidean",
        exponent=None,
        eps=1e-6,
        precision=None,
        metric=None,
        device=None,
        dtype=None,
        **options,
    ):
        super().__init__()
        self.in_features, self.num_classes = in_features, num_classes
        self.distance, self.eps, self.metric, self.options = distance, eps, dict(metric or {}), options
        self.exponent = math.sqrt(max(in_features, 1)) if exponent is None else exponent
        self.weight = torch.nn.Parameter(torch.empty(num_classes, in_features, device=device, dtype=dtype))
        begin = {
            None: None,
            "diagonal": torch.zeros(in_features, device=device),
            "factor": torch.eye(in_features, device=device),
        }
        if precision not in begin:
            raise ValueError(f"HarmonicHead: precision must be None, 'diagonal' or 'factor', got {precision!r}")
        self.precision_form = precision
        self.precision = None if precision is None else torch.nn.Parameter(begin[precision])
        self.reset_parameters()

    def reset_parameters(self, std=None):
        """Centres from N(0, std^2); where std is None it is min(1, sqrt(in_features) / exponent).

        Logits of features as long as a LayerNorm makes them, sqrt(in_features), then vary by one half to one, whatever
        the exponent: neither uniform nor sure. (std is 1 at sqrt(D), and 1 / (2 sqrt(D)) at 2 D.) Shorter features, as
        pixels are, want shorter centres: their own deviation, or 1 / sqrt(D).
        """
        std = min(1.0, math.sqrt(max(self.in_features, 1)) / self.exponent) if std is None else std
        torch.nn.init.normal_(self.weight, std=std)

    def _head(self):
        head = {"distance": self.distance, "exponent": self.exponent, "eps": self.eps, **self.metric}
        if self.precision is not None:
            head["precision" if self.precision_form == "diagonal" else "precision_factor"] = self.precision
        return head

    def forward(self, input, target=None, **options):
        if target is None:
            return harmonic_logits(input, self.weight, **self._head())
        return harmonic_loss(input, self.weight, target, **self._head(), **{**self.options, **options})

    def extra_repr(self):
        head = f"in_features={self.in_features}, num_classes={self.num_classes}, distance={self.distance!r}"
        given = "".join(f", {name}={value}" for name, value in (self.metric | self.options).items())
        return f"{head}, exponent={self.exponent:g}, eps={self.eps}, precision={self.precision_form!r}{given}"
