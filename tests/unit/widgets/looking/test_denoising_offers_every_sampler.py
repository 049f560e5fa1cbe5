"""The samplers of the registry and their knobs are in the denoising tab by themselves."""

import pytest
import torch

import stackwise as sw
from stackwise.sampling import Sampler, samplers_for
from stackwise_widgets import Inspect


@pytest.fixture
def tab(kept):
    panel = Inspect(kept)
    panel.tab = "denoise"
    panel.wait(60)
    yield panel.denoise
    assert panel.errors == []


def test_the_list_is_the_registrys(tab, trained_once):
    assert list(tab.method.options) == samplers_for(causal=False)
    panel = Inspect(trained_once(objective="clm"))
    panel.tab = "denoise"
    assert list(panel.denoise.method.options) == samplers_for(causal=True)
    assert panel.denoise.steps.disabled
    panel.wait(60)


@pytest.mark.parametrize("name", samplers_for(causal=False))
def test_every_knob_has_a_field_at_its_default(name, tab):
    tab.method.value = name
    assert list(tab.knobs.fields) == list(sw.SAMPLERS[name].params.model_fields)[1:]
    assert tab.asked.params == sw.SAMPLERS[name].params()
    assert tab.asked.called == name


@pytest.mark.parametrize(
    ("name", "filled", "steps"),
    [
        ("remask", {"eta": "0.5", "sigma": "rescale", "confidence": True}, 6),
        ("semi_autoregressive", {"block": "3", "inner": "entropy"}, 6),
        ("random", {"per_step": "3"}, None),
        ("first_hitting", {}, None),
    ],
)
def test_a_sample_is_made_with_what_is_filled_in(name, filled, steps, tab, kept):
    tab.method.value, tab.steps.value, tab.length.value = name, 6, 8
    for key, text in filled.items():
        tab.knobs.fields[key].value = text
    assert tab.steps.disabled == (steps is None)
    tab.probe.run()
    assert tab.wait(60)
    rack = kept.rack()
    ids_BT = torch.full((1, 8), rack.mask_id)
    want = list(sw.stream(rack, ids_BT, method={"kind": name, **tab.knobs.value}, steps=steps,
                          temperature=0.7))  # fmt: skip
    assert torch.equal(tab.found.ids_ST[1:], torch.cat([step.ids_BT for step in want]))
    assert (tab.found.forwards, tab.found.flops) == (want[-1].forwards, want[-1].flops)
    assert f"read {want[-1].forwards} times" in tab._sample.value
    names = {"run": kept, "sw": sw}
    exec(tab.code().replace("    print(ids_BT)", "    pass"), names)
    assert torch.equal(names["ids_BT"][0], tab.found.ids_ST[-1])


def test_a_wrong_knob_is_said_where_the_costs_stand(tab):
    tab.method.value = "semi_autoregressive"
    tab.knobs.fields["block"].value = "0"
    assert "block: 0 must be 1 or more" in tab.probe.cost.value and tab.probe.button.disabled
    tab.knobs.fields["block"].value = "4"
    assert "FLOPs" in tab.probe.cost.value and not tab.probe.button.disabled


def test_what_was_filled_in_for_another_sampler_is_kept(tab):
    tab.method.value = "semi_autoregressive"
    tab.knobs.fields["block"].value = "7"
    tab.method.value = "remask"
    tab.method.value = "semi_autoregressive"
    assert tab.knobs.fields["block"].value == "7" and tab.asked.params.block == 7


def test_a_sample_is_seen_while_it_is_written(tab):
    seen = []
    tab._sample.observe(lambda change: seen.append(change["new"]), "value")
    tab.method.value, tab.length.value = "first_hitting", 5
    tab.probe.run()
    assert tab.wait(60)
    for step in range(1, 6):
        assert any(f'data-step="{step}" data-hidden="{5 - step}"' in html for html in seen)


def test_a_sampler_of_ones_own_is_offered(kept, monkeypatch):
    monkeypatch.setitem(sw.SAMPLERS, "mine", Sampler(lambda task, params: iter(()), None))
    panel = Inspect(kept)
    panel.tab = "denoise"
    assert "mine" in panel.denoise.method.options
    panel.denoise.method.value = "mine"
    assert panel.denoise.knobs.fields == {}
    panel.wait(60)
