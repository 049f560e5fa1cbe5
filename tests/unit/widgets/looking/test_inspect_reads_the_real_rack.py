"""Each probe shows what the rack of the last checkpoint computes, on a text of one's own."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch

import stackwise as sw
from stackwise.attention_maps import attention_map
from stackwise.drift import representation_drift, weight_drift
from stackwise.runs.layers import layers_of
from stackwise_widgets.inspecting import TABS, Inspect
from stackwise_widgets.views import rack_parts


@pytest.fixture
def panel(kept):
    panel = Inspect(kept)
    assert panel.wait(60)
    yield panel
    assert panel.errors == []


def seen(panel, tab):
    panel.tab = tab
    assert panel.wait(60)
    return panel


def test_the_rack_is_that_of_the_folder(panel, kept):
    assert panel.parts == rack_parts(kept)
    assert 'data-part="s2"' in panel._rack.value
    assert panel.data()["name"].tolist() == ["embedding", "s0", "s1", "s2", "head"]


def test_maps_are_those_of_the_layer(panel, kept):
    seen(panel, "attention").text.value = "abc def"
    panel.wait(60)
    panel.attention.block.value = "s1.1"
    panel.wait(60)
    ids_BT = torch.tensor([list(b"abc def")])
    want = attention_map(kept.rack(), ids_BT, "s1.1", causal=False).weights_BHTS[0]
    frame = panel.data()
    got = frame.pivot(index=["head", "looks"], columns="seen", values="weight").to_numpy()
    assert np.array_equal(got.reshape(want.shape), want.double().numpy())
    assert frame["looks_token"].tolist()[:2] == ["a", "a"]
    panel.attention.head.value = 1
    assert "block s1.1, head 1" in panel.attention._picture.value
    panel.figure()


def test_masked_tokens_are_read_as_masks(panel, kept):
    panel.text.value, panel.hidden.value = "abcdefgh", 0.5
    seen(panel, "attention")
    labels = panel.attention.found.labels
    assert labels.count("▒") == 4
    again = Inspect(kept)
    again.text.value, again.hidden.value = "abcdefgh", 0.5
    assert seen(again, "attention").attention.found.labels == labels


def test_left_to_right_racks_read_start_first_and_see_nothing_ahead(trained_once):
    panel = seen(Inspect(trained_once(objective="clm")), "attention")
    assert panel.attention.found.labels[0] == "START"
    frame = panel.data()
    assert (frame["seen"] <= frame["looks"]).all()
    sums = frame.groupby(["head", "looks"])["weight"].sum()
    assert np.allclose(sums, 1, atol=1e-6)
    assert panel.hidden.disabled
    assert panel.errors == []


@pytest.mark.parametrize(
    "attention",
    ["gqa", "mla", {"kind": "kernel", "features": 16}, {"kind": "kernel", "map": "gaussian"}],
    ids=str,
)
def test_every_kind_of_attention_has_a_map(trained_once, attention):
    panel = seen(Inspect(trained_once(attention=attention)), "attention")
    assert len(panel.data())
    assert ("random features imply" in panel.attention._picture.value) == isinstance(
        attention, dict
    )
    assert panel.errors == []


def test_loss_by_depth_is_that_of_the_events(panel, kept):
    frame, want = seen(panel, "depth").data(), layers_of(kept)
    last = want[want["step"] == want.groupby("stage")["step"].transform("max")]
    stages = frame[frame["label"] != "on the text above"]
    assert stages["exit_loss"].tolist() == last["exit_loss"].tolist()
    assert stages["label"].nunique() == 3


def test_loss_by_depth_of_ones_own_text_is_that_of_the_probe(panel, kept):
    seen(panel, "depth")
    subject = panel.depth.probe.subject
    noisy = subject.noisy(256)
    assert noisy.input_BT.shape == (32, 24)
    assert (noisy.target_BT[0].numpy() == subject.read.ids_T).all()
    want = sw.exit_losses(kept.rack(), noisy, causal=False)
    assert panel.depth.own.tolist() == pytest.approx(want, rel=1e-12)
    assert panel.depth.own.index.tolist() == ["embedding", *(f"s{i}.{j}" for i in range(3)
                                                            for j in range(2))]  # fmt: skip
    assert "on the text above" in panel.depth._picture.value


def test_drift_is_exactly_nothing_where_it_is_frozen(panel, kept):
    frame = seen(panel, "drift").data()
    noisy = panel.drift.probe.subject.noisy(256)
    assert panel.drift.found.weights.equals(weight_drift(kept))
    assert panel.drift.found.outputs.equals(representation_drift(kept, noisy))
    frozen = frame[(frame["of"] == "weights") & (frame["part"] == "s0")]
    assert (frozen["drift"] == 0).all()
    assert 'class="sw-still" data-row="s0" data-column="stage 2"' in panel.drift._picture.value


def test_a_run_that_kept_no_stages_says_so(runs):
    folder = next(runs.glob("*grow*"))
    shutil.rmtree(folder / "stages")
    panel = seen(Inspect(folder), "drift")
    assert "has kept 1 of 3" in panel.drift._picture.value
    assert len(panel.data()) == 0
    panel.figure()
    assert panel.errors == []


def test_a_sample_is_that_of_the_trajectory(panel, kept):
    seen(panel, "denoise")
    panel.denoise.steps.value, panel.denoise.seed.value = 5, 3
    panel.denoise.length.value = 8
    panel.denoise.probe.run()
    panel.wait(60)
    rack = kept.rack()
    ids_BT = torch.full((1, 8), rack.mask_id)
    want = torch.cat([ids_BT, *sw.trajectory(rack, ids_BT, "ancestral", 5, 0.7, 3)])
    assert torch.equal(panel.denoise.found.ids_ST, want)
    assert panel.denoise.step.value == 2
    panel.denoise.step.value = 5
    panel.wait(60)
    assert 'data-hidden="0"' in panel.denoise._sample.value
    assert panel.data().query("step == 5")["id"].tolist() == want[5].tolist()


def test_depths_are_read_at_the_step_that_is_shown(panel, kept):
    seen(panel, "denoise")
    panel.denoise.step.value = 4
    panel.wait(60)
    lens, rack = panel.denoise.lens, kept.rack()
    assert lens.step == 4
    want = rack(panel.denoise.found.ids_ST[4][None]).softmax(-1).max(-1)
    assert torch.equal(lens.depths.ids_LBT[-1], want.indices)
    assert torch.allclose(lens.depths.prob_LBT[-1], want.values)
    panel.denoise.depth.value = False
    assert panel.denoise._through.value == ""


def test_a_text_is_finished_by_a_rack_that_writes_left_to_right(trained_once):
    panel = seen(Inspect(trained_once(objective="clm")), "denoise")
    panel.text.value = "abab"
    panel.wait(60)
    panel.denoise.start.value = "the text above"
    panel.denoise.length.value = 6
    panel.denoise.probe.run()
    panel.wait(60)
    ids_ST = panel.denoise.found.ids_ST
    assert ids_ST.shape == (7, 10)
    assert (ids_ST[:, :4] == torch.tensor(list(b"abab"))).all()
    assert "write next" in panel.denoise._through.value
    assert panel.errors == []


def test_noise_by_depth_takes_the_path_of_its_noise(trained_once):
    run = trained_once(curriculum="right_to_left", masking={"bands": "equal_mass"})
    panel = seen(Inspect(run), "denoise")
    paths = set()
    for step in (0, 12, 16):
        panel.denoise.step.value = step
        panel.wait(60)
        paths.add(panel.denoise.lens.path)
    assert len(paths) > 1
    looks = seen(panel, "depth").depth.looks
    assert looks["label"].str.contains(", noise .* %").all()
    assert "noise bands of their own" in panel.depth._picture.value
    assert panel.errors == []


@pytest.mark.parametrize("tab", list(TABS))
def test_the_code_does_the_same(panel, tab):
    seen(panel, tab)
    names = {}
    *lines, last = panel.code().rstrip().splitlines()
    if tab == "denoise":
        exec(panel.code().replace("    print(ids_BT)", "    pass"), names)
        assert torch.equal(names["ids_BT"][0], panel.denoise.found.ids_ST[-1])
        return
    exec("\n".join(lines), names)
    found = eval(last, names)
    if tab == "rack":
        assert found == panel.parts
    elif tab == "attention":
        assert torch.equal(found, panel.attention.found.map.weights_BHTS)
    elif tab == "depth":
        assert found == pytest.approx(panel.depth.own.tolist(), rel=1e-12)
    else:
        pd.testing.assert_frame_equal(found, panel.drift.found.outputs)
