"""What only a GPU has: streams, captured graphs, other devices, calls that must not wait, memory that runs out."""

import lossk
import pytest
import torch
from lossk import linear_cross_entropy
from problem import random_problem
from tolerance import assert_identical

pytestmark = pytest.mark.cuda

each_backward = pytest.mark.parametrize("tau", [None, 2**-8], ids=["exact", "live"])


def step_of(problem):
    """The leaves, and a call that gives loss and gradients by them."""
    p = problem.leaves()
    leaves = [p.tensors["input"], p.tensors["linear_weight"]]

    def step():
        loss = linear_cross_entropy(**p.arguments())
        return (loss.detach(), *torch.autograd.grad(loss, leaves))

    return leaves, step


def a_problem(device, tau):
    return random_problem(300, 1003, 64, torch.bfloat16, device=device, tau=tau)


@each_backward
def test_a_captured_graph_follows_its_inputs(tau, device):
    leaves, step = step_of(a_problem(device, tau))
    aside = torch.cuda.Stream()
    with torch.cuda.stream(aside):
        step()  # what is made once, before the capture
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    for factor in (1.0, -0.5, 3.0):
        leaves[0].detach().mul_(factor)
        graph.replay()
        for got, want in zip(captured, step(), strict=True):
            assert_identical(got, want)


@each_backward
def test_work_is_on_the_current_stream(tau, device):
    leaves, step = step_of(a_problem(device, tau))
    x = leaves[0].detach()
    x.mul_(2)
    want = step()
    x.mul_(0.5)
    torch.cuda.synchronize()
    aside = torch.cuda.Stream()
    with torch.cuda.stream(aside):
        torch.cuda._sleep(20_000_000)  # what another stream starts sees the inputs as they are before
        x.mul_(2)
        got = step()
    aside.synchronize()
    for x, y in zip(got, want, strict=True):
        assert_identical(x, y)


@each_backward
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_the_host_does_not_wait(reduction, tau, device):
    leaves = a_problem(device, tau).with_(reduction=reduction).leaves()
    x, weight = leaves.tensors["input"], leaves.tensors["linear_weight"]
    upstream = torch.ones(300, device=device) if reduction == "none" else torch.tensor(1.0, device=device)

    def step():
        torch.autograd.grad(linear_cross_entropy(**leaves.arguments()), [x, weight], upstream)

    step()  # loads the kernels, which waits
    asleep = torch.cuda.Event()
    torch.cuda.set_sync_debug_mode("error")
    try:
        torch.cuda._sleep(400_000_000)  # a fifth of a second
        asleep.record()
        step()
        assert not asleep.query(), "something waited for the device"
    finally:
        torch.cuda.set_sync_debug_mode("default")
        torch.cuda.synchronize()


def test_a_device_that_is_not_the_current_one(device):
    last = f"cuda:{torch.cuda.device_count() - 1}"
    _, step = step_of(a_problem(last, None))
    with torch.cuda.device(0):
        got = step()
        assert torch.cuda.current_device() == 0
    with torch.cuda.device(last):
        for x, y in zip(got, step(), strict=True):
            assert x.device == torch.device(last)
            assert_identical(x, y)


def test_memory_that_runs_out_is_named(device):
    p = random_problem(4096, 8192, 2048, torch.bfloat16, device=device).leaves()
    loss = linear_cross_entropy(**p.arguments())
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + (16 << 20)) / total)
    try:
        with pytest.raises(RuntimeError, match=r"linear_stats_backward: could not allocate .*out of memory"):
            loss.backward()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    loss = linear_cross_entropy(**p.arguments())
    loss.backward()
    assert lossk.linear_logp(p.tensors["input"], p.tensors["linear_weight"], p.tensors["target"]).lse.isfinite().all()
