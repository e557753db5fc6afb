"""Exponentials that stay finite."""

import math

import torch


def exponent(x):
    """x up to the logarithm of the root of its dtype's largest number, where it has no gradient any more.

    Where e^x is inf a product with 0 is nan: the gradient of a token that is clipped away, too.
    """
    return x.clamp(max=math.log(torch.finfo(x.dtype).max) / 2)


def bounded_exp(x):
    return exponent(x).exp()
