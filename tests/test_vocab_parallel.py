"""group: a vocabulary sharded among processes gives what it gives in one."""

from datetime import timedelta
from functools import partial
from typing import NamedTuple

import pytest
import torch
import torch.distributed as dist
from lossk import _vocab_parallel, linear_cross_entropy, linear_logp, reference
from problem import EXTREME_FLOOR, OPTIONS, random_problem
from tolerance import assert_as_good_as_torch, assert_identical, relative_error

VOCAB, WORLD = 203, 3
CUTS = {"uneven": (100, 3, 100), "one empty": (150, 0, 53)}
SHARDED = ("linear_weight", "linear_bias")


class Case(NamedTuple):
    options: dict
    head: str = "cross entropy"
    cut: str = "uneven"
    dtype: torch.dtype = torch.float64
    rows: int = 40
    frozen: tuple = ()
    compiled: bool = False


HEADS = {
    "cross entropy": (linear_cross_entropy, reference.linear_cross_entropy),
    "logp": (linear_logp, reference.linear_logp),
}
HALVES = (torch.bfloat16, torch.float16)
CASES = {
    **{f"{name}, {how}": Case(OPTIONS[name] | {"reduction": how}) for name in OPTIONS for how in ("mean", "none")},
    "everything, one empty": Case(OPTIONS["everything_hard"], cut="one empty"),
    **{f"everything in {x}": Case(OPTIONS["everything_soft"], dtype=x) for x in (torch.float32, *HALVES)},
    **{f"logp, {kind}": Case({"kind": kind, "bias": True}, "logp") for kind in ("plain", "flat", "peaked", "extreme")},
    "logp, extreme in float32": Case({"kind": "extreme"}, "logp", dtype=torch.float32),
    **{f"logp in {x}": Case({"bias": True}, "logp", dtype=x) for x in HALVES},
    "logp, one empty": Case({"softcap": 3.0, "temperature": 0.7}, "logp", "one empty"),
    "all live": Case({"tau": 1e-30, "reduction": "sum"}),
    "shifted": Case({"shift": 1, "lead": (5, 8)}),
    "no rows": Case({"reduction": "sum", "label_smoothing": 0.1}, rows=0),
    "all ignored": Case({"reduction": "sum", "ignored": 1.0, "label_smoothing": 0.1}),
    "frozen input": Case(OPTIONS["everything_hard"], frozen=("input",)),
    "frozen weight": Case(OPTIONS["everything_hard"], frozen=("linear_weight", "linear_bias")),
    "compiled": Case(OPTIONS["everything_soft"], compiled=True),
    "logp, compiled": Case({"bias": True}, "logp", compiled=True),
}
TAU = 0.5  # of 40 tokens together


def problem_of(name):
    torch.manual_seed(len(name))
    case = CASES[name]
    return random_problem(case.rows, VOCAB, 24, case.dtype, **case.options)


def shard_of(problem, cut, rank):
    first = sum(CUTS[cut][:rank])
    of = slice(first, first + CUTS[cut][rank])
    return problem.with_(**{name: x[of].clone() for name, x in problem.tensors.items() if name in SHARDED})


