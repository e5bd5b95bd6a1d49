"""What a file may say about picks, and what can be picked from a file that says nothing."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from rnncore import runtime
from rnncore.runtime import GatherOutput, TensorSpec
from tests.runtime.files import Spec, causal_graph, finish, signature


def test_picks_that_the_graph_lacks_are_a_mismatch() -> None:
    data = finish(causal_graph(Spec()), replace(signature(Spec()), pick=GatherOutput("y", "y.at", "y.pick")))
    with pytest.raises(runtime.ModelFileError, match="signature and graph of the file disagree") as caught:
        runtime.load(data)
    assert "input 'y.at' is in the signature, not in the graph" in str(caught.value)
    assert "output 'y.pick' is in the signature, not in the graph" in str(caught.value)


def test_picks_that_make_no_sense_are_named() -> None:
    sound = signature(Spec())
    timeless = TensorSpec("y", "float32", ("batch", 7))
    for changes, message in (
        ({"pick": GatherOutput("z", "z.at", "z.pick")}, "there are picks of 'z', which is no output"),
        ({"pick": GatherOutput("y", "x", "y.pick")}, "the name 'x' is used 2 times"),
        ({"pick": GatherOutput("y", "y.at", "y")}, "the name 'y' is used 2 times"),
        (
            {"pick": GatherOutput("y", "y.at", "y.pick"), "outputs": (timeless,)},
            r"picks of output 'y' \[batch, 7\], expected",
        ),
        (
            {"pick": GatherOutput("y", "y.at", "y.pick"), "outputs": (*sound.outputs, replace(timeless, name="q"))},
            "picks of output 'y', but there are other outputs too",
        ),
    ):
        with pytest.raises(runtime.ModelFileError, match=message):
            runtime.load(finish(causal_graph(Spec()), replace(sound, **changes)))  # type: ignore[arg-type]


@pytest.mark.parametrize("pick", [3, {}, {"of": "y"}, []])
def test_picks_that_are_none(pick: object) -> None:
    text = json.dumps({**json.loads(signature(Spec()).to_json()), "pick": pick})
    with pytest.raises(runtime.ModelFileError, match=r"rnncore\.signature in the file cannot be read"):
        runtime.load(finish(causal_graph(Spec()), signature(Spec()), signature=text))


def test_any_file_with_one_output_can_be_picked_from() -> None:
    model = runtime.load(finish(causal_graph(Spec()), signature(Spec())))
    rng = np.random.default_rng(4)
    x = rng.normal(size=(3, 5, 13)).astype(np.float32)
    whole = model.run(x)
    at = rng.integers(0, whole.shape[2], (3, 5, 2))
    np.testing.assert_array_equal(model.run_picked(x, at=at), np.take_along_axis(whole, at, 2))
