"""Shapes and options at random against the reference, by the one rule."""

import live
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lossk import linear_cross_entropy, reference
from problem import FLOAT32_AND_HALVES, assert_matches, random_problem

options = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["plain", "flat"]),
        "ignored": st.sampled_from([0.0, 0.2, 0.5]),
        "reduction": st.sampled_from(["mean", "sum", "none"]),
        "bias": st.booleans(),
        "class_weight": st.booleans(),
        "token_weight": st.booleans(),
        "token_scale": st.booleans(),
        "label_smoothing": st.sampled_from([0.0, 0.1]),
        "z_loss": st.sampled_from([0.0, 1e-3]),
        "softcap": st.sampled_from([None, 5.0, 30.0]),
    }
)
targets = st.one_of(
    st.fixed_dictionaries({"margin": st.sampled_from([0.0, 0.4, -0.4])}),
    st.fixed_dictionaries({"soft": st.integers(1, 5)}),
)


calls = given(
    rows=st.integers(8, 90),
    vocab=st.integers(16, 900),
    dim=st.integers(4, 300),
    dtype=st.sampled_from(FLOAT32_AND_HALVES),
    seed=st.integers(0, 2**31),
    options=options,
    target=targets,
)
often = settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@often
@calls
def test_any_call(rows, vocab, dim, dtype, seed, options, target, device):
    torch.manual_seed(seed)
    p = random_problem(rows, vocab, dim, dtype, device=device, **options, **target)
    assert_matches(p, linear_cross_entropy, reference.linear_cross_entropy)


@often
@given(tau=st.floats(0.01, 0.9), fill=st.booleans(), data=st.data())
def test_any_call_with_live_columns(tau, fill, data, device):
    draw = lambda strategy: data.draw(strategy)  # noqa: E731
    rows, vocab, dim = draw(st.integers(8, 300)), draw(st.integers(16, 900)), draw(st.integers(4, 100))
    torch.manual_seed(draw(st.integers(0, 2**31)))
    given = draw(options) | draw(targets) | {"tau": tau, "fill": fill}
    if given["softcap"]:
        given["label_smoothing"] = 0.0
    live.check(random_problem(rows, vocab, dim, draw(st.sampled_from(FLOAT32_AND_HALVES)), device=device, **given))
