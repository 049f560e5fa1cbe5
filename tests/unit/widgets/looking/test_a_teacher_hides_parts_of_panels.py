"""Compare and Inspect without what a lesson is not about."""

from __future__ import annotations

import pytest

from stackwise_widgets import Compare, Inspect


@pytest.mark.parametrize("part", ["filter", "deed", "axis", "study"])
def test_of_compare(shipped, part) -> None:
    whole, less = Compare(shipped), Compare(shipped, hide=[part])
    assert len(less.children) == len(whole.children) - 1
    assert less.wait() and less.errors == [] and len(less.runs) == len(shipped)


@pytest.mark.parametrize("part", ["choice", "text"])
def test_of_inspect(shipped, part) -> None:
    whole, less = Inspect(shipped[0]), Inspect(shipped[0], hide=[part])
    assert len(less.children) == len(whole.children) - 1
    assert less.wait() and less.errors == []


def test_probes_of_inspect(shipped) -> None:
    panel = Inspect(shipped[0], hide=["attention", "drift"])
    assert panel.tabs.titles == ("Rack", "Loss by depth", "Denoising")
    panel.tab = "denoise"
    assert panel.tab == "denoise" and "run = sw.attach" in panel.code()
    with pytest.raises(ValueError, match="tab 'drift': is none of rack, depth, denoise"):
        panel.tab = "drift"
    assert panel.wait() and panel.errors == []


@pytest.mark.parametrize(("panel", "name"), [(Compare, "filtr"), (Inspect, "attenton")])
def test_a_slip_is_told(panel, name, shipped) -> None:
    with pytest.raises(ValueError, match=f"hide: '{name}' is no part; did you mean"):
        panel(shipped[0], hide=[name])
