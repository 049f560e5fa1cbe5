"""A run on hostile text with a hostile tokenizer: what it reads, guesses and writes is text.

Unlike a run whose folder was rewritten, this one is whole: every probe, sample and step works, and
its name, labels, stages, corpus and tokens are payloads all the same.
"""

from __future__ import annotations

import random
import shutil
import sys
from collections.abc import Iterator

import pytest

import stackwise as sw
from stackwise import demo
from stackwise.cli import main
from stackwise.jsontext import dumps
from stackwise_widgets import Design, Inspect, RunPanel, Teach, run_still, view_of
from stackwise_widgets.page import page_html

from ....strangers import BARE, MARK, OBEYED, STAGE, TOKENS, acting, harmless, tokenizer_json
from .conftest import experiment


def named_by_a_stranger(exp: sw.Experiment) -> Iterator[sw.Stage]:
    """One stack after the other, each stage under a payload."""
    stacks = sw.stack_ids(exp.rack)
    for number, stack in enumerate(stacks):
        yield sw.Stage(name=STAGE, path=stacks[: number + 1], active=(stack,))


@pytest.fixture(scope="module")
def exp(tmp_path_factory) -> Iterator[sw.Experiment]:
    folder = tmp_path_factory.mktemp("theirs")
    text, tokenizer = folder / f"text{MARK}", folder / f"tokens{MARK}.json"
    draw = random.Random(0)
    text.write_text("".join(draw.choices(TOKENS, k=3000)), "utf-8", newline="")
    tokenizer.write_text(tokenizer_json(), "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sw.CURRICULA, "mine", named_by_a_stranger)
        patch.setattr("stackwise.memory.meter.warm_up", lambda device: None)
        corpus = {"kind": "text", "path": str(text)}
        data = {"corpus": corpus, "tokenizer": f"json:{tokenizer}", "seq_len": 24}
        yield experiment(data=data, curriculum="mine", rack={"vocab": 256 + len(TOKENS)})


@pytest.fixture(scope="module")
def made(exp, tmp_path_factory) -> sw.Run:
    """Under the id that it got, as a step of it needs."""
    folder = tmp_path_factory.mktemp("runs")
    run = sw.train(exp, sw.Placement(runs_dir=str(folder), device="cpu", threads=1))
    (run.path / "labels.json").write_text(dumps({"name": MARK, "note": MARK, "tags": [MARK]}))
    return run


@pytest.fixture(scope="module")
def run(made, tmp_path_factory) -> sw.Run:
    """In a folder whose name is a payload, too."""
    return sw.Run(shutil.copytree(made.path, tmp_path_factory.mktemp("runs") / f"a{MARK}"))


def test_what_is_sampled_in_the_run_panel(run):
    panel = RunPanel(run=run)
    panel.sample.press()
    assert panel.sample.settle() and panel.errors == []
    assert "pwned" in panel.sample.shown.value
    panel.list_numbers()
    panel.blocks.show()
    harmless(panel)


@pytest.mark.filterwarnings("ignore:Glyph")  # of control pictures, which the font has not all
@pytest.mark.parametrize("tab", ["rack", "attention", "depth", "drift", "denoise"])
def test_what_a_probe_reads(run, tab):
    panel = Inspect(run, hide=())
    panel.text.value = f"{MARK}{BARE}7".join("abcd")
    panel.tab = next(name for name in panel.names if tab in name.lower())
    panel.wait()
    if hasattr(panel._seen(), "probe"):
        panel._seen().probe.button.click()
        panel.wait()
    assert panel.errors == []
    harmless(panel, tab)
    assert panel.figure()._repr_png_()[:4] == b"\x89PNG"
    compile(panel.code(), tab, "exec")


def test_what_a_lesson_shows(made):
    panel = Teach(made, 1)
    while panel.phase is None or not panel.phase.is_last:
        panel.buttons["step"].click()
        assert panel.settle() and panel.errors == []
        assert "pwned" in panel.shown.named["tokens"].value
        harmless(panel, panel.phase.name)
    assert panel.figure()._repr_png_()[:4] == b"\x89PNG"
    compile(panel.code(), "teach", "exec")


@pytest.mark.parametrize("objective", ["diffusion", "mlm", "clm"])
def test_what_is_masked_in_the_design_panel(exp, objective):
    place = sw.Placement(device="cpu", threads=1)
    panel = Design(exp.replace(objective=objective), place, text=MARK + f"{BARE}7" * 150)
    assert panel.settle() and panel.errors == [] and panel.problems == ()
    assert all(picture.value for picture in panel.pictures.values())
    assert "pwned" in panel.pictures["Masks"].value + panel.pictures["Stages"].value
    harmless(panel)
    assert panel.figure()._repr_png_()[:4] == b"\x89PNG"
    compile(panel.code(), "design", "exec")


def test_the_page_with_its_samples(run):
    page = page_html(run)
    assert 'class="sw-lacks"' not in page
    samples = page[page.index('<pre class="sw-sample">') :]
    assert "pwned" in samples and acting([page]) == []
    assert run_still(view_of(run))._repr_png_()[:4] == b"\x89PNG"


@pytest.mark.parametrize("drawn", [False, True])
def test_a_terminal_is_given_nothing_that_it_obeys(run, exp, drawn, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: drawn)
    mine = tmp_path / "mine.yaml"
    mine.write_text(exp.to_yaml())
    own = "placement.device=cpu"
    commands = [
        ["sample", str(run.path), MARK[:20], "--length", "40"],
        ["sample", str(run.path), "", "--length", "40", "--stream"],
        ["eval", str(run.path), "--draws", "1"],
        ["watch", str(run.path), "--once"],
        ["runs", "--runs-dir", str(run.path.parent)],
        ["runs", "--runs-dir", str(run.path.parent), "--prune"],
        ["plan", str(mine), own],
        ["lr-find", str(mine), own, "--steps", "20", "--lead-steps", "1"],
    ]
    for words in commands:
        main(words)
        said = capsys.readouterr()
        out = said.out
        for ours in ("\x1b[2J", "\x1b[H", "\x1b[K", "\x1b[J", *(f"\x1b[{n}F" for n in range(9))):
            out = out.replace(ours, "") if drawn else out
        assert said.out, (words, said.err)
        assert not OBEYED.search(out + said.err), (words, said)


def test_the_demo_prints_a_sample_as_one_line(run):
    said = demo._sample(run)
    assert len(said) > 20 and said.isprintable()
