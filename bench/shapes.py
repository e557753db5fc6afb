"""Vocabulary heads by the name of their model, and the work a head's cross-entropy needs."""

from typing import NamedTuple


class Shape(NamedTuple):
    """A head [v, d] and the n rows it is measured with."""

    n: int
    d: int
    v: int
    reason: str


SHAPES = {
    # Small enough that a suite ends on two CPU cores.
    "cpu-reference": Shape(2048, 768, 32768, "a GPT-2 sized head: every goal for a CPU is stated on it"),
    "cpu-short": Shape(1024, 512, 16384, "the regression guard: a round of all cases takes seconds"),
    "gpt2": Shape(2048, 768, 50257, "odd V, small D"),
    "phi-3.5-mini": Shape(8192, 3072, 32064, "small V, not a multiple of 128"),
    # Large heads.
    "gemma-2-2b": Shape(8192, 2304, 256000, "the shape of the cut-cross-entropy paper"),
    "llama-3-8b": Shape(8192, 4096, 128256, "the usual headline shape"),
    "qwen2.5-7b": Shape(8192, 3584, 152064, "D not a power of two"),
    "qwen3-8b": Shape(8192, 4096, 151936, "V a multiple of 128, not of 256"),
    "qwen3.5-35b-a3b": Shape(8192, 2048, 248320, "small D under a large V: the epilogue weighs most"),
    "gpt-oss-20b": Shape(8192, 2880, 201088, "D not a multiple of 128"),
    "mistral-nemo": Shape(8192, 5120, 131072, "large D"),
    "deepseek-v3": Shape(8192, 7168, 129280, "largest D"),
    "gemma-3-27b": Shape(8192, 5376, 262144, "largest V: the weight alone is 2.6 GiB in bf16"),
    "reference": Shape(8192, 4096, 131072, "all powers of two: published tables use it"),
}


def cce_work(shape: Shape, itemsize: int, backward: bool) -> dict[str, int]:
    """FLOP the mathematics needs, bytes that must be moved at least, and bytes of the logits nobody needs to store.

    One product of [n, d] by [d, v] is 2 n d v FLOP; the two gradients are one more each, so a forward is one matmul
    time at best and a forward with backward three, or four where the logits are computed again.
    """
    n, d, v, _ = shape
    operands = (n * d + v * d) * itemsize
    return {
        "flop": 2 * n * d * v * (3 if backward else 1),
        "bytes": operands * (2 if backward else 1),
        "logits_bytes": n * v * 4,
    }
