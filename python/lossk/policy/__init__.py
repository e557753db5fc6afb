"""Losses of policies and preferences, from the log-probabilities that lossk.linear_logp gives.

Token-level: logp, old_logp, reference_logp [..., T], advantage [...] (one of a sequence) or [..., T], mask [..., T] of
the tokens that count (None: all). Sequence-level: log-probabilities [...] summed over a sequence, sequence_logp.
"""

from .gradient import grpo, kl_estimate, reinforce, sequence_logp
from .preference import dpo, flat, implicit_prm, implicit_reward, npo

__all__ = [
    "dpo",
    "flat",
    "grpo",
    "implicit_prm",
    "implicit_reward",
    "kl_estimate",
    "npo",
    "reinforce",
    "sequence_logp",
]
