"""A run begins with a model of its own sizes, or is refused with all that differ."""

from __future__ import annotations

import pytest

import stackwise as sw
from stackwise.training.start import model_of


def test_what_differs_is_named_and_where_it_is_found(llama, tmp_path) -> None:
    model = sw.read_model(sw.import_model(llama(vocab_size=256), tmp_path / "small"))
    right = sw.Experiment(
        start="small", rack=model.rack, attention=model.attention, objective="clm"
    )
    assert model_of(right, tmp_path).weights_hash == model.weights_hash
    wrong = right.replace(rack={"stacks": 2, "kv_heads": None}, attention="mla")
    with pytest.raises(sw.ExperimentError) as refused:
        model_of(wrong, tmp_path)
    take = "take the sections of small/model.yaml"
    first, second, third = str(refused.value).splitlines()
    assert first == f"rack.stacks: 2 is not 4, that of the model to start from; {take}"
    assert second == f"rack.kv_heads: None is not 2, that of the model to start from; {take}"
    assert third.startswith("attention: mla (kv_rank=")
    assert third.endswith(f") is not gqa, that of the model to start from; {take}")
