"""The one timer: every contender in turn, round by round, in one process.

A clock that drifts, a neighbour that wakes up or a core that gets hot then meets all contenders alike, and their ratio
within a round stays. Times are wall seconds; ratios are medians over rounds.
"""

import statistics
import time
from collections.abc import Callable, Mapping


class Rounds:
    """Runs of several contenders, in an order rotated by one place each round.

    `before()`, `target()` and `after()` make one round: those ahead of the target in its order, the target, and the
    rest. Thus pytest-benchmark can time the target (`pedantic(target, setup=before, teardown=after)`) while its
    neighbours are timed around it. `seconds[name]` has one entry a round.
    """

    def __init__(self, runs: Mapping[str, Callable[[], object]], target: str):
        if target not in runs:
            raise ValueError(f"Rounds: target must be one of {sorted(runs)}, got {target!r}")
        self.runs, self.name = dict(runs), target
        self.seconds: dict[str, list[float]] = {name: [] for name in runs}
        self._round = 0

    def _time(self, name: str) -> None:
        run = self.runs[name]
        start = time.perf_counter()
        run()
        self.seconds[name].append(time.perf_counter() - start)

    def _order(self) -> tuple[list[str], int]:
        names = list(self.runs)
        k = self._round % len(names)
        order = names[k:] + names[:k]
        return order, order.index(self.name)

    def before(self) -> None:
        order, at = self._order()
        for name in order[:at]:
            self._time(name)

    def target(self) -> None:
        self._time(self.name)

    def after(self) -> None:
        order, at = self._order()
        for name in order[at + 1 :]:
            self._time(name)
        self._round += 1


def interleave(runs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each contender in each of `rounds` interleaved rounds; one more, before them, warms up."""
    timer = Rounds(runs, next(iter(runs)))
    for run in runs.values():
        run()
    for _ in range(rounds):
        timer.before()
        timer.target()
        timer.after()
    return timer.seconds


def ratio(seconds: list[float], base: list[float]) -> float:
    """Median over the rounds of one contender's time over another's in the same round."""
    return statistics.median(a / b for a, b in zip(seconds, base, strict=True))


def spread(seconds: list[float]) -> float:
    """Half the interquartile range over the median: how far to trust a time. 0 for fewer than four rounds."""
    if len(seconds) < 4:
        return 0.0
    low, middle, high = statistics.quantiles(seconds, n=4)
    return (high - low) / 2 / middle
