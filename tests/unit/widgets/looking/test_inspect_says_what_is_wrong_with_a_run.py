"""A damaged run is chosen: nothing of the run before stays, and what is wrong stands there."""

import pytest

from stackwise_widgets.inspecting import Inspect


def damage_missing(run):
    (run / "experiment.yaml").unlink()


def damage_text(run):
    (run / "experiment.yaml").write_text("rack: [")


def damage_version(run):
    file = run / "experiment.yaml"
    file.write_text("schema_version: 99\n" + file.read_text())


def damage_stages(run):
    (run / "stages.json").write_text("{")


def damage_manifest(run):
    (run / "rack" / "manifest.json").write_text("{")


EXPERIMENTS = [damage_missing, damage_text, damage_version, damage_stages]


@pytest.mark.parametrize("damage", [*EXPERIMENTS, damage_manifest])
def test_it_stands_where_the_rack_was(runs, damage):
    panel = Inspect("shipped-grow", runs_dir=runs)
    good = panel.choice.value
    for tab in ("attention", "depth", "denoise", "rack"):
        panel.tab = tab
        assert panel.wait(60)
    panel.denoise.probe.run()
    assert panel.wait(60) and panel.errors == []
    assert panel.denoise.found is not None and len(panel.parts) > 0
    run = next(runs.glob("*end_to_end*"))
    damage(run)
    panel.choice.value = run.name
    assert panel.wait(60)
    said = panel._rack.value
    assert "cannot be" in said and "<svg" not in said and str(panel.errors[0].error)[:12] in said
    assert panel.parts == [] and panel.run.id == run.name and panel.guard.card.value
    assert panel.attention.found is None and panel.denoise.found is None
    for tab in ("rack", "attention", "depth", "drift", "denoise"):
        panel.tab = tab
        assert panel.wait(60)
        assert damage is damage_manifest or len(panel.data()) == 0
        panel.figure()
        assert run.name in panel.code()
    count = len(panel.errors)
    panel.text.value = "another text"
    panel.attention.probe.button.click()
    assert (panel.wait(60) and len(panel.errors) == count) or damage is damage_manifest
    panel.choice.value = good
    panel.tab = "attention"
    assert panel.wait(60) and panel.guard.card.value == ""
    assert panel.attention.found is not None and len(panel.parts) > 0


@pytest.mark.parametrize("damage", EXPERIMENTS)
def test_it_can_be_the_first_that_is_shown(runs, damage):
    run = next(runs.glob("*grow*"))
    damage(run)
    panel = Inspect(run)
    assert panel.wait(60) and "cannot be looked into" in panel._rack.value
    assert "cannot be looked into" in panel.attention.probe.cost.value


def test_nothing_of_the_run_before_stays_until_a_costly_probe_is_asked_for(runs, monkeypatch):
    panel = Inspect("shipped-grow", runs_dir=runs)
    panel.tab = "attention"
    assert panel.wait(60) and panel.attention.found is not None
    monkeypatch.setattr("stackwise_widgets.inspection.probe.CHEAP_FLOPS", 0.0)
    panel.choice.value = next(one for one in panel.choice.options if "end_to_end" in one)
    assert panel.wait(60) and panel.attention.found is None
    assert panel.attention._picture.value == ""


def test_what_is_at_work_stands_apart_from_the_costs(kept):
    panel = Inspect(kept)
    panel.tab = "attention"
    assert panel.wait(60)
    seen = []
    panel.attention.probe.said.observe(lambda change: seen.append(change["new"]), "value")
    panel.attention.probe.run()
    assert panel.wait(60)
    assert seen == ['<span class="sw-quiet">· at work …</span>', ""]
