"""Determinism, bit for bit: a row does not know its neighbours, their number, the threads or the memory it got."""

import pytest
import torch
from lossk import linear_cross_entropy
from problem import FLOAT32_AND_HALVES, OPTIONS, each_dtype, each_reduction, random_problem
from tolerance import assert_identical

PER_CLASS = {"linear_weight", "linear_bias", "weight"}
each_option = pytest.mark.parametrize("option", ["plain", "everything_hard", "everything_soft"])


def select(problem, rows):
    """The problem of these rows alone."""
    return problem.with_(**{k: x[rows] for k, x in problem.tensors.items() if k not in PER_CLASS})


def per_row(problem):
    """Loss and gradient of each row, upstream the same for all so that neither depends on the row's place."""
    results = problem.gradients(linear_cross_entropy, upstream=1.25)
    return {name: x for name, x in results.items() if name.removeprefix("grad of ") not in PER_CLASS and x.dim()}


@each_dtype()
@each_option
@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_a_row_does_not_depend_on_the_other_rows(reduction, option, dtype, device):
    p = random_problem(450, 1003, 70, dtype, device=device, reduction=reduction, **OPTIONS[option])
    every = per_row(p)
    assert every.keys() >= {"grad of input"}
    for rows in ([0], [449], [17, 3, 400], range(383, 386), range(100, 450), torch.randperm(450).tolist()):
        rows = list(rows)
        for name, x in per_row(select(p, rows)).items():
            assert_identical(x, every[name][rows], f"{name}, rows {rows[:3]}...")


@each_dtype(only=FLOAT32_AND_HALVES)
def test_a_row_does_not_depend_on_what_the_others_hold(dtype, device):
    p = random_problem(100, 1003, 40, dtype, device=device, reduction="none")
    spoiled = p.tensors["input"].clone()
    spoiled[1::2] = torch.tensor([float("nan"), float("inf"), 1e4, 0.0]).repeat(10).to(spoiled)
    before, after = per_row(p), per_row(p.with_(input=spoiled))
    for name, x in before.items():
        assert_identical(after[name][::2], x[::2], name)


@each_dtype()
@each_option
@each_reduction
def test_thread_count(reduction, option, dtype):
    p = random_problem(450, 1003, 70, dtype, reduction=reduction, **OPTIONS[option])
    with threads(1):
        one = p.gradients(linear_cross_entropy)
    for count in (2, 3):
        with threads(count):
            several = p.gradients(linear_cross_entropy)
        for name, x in one.items():
            assert_identical(several[name], x, f"{name}, {count} threads")


class threads:
    def __init__(self, count):
        self.count = count

    def __enter__(self):
        self.before = torch.get_num_threads()
        torch.set_num_threads(self.count)

    def __exit__(self, *_):
        torch.set_num_threads(self.before)


@each_dtype()
@each_reduction
@each_option
def test_two_runs(option, reduction, dtype, device):
    p = random_problem(450, 1003, 70, dtype, device=device, reduction=reduction, **OPTIONS[option])
    first, second = p.gradients(linear_cross_entropy), p.gradients(linear_cross_entropy)
    for name, x in first.items():
        assert_identical(second[name], x, name)


@each_dtype(only=FLOAT32_AND_HALVES)
@each_reduction
@each_option
def test_a_loss_is_the_same_with_and_without_gradients(option, reduction, dtype, device):
    p = random_problem(450, 1003, 70, dtype, device=device, reduction=reduction, **OPTIONS[option])
    with_gradients = p.gradients(linear_cross_entropy, frozen=["token_weight", "soft_weights"])
    assert_identical(with_gradients["loss"], p.values(linear_cross_entropy)["loss"])


@each_dtype(only=FLOAT32_AND_HALVES)
@each_reduction
@each_option
def test_poisoned_memory_does_not_show(option, reduction, dtype, device):
    p = random_problem(400, 1003, 40, dtype, device=device, reduction=reduction, **OPTIONS[option])
    clean = p.gradients(linear_cross_entropy)
    with poisoned_memory():
        poisoned = p.gradients(linear_cross_entropy)
    for name, x in clean.items():
        assert_identical(poisoned[name], x, name)


class poisoned_memory:
    """Every uninitialised tensor is nan."""

    def __enter__(self):
        torch.use_deterministic_algorithms(True)
        assert torch.empty(3).isnan().all()

    def __exit__(self, *_):
        torch.use_deterministic_algorithms(False)


def test_arguments_are_left_alone(device):
    p = random_problem(50, 203, 40, device=device, **OPTIONS["everything_hard"])
    before = p.map(torch.clone)
    p.gradients(linear_cross_entropy)
    for name, x in before.tensors.items():
        assert_identical(p.tensors[name], x, name)
