"""Modules: a head that owns its weight and returns the loss."""

import math

import torch

from .head import linear_cross_entropy


class LinearCrossEntropyLoss(torch.nn.Module):
    """A vocabulary projection and its cross-entropy in one; the logits never exist.

    loss = cross_entropy(softcap(scale (input weight^T + bias)), target); every option of
    lossk.linear_cross_entropy. weight [num_classes, in_features], bias [num_classes] or None.
    forward(input [..., in_features], target [...], **per_token) -> loss in float32; per_token: token_weight,
    soft_target, scale.

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
