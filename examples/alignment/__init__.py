"""Reinforcement learning and preferences on a small language model, by lossk.linear_logp and lossk.policy."""
