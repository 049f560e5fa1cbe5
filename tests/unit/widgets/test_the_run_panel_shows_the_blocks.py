"""Statistics and drift in the Run panel: what is in the tables is what the run has told."""

from xml.etree import ElementTree

import pandas as pd
import pytest

import stackwise as sw
from stackwise.runs.statistics import NUMBERS as COLUMNS
from stackwise_widgets import RunPanel
from stackwise_widgets.block_numbers import NUMBERS
from stackwise_widgets.views.statistics import drift_told_html, in_order, statistics_html


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    exp = sw.Experiment(
        title="blocks",
        rack={"stacks": 2, "blocks_per_stack": 1, "d_model": 16, "heads": 2},
        curriculum="right_to_left",
        data={"corpus": {"kind": "markov", "size_bytes": 20_000}, "seq_len": 16},
        optim={"batch": 4},
        budget={"tokens": 8 * 64},
        eval={"points": 2, "windows": 4, "final": 4},
    )
    folder = str(tmp_path_factory.mktemp("runs"))
    return sw.train(exp, sw.Placement(runs_dir=folder, device="cpu", threads=1))


def cells(html):
    tree = ElementTree.fromstring(f"<div>{html}</div>")
    found = [cell for cell in tree.iter("td") if "title" in cell.attrib]
    return {(c.attrib["data-row"], c.attrib["data-column"]): c.attrib["title"] for c in found}


def test_the_panel_shows_what_was_told(run):
    panel = RunPanel(run)
    assert panel.blocks.tables.value == ""
    panel.blocks.button.click()
    frame = run.statistics()
    for label, column in NUMBERS.items():
        panel.blocks.which.value = column
        assert panel.blocks.which.label == label
        found = cells(panel.blocks.tables.value)
        told = frame[frame[column].notna()]
        assert len(told)
        for row in told.itertuples():
            said = found[row.block, str(row.step)]
            assert said.endswith(f"{getattr(row, column):.6g}")
    kl = run.drift().query("exit == 'prediction'")["kl"].item()
    assert found["prediction", "stage 1"].endswith(f"KL, nats {kl:.6g}")
    assert panel.errors == []


def test_every_number_that_is_offered_is_a_column():
    assert set(NUMBERS.values()) <= set(COLUMNS)


def test_nothing_told_is_said():
    empty = pd.DataFrame(columns=["step", "stage", "block", *COLUMNS])
    assert "No look has told" in statistics_html(empty, "dead_frac", "<units>")
    assert "<units>" not in statistics_html(empty, "dead_frac", "<units>")
    assert (
        drift_told_html(pd.DataFrame(columns=["exit", "stage", "since", "drift", "kl"]), []) == ""
    )


def test_rows_lie_in_the_order_in_which_a_token_meets_them():
    names = ["head", "s10.0", "s2.1", "prediction", "s2.0", "embedding"]
    assert in_order(names)[:4] == ["embedding", "s2.0", "s2.1", "s10.0"]
    assert in_order(["s0.0", "s1.0"], ["s1", "s0"]) == ["s1.0", "s0.0"]
