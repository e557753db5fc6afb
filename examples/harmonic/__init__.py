"""Harmonic heads on three small problems: what their weights are, what they learn, and what they cost."""
