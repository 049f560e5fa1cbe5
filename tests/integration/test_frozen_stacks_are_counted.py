"""A stack that is frozen to less, or lent, still counts: as parameters, and for what it takes."""

from __future__ import annotations

import pytest

import stackwise as sw

FORMATS = [None, "bf16", "nf4"]
TRUNKS = ["recompute", "streamed", "cached"]
PADDING = 3 * 2 * 5 * 64  # slots; of each linear codes and scales, each to its place in a line


@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize("frozen", FORMATS)
@pytest.mark.parametrize("curriculum", ["left_to_right", "block_coordinate"])
def test_predicted_bytes_and_parameters_are_those_measured(
    tiny, place, curriculum, frozen, trunk
) -> None:
    kept = {"frozen": frozen, "master": "bf16"} if frozen else {}
    exp = tiny.replace(rack={"d_model": 64}, curriculum=curriculum, precision=kept)
    run = sw.train(exp, place.replace(trunk=trunk))
    memory = run.memory().set_index(["category", "stage"])
    difference = memory["measured"] - memory["predicted"]
    assert difference["weights"].between(0, PADDING * (trunk != "recompute")).all()
    assert (difference["gradients"] == 0).all() and (difference["average"] == 0).all()
    # The head's share is drawn: 4 x 16 positions, of which about half are masked.
    activations = memory.loc["activations"]
    assert activations["measured"].tolist() == pytest.approx(activations["predicted"], rel=0.15)
    assert run.result()["parameters"] == sw.count_parameters(exp.rack, exp.attention, 256)
