"""docs/results.md says what the results of the studies say."""

import importlib.util
import math
import re
from pathlib import Path

import pandas as pd
import pytest

DOCS = Path(__file__).parents[3] / "docs"
README = DOCS.parent / "README.md"
AGAIN = "write it again: python docs/results.py"


@pytest.fixture(scope="module")
def page(studies_path):
    spec = importlib.util.spec_from_file_location("results_page", DOCS / "results.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_the_page_is_what_the_results_make(page):
    assert (DOCS / "results.md").read_text("utf-8") == page.page(), AGAIN


def test_the_readme_counts_what_came_of_the_predictions(page, common):
    told = [page.state(folder) for folder in common.folders()]
    counts = [re.findall(r"\d+", state) for state in told if state.startswith("run")]
    right, wrong, undecided = (sum(map(int, each)) for each in zip(*counts, strict=True))
    said = " ".join(README.read_text("utf-8").split())
    assert f"{right} predictions were right, {wrong} wrong and {undecided} undecided" in said
    assert len(counts) == len(told) == 9


def test_an_arm_whose_best_rate_is_at_an_edge_is_named(page):
    rates = [0.001, 0.002, 0.004]
    tried = [("low", rates), ("middle", [0.002, 0.001, 0.004]), ("high", rates[::-1])]
    rows = [
        {"study": "one", "kind": "tuning", "arm": arm, "lr": rate, "bits_per_byte": 1.0 + place}
        for arm, order in tried
        for place, rate in enumerate(order)
    ]
    found = page.at_the_edge(pd.DataFrame(rows))
    assert found == ["low (0.001, the lowest)", "high (0.004, the highest)"]


def test_a_result_is_told_with_hash_seeds_flops_and_what_came_of_the_prediction(
    page, common, made_up, folder_of, tmp_path
):
    """Of the fifth study, which has another table, made up; a loss is told like a win."""
    folder = folder_of(5)
    made = made_up(common.studies_of(folder))
    worse = made["arm"] == "one shared stack"
    made.loc[worse, "bits_per_byte"] = 3 + made[worse]["seed"] / 1000
    copy = tmp_path / folder.name
    copy.mkdir()
    for name in ("study.yaml", "prediction.md", "figure.py"):
        (copy / name).write_text((folder / name).read_text("utf-8"))
    made.to_csv(copy / "result.csv", index=False)
    told = page.study(copy)
    runs = made[made["kind"] == "flops"]
    assert f"`{runs['study'].iloc[0]}`; equal FLOPs and tokens; seeds 0, 1, 2; 36 runs" in told
    assert "3.6e+13 FLOPs, 1.2e+13 of them for the grid" in told
    assert all(f"`{name}`" in told for name in runs[runs["seed"] == 0]["hash"])
    assert "Worse than the control: one shared stack (+" in told
    assert (
        "| 3 | one shared stack ends below specialised stacks alone at equal FLOPs | **wrong**"
        in told
    )
    assert told.count("| one shared stack | 3.001 ± 0.001 |") == 2
    assert page.state(copy).startswith("run: ")


def test_a_study_without_a_result_is_not_run(page, folder_of, tmp_path):
    copy = tmp_path / "02_growth"
    copy.mkdir()
    (copy / "prediction.md").write_text("# 2. Something\n")
    assert page.state(copy) == "not run"
    assert "Not run: `python studies/figures.py 2 --run`" in page.study(copy)


def test_numbers_that_are_not_known_are_dashes(page):
    shown = [page.cell(value) for value in (math.nan, 2048.0, 0.123456, "text")]
    assert shown == ["-", "2,048", "0.1235", "text"]
