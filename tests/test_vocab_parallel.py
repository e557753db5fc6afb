"""group: a vocabulary that is cut among processes gives what it gives in one."""

from functools import partial
from typing import NamedTuple

import pytest
import torch
import torch.distributed as dist
from lossk import linear_cross_entropy, linear_logp, reference
from problem import OPTIONS, random_problem
from tolerance import assert_as_good_as_torch, assert_identical, relative_error

VOCAB, WORLD = 203, 3
CUTS = {"uneven": (100, 3, 100), "one empty": (150, 0, 53)}
SLICED = ("linear_weight", "linear_bias")


class Case(NamedTuple):
    options: dict
    head: str = "cross entropy"
    cut: str = "uneven"
    dtype: torch.dtype = torch.float64
    compiled: bool = False


HEADS = {
    "cross entropy": (linear_cross_entropy, reference.linear_cross_entropy),
    "logp": (linear_logp, reference.linear_logp),
}
CASES = {
    **{f"{name}, {how}": Case(OPTIONS[name] | {"reduction": how}) for name in OPTIONS for how in ("mean", "none")},
    **{f"everything, {cut}": Case(OPTIONS["everything_hard"], cut=cut) for cut in CUTS},
    **{f"everything in {x}": Case(OPTIONS["everything_soft"], dtype=x) for x in (torch.float32, torch.bfloat16)},
    **{f"logp, {kind}": Case({"kind": kind, "bias": True}, "logp") for kind in ("plain", "flat", "peaked", "extreme")},
    "logp in bfloat16": Case({"bias": True}, "logp", dtype=torch.bfloat16),
    "logp, one empty": Case({"softcap": 3.0, "temperature": 0.7}, "logp", "one empty"),
    "all live": Case({"tau": 1e-30, "reduction": "sum"}),
    "shifted": Case({"shift": 1, "lead": (5, 8)}),
    "compiled": Case(OPTIONS["everything_soft"], compiled=True),
    "logp, compiled": Case({"bias": True}, "logp", compiled=True),
}


def problem_of(name):
    torch.manual_seed(len(name))
    case = CASES[name]
    return random_problem(40, VOCAB, 24, case.dtype, **case.options)


def slice_of(problem, cut, rank):
    first = sum(CUTS[cut][:rank])
    of = slice(first, first + CUTS[cut][rank])
    return problem.with_(**{name: x[of].clone() for name, x in problem.tensors.items() if name in SLICED})


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


def errors(group):
    p = slice_of(random_problem(8, VOCAB, 8), "uneven", dist.get_rank())
    beyond = p.with_(target=torch.full_like(p.tensors["target"], VOCAB))
    logp = partial(linear_logp, p.tensors["input"], p.tensors["linear_weight"], p.tensors["target"] % 3)
    no_weights = p.with_(weight=torch.ones(100))
    return {
        "target": message_of(lambda: linear_cross_entropy(**beyond.arguments(), group=group)),
        "weight": message_of(lambda: linear_cross_entropy(**no_weights.arguments(), group=group)),
        "group": message_of(lambda: linear_cross_entropy(**p.arguments(), group="world")),
        "saved": message_of(lambda: logp(saved=logp(), group=group)),
        "twice": message_of(lambda: gradient_of_gradient(p, group)),
    }


def run_rank(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD)
    group = dist.group.WORLD
    found = {"errors": errors(group)}
    for name, case in CASES.items():
        ours = partial(HEADS[case.head][0], group=group)
        if case.compiled:
            torch.compiler.reset()
            ours = torch.compile(ours, fullgraph=True, backend="aot_eager")
        found[name] = slice_of(problem_of(name), case.cut, rank).gradients(ours)
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
    exact = p.cast(torch.float64).gradients(theirs)
    alone = p.gradients(ours)
    for of, want in exact.items():
        parts = [rank[name][of] for rank in found]
        sliced = of.removeprefix("grad of ") in SLICED
        assert all(x.dtype == alone[of].dtype for x in parts), of
        for x in [torch.cat(parts)] if sliced else parts:
            assert x.shape == want.shape, of
            if case.dtype == torch.float64:
                assert relative_error(x, want) < 1e-10 or (x - want).norm() < 1e-12, of
            else:
                assert_as_good_as_torch(x, want, alone[of].to(x.dtype), name=of, factor=2.0)
        if not sliced:
            for x in parts[1:]:
                assert_identical(x, parts[0], of)


def test_errors(found):
    for rank in found:
        said = rank["errors"]
        assert said["target"] == "ValueError: linear_cross_entropy: target must be in [0, 203) or -100, got 203 at [0]"
        assert said["weight"] == "ValueError: linear_cross_entropy: weight must have shape [203], got [100]"
        assert said["group"].startswith("TypeError: linear_cross_entropy: group must be None or a torch.distributed.")
        assert said["saved"].startswith("ValueError: linear_logp: group must be None with saved")
        assert said["twice"].startswith("RuntimeError")
