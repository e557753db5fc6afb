"""Studies that use lossk; each folder says how to run it."""
