"""`python studies/figures.py`: from runs, from a result alone, and what is said if they differ."""

import shutil

import pytest

BASE = {
    "preset": "toy",
    "rack": {"stacks": 2, "d_model": 8, "heads": 2, "d_ff": 8},
    "data": {"seq_len": 8},
    "optim": {"batch": 2},
    "budget": {"tokens": 64},
    "eval": {"points": 1, "windows": 2, "depths": "last", "final": 8},
}
FIGURE = """
from common import Claim, compared, rows_of
from drawing import paired_panels

measure, table = rows_of, compared


def claims(frame):
    return [Claim("it is not known", None)]


def draw(frame):
    return paired_panels(frame)[0]
"""


@pytest.fixture
def folder(common, tmp_path, monkeypatch):
    """Studies of which there is one, tiny."""
    import yaml

    made = tmp_path / "03_tiny"
    made.mkdir()
    asked = {"base": BASE, "vary": {"curriculum": ["end_to_end", "left_to_right"]}, "lr_grid": None}
    (made / "study.yaml").write_text(
        yaml.safe_dump({**asked, "seeds": [0, 1], "same_bytes": False})
    )
    (made / "prediction.md").write_text("# 3. Tiny\n\n1. it is not known\n")
    (made / "figure.py").write_text(FIGURE)
    monkeypatch.setattr(common, "ROOT", tmp_path)
    return made


def test_a_study_is_made_checked_and_made_from_its_result_alone(folder, figures, common, capsys):
    assert figures.main(["3"]) == 0 and "not run to its end" in capsys.readouterr().out
    assert figures.main(["3", "--check"]) == 0 and "not run" in capsys.readouterr().out
    (study,) = common.studies_of(folder)
    study.run()
    assert figures.main(["3"]) == 0
    assert "from run folders" in capsys.readouterr().out
    assert {path.name for path in folder.glob("figure.*")} == {
        "figure.py", "figure.pdf", "figure.svg", "figure.png",
    }  # fmt: skip
    first, picture = (folder / "result.csv").read_bytes(), (folder / "figure.svg").read_bytes()
    assert figures.main(["--check"]) == 0
    assert "agrees" in capsys.readouterr().out

    text = first.decode()
    bits = text.splitlines()[1].split(",")[text.splitlines()[0].split(",").index("bits_per_byte")]
    (folder / "result.csv").write_text(text.replace(bits, "1.0"))
    for call in (["3", "--check"], ["3"]):
        assert figures.main(call) == 1
        assert "result.csv differs: bits_per_byte" in capsys.readouterr().out
    assert (folder / "figure.svg").read_bytes() == picture
    (folder / "result.csv").write_bytes(first)

    shutil.rmtree(folder / "runs")
    assert figures.main(["3", "--check"]) == 0
    assert "from result.csv alone" in capsys.readouterr().out
    assert figures.main(["3"]) == 0
    assert "undecided: it is not known" in capsys.readouterr().out
    assert (folder / "result.csv").read_bytes() == first
    assert (folder / "figure.svg").read_bytes() == picture


def test_a_number_that_no_study_has_is_refused(folder, figures, capsys):
    with pytest.raises(SystemExit):
        figures.main(["4"])
    assert "there are studies 3" in capsys.readouterr().err
