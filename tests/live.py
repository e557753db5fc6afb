"""What the tests of live columns share: the sketch that forward left, and the rule given it."""

import emulated
import torch
from lossk import linear_cross_entropy, reference
from problem import assert_matches
from torch.utils._python_dispatch import TorchDispatchMode


def list_rows(device):
    """Rows that share a list of columns: kListRows in cuda/head/live/params.h; on a CPU it is the block."""
    return 256 if emulated.replaced else 1024 if str(device).startswith("cuda") else 128


def rows_of_lists(device, *, ignored=0.0):
    """How many rows make two lists: a whole one, of blocks that together may have everything live, and most of a block,
    where something is dead on every device."""
    return round((list_rows(device) + 112) / (1 - ignored))


class Sketches(TorchDispatchMode):
    """Keeps what an op, linear_stats, leaves for a backward over live columns: its output number `place`."""

    def __init__(self, op=torch.ops.lossk.linear_stats.default, place=4):
        super().__init__()
        self.op, self.place, self.seen = op, place, []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **kwargs or {})
        if function is self.op:
            self.seen.append(result[self.place])
        return result


def sketch_of(problem):
    with Sketches() as sketches:
        linear_cross_entropy(**problem.leaves().arguments())
    assert len(sketches.seen) == 1
    return sketches.seen[0]


MISSING_FLOOR = 2.0**-18  # what a row's dead columns had is a difference: its error is that of the row's total


def check(problem, **how):
    """As good as torch would be with the same live columns."""
    sketch = sketch_of(problem)
    if problem.tensors["input"].dtype == torch.float32:
        how = {"floor": MISSING_FLOOR} | how

    rows = list_rows(sketch.device)

    def filtered(*args, **options):
        return reference.linear_cross_entropy(*args, sketch=sketch, list_rows=rows, **options)

    return assert_matches(problem, linear_cross_entropy, filtered, **how)