def message_of(call):
    try:
        call()
    except (TypeError, ValueError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def gradient_of_gradient(p, group):
    x = p.tensors["input"].requires_grad_()
    loss = linear_cross_entropy(**p.arguments(), group=group)
    torch.autograd.grad(loss, x, create_graph=True)[0].sum().backward()


def gradients_to_sum():
    return torch.randn(WORLD, 1000, generator=torch.Generator().manual_seed(0)).bfloat16()


def errors(group, some):
    """What is said on every rank; `some` is a group without rank 1."""
    rank = dist.get_rank()
    p = shard_of(random_problem(8, VOCAB, 8), "uneven", rank)
    beyond = p.with_(target=torch.full_like(p.tensors["target"], VOCAB))
    fewer = p.map(lambda x: x[: 8 - rank]) if rank == 1 else p
    logp = partial(linear_logp, p.tensors["input"], p.tensors["linear_weight"], p.tensors["target"] % 3)
    ours = lambda p, group=group: message_of(lambda: linear_cross_entropy(**p.arguments(), group=group))  # noqa: E731
    return {
        "target": ours(beyond),
        "weight": ours(p.with_(weight=torch.ones(100))),
        "tokens": ours(fewer.with_(linear_weight=p.tensors["linear_weight"])),
        "group": ours(p, "world"),
        "member": ours(p, some) if rank == 1 else None,
        "saved": message_of(lambda: logp(saved=logp(), group=group)),
        "twice": message_of(lambda: gradient_of_gradient(p, group)),
    }


def run_rank(rank, folder):
    torch.set_num_threads(1)
    store = dict(init_method=f"file://{folder}/store", timeout=timedelta(seconds=60))
    dist.init_process_group("gloo", rank=rank, world_size=WORLD, **store)
    group, some = dist.group.WORLD, dist.new_group([0, 2])
    found = {"errors": errors(group, some)}
    for name, case in CASES.items():
        ours = partial(HEADS[case.head][0], group=group)
        if case.compiled:
            torch.compiler.reset()
            ours = torch.compile(ours, fullgraph=True, backend="aot_eager")
        found[name] = shard_of(problem_of(name), case.cut, rank).gradients(ours, frozen=case.frozen)
    found["tau"] = shard_of(problem_of("plain, mean"), "uneven", rank).gradients(
        partial(linear_cross_entropy, group=group, tau=TAU)
    )
    if rank != 1:  # whose columns are then nobody's
        found["some"] = shard_of(problem_of("plain, mean"), "one empty", rank).gradients(
            partial(linear_cross_entropy, group=some)
        )
    x = torch.ones(1000, dtype=torch.bfloat16, requires_grad=True)
    (_vocab_parallel.sum_over_shards(x, group) * gradients_to_sum()[rank]).sum().backward()
    found["sum"] = x.grad
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each rank made of each case."""
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(run_rank, (str(folder),), nprocs=WORLD)
    return [torch.load(folder / f"{rank}.pt") for rank in range(WORLD)]


@pytest.mark.parametrize("name", CASES)
def test_each_rank_has_the_whole_loss_and_its_own_gradients(name, found):
    case, p = CASES[name], problem_of(name)
    ours, theirs = HEADS[case.head]
    exact = p.cast(torch.float64).gradients(theirs, frozen=case.frozen)
    alone = p.gradients(ours, frozen=case.frozen)
    for of, want in exact.items():
        parts = [rank[name][of] for rank in found]
        sharded = of.removeprefix("grad of ") in SHARDED
        assert all(x.dtype == alone[of].dtype for x in parts), of
        for x in [torch.cat(parts)] if sharded else parts:
            assert x.shape == want.shape, of
            if case.dtype == torch.float64:
                assert relative_error(x, want) < 1e-10 or (x - want).norm() < 1e-12, of
            else:
                floor = EXTREME_FLOOR if case.options.get("kind") == "extreme" else None
                assert_as_good_as_torch(x, want, alone[of].to(x.dtype), name=of, factor=1.5, floor=floor)
        if not sharded:
            for x in parts[1:]:
                assert_identical(x, parts[0], of)


def test_a_group_of_some_ranks(found):
    exact = problem_of("plain, mean").gradients(reference.linear_cross_entropy)
    ours = [found[rank]["some"] for rank in (0, 2)]
    for x in ours:
        assert relative_error(x["loss"], exact["loss"]) < 1e-12
        assert relative_error(x["grad of input"], exact["grad of input"]) < 1e-12
    weight = torch.cat([x["grad of linear_weight"] for x in ours])
    assert relative_error(weight, exact["grad of linear_weight"]) < 1e-12


def test_live_columns_of_each_shard(found):
    p = problem_of("plain, mean")
    exact, alone = p.gradients(reference.linear_cross_entropy), p.gradients(partial(linear_cross_entropy, tau=TAU))
    ours = [rank["tau"] for rank in found]
    assert relative_error(ours[0]["loss"], exact["loss"]) < 1e-12
    weight = torch.cat([x["grad of linear_weight"] for x in ours])
    for x, of in ((ours[0]["grad of input"], "grad of input"), (weight, "grad of linear_weight")):
        assert 0 < relative_error(x, exact[of]) < 1.2 * relative_error(alone[of], exact[of]), of


def test_gradients_are_summed_in_float32(found):
    for rank in found:
        assert_identical(rank["sum"], gradients_to_sum().float().sum(0).bfloat16())


def test_errors(found):
    for rank in found:
        said = rank["errors"]
        assert said["target"] == "ValueError: linear_cross_entropy: target must be in [0, 203) or -100, got 203 at [0]"
        assert said["weight"] == "ValueError: linear_cross_entropy: weight must have shape [203], got [100]"
        assert said["tokens"] == (
            "ValueError: linear_cross_entropy: input must have the same tokens on all ranks of group, got [8, 7, 8]"
        )
        assert said["group"].startswith("TypeError: linear_cross_entropy: group must be None or a torch.distributed.")
        assert said["saved"].startswith("ValueError: linear_logp: group must be None with saved")
        assert said["twice"].startswith("RuntimeError")
    assert found[1]["errors"]["member"].startswith(
        "ValueError: linear_cross_entropy: group must have this process among its ranks"
    )
