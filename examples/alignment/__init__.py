"""Reinforcement learning, preferences and distillation on a small language model, with lossk's heads."""
