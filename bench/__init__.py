"""Benchmarks: time in units of a matmul of the same run, and peak memory, of lossk and every peer that runs here."""
