"""One rack in memory at a time; one that does not fit is lent or refused; costs are said before."""

import gc
import weakref

import pytest
import torch

from stackwise.model.rack import Rack
from stackwise.runs import RunError
from stackwise_widgets.inspecting import Inspect
from stackwise_widgets.inspection import one_rack, probe
from stackwise_widgets.inspection.one_rack import BESIDE_BYTES, RACK, room_for


def racks_alive():
    gc.collect()
    return sum(type(thing) is Rack for thing in gc.get_objects())


def test_another_run_takes_the_place_of_the_one_before(kept, trained_once):
    before = racks_alive()
    with RACK.open(kept) as rack:
        first = weakref.ref(rack)
        del rack
    with RACK.open(kept) as rack:
        assert first() is rack  # nothing was read again
        del rack
    with RACK.open(trained_once(attention="mla")):
        assert racks_alive() == before + 1
    gc.collect()
    assert first() is None
    RACK.drop()
    assert racks_alive() == before


def test_panels_share_it(kept, trained_once):
    before = racks_alive()
    panels = [Inspect(kept), Inspect(trained_once(attention="mla"))]
    for panel in panels:
        for tab in ("attention", "denoise", "drift"):
            panel.tab = tab
            panel.wait(60)
            assert racks_alive() <= before + 1
        assert panel.errors == []


def test_a_rack_that_fits_is_read_whole(kept):
    room = room_for(kept, free=1 << 40)
    assert not room.lent
    assert room.bytes == sum(f.stat().st_size for f in (kept.path / "rack").glob("*.safetensors"))
    assert room.said.endswith("while it is looked at")


def test_one_that_does_not_fit_is_read_block_by_block(kept, monkeypatch):
    whole = room_for(kept, free=1 << 40).bytes
    free = whole + BESIDE_BYTES - 1
    room = room_for(kept, free=free)
    assert room.lent
    assert room.bytes < whole
    assert "block by block" in room.said
    plain = Inspect(kept)
    plain.tab = "attention"
    plain.wait(60)
    RACK.drop()
    monkeypatch.setattr(one_rack, "free_memory", lambda: free)
    panel = Inspect(kept)
    panel.tab = "attention"
    panel.wait(60)
    assert panel.attention.found is None  # it is slow, so it waits to be asked for
    assert "block by block" in panel.attention.probe.cost.value
    panel.attention.probe.button.click()
    panel.wait(60)
    same = (panel.attention.found.map.weights_BHTS, plain.attention.found.map.weights_BHTS)
    assert torch.equal(*same)
    assert panel.errors == []


def test_one_that_does_not_fit_even_so_is_refused(kept, monkeypatch):
    with pytest.raises(RunError, match=r"look at it on a larger machine"):
        room_for(kept, free=BESIDE_BYTES)
    monkeypatch.setattr(one_rack, "free_memory", lambda: BESIDE_BYTES)
    panel = Inspect(kept)
    panel.tab = "attention"
    panel.wait(60)
    assert "of memory are free; look at it on a larger machine" in panel.attention.probe.cost.value
    assert panel.attention.probe.button.disabled
    assert panel.attention.found is None
    assert panel.errors == []


def test_costs_are_said_and_dear_probes_wait(kept, monkeypatch):
    monkeypatch.setattr(probe, "CHEAP_FLOPS", 0.0)
    panel = Inspect(kept)
    for tab, box in (("attention", panel.attention), ("denoise", panel.denoise),
                     ("drift", panel.drift)):  # fmt: skip
        panel.tab = tab
        panel.wait(60)
        assert "FLOPs; its rack takes" in box.probe.cost.value
        assert box.found is None
    panel.denoise.probe.button.click()
    panel.wait(60)
    assert panel.denoise.found is not None


def test_a_run_without_a_checkpoint_says_so(runs):
    run = next(runs.glob("*grow*"))
    (run / "rack" / "manifest.json").unlink()
    panel = Inspect(run)
    for tab in ("attention", "denoise"):
        panel.tab = tab
        panel.wait(60)
    assert "no checkpoint yet" in panel.attention.probe.cost.value
    assert panel.attention.probe.button.disabled
