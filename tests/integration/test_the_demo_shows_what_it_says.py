"""`stackwise demo`, with a toy shrunk to a few thousand tokens of the King James text."""

from __future__ import annotations

import io
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from matplotlib.image import imread

import stackwise as sw
from stackwise import cli
from stackwise.data.errors import DataError
from stackwise.demo import demo_study, run_demo
from stackwise.memory.flops import stage_flops_per_token
from stackwise.progress import bar_over
from stackwise.report import bytes_text
from stackwise.study import StudyResult, spent

ARMS = ["end_to_end", "left_to_right", "right_to_left, banded", "grow", "end_to_end, same bytes"]
SMALL = {
    "rack": {"blocks_per_stack": 1, "d_model": 16},
    "data": {"seq_len": 16, "heldout_frac": 0.002},
    "optim": {"batch": 4},
    "budget": {"tokens": 24 * 4 * 16},
    "eval": {"points": 2, "windows": 8},
}


def small_toy() -> sw.Experiment:
    """The preset of the demo, with the same text, stacks and arms."""
    return sw.Experiment.preset("toy").replace(**SMALL)


class Shown:
    """What one demo in a folder of its own printed and returned."""

    def __init__(self, folder: Path, placement: sw.Placement) -> None:
        out = io.StringIO()
        self.result: StudyResult = run_demo(small_toy(), placement, out)
        self.text, self.folder = out.getvalue(), folder

    def table(self, first: str) -> list[list[str]]:
        """The rows under the header that begins with `first`, cell by cell."""
        _, _, rest = self.text.partition(f"\n{first}  ")
        lines = f"{first}  {rest}".split("\n\n")[0].splitlines()
        return [re.split(r"  +", line) for line in lines if not line.startswith("--")]


@pytest.fixture(scope="module")
def shown(tmp_path_factory, cache_folder) -> Iterator[Shown]:
    """Runs lie in a folder relative to where the demo was called."""
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield Shown(folder, sw.Placement(device="cpu"))


def test_five_arms_plan_the_same_flops_within_one_step() -> None:
    base = small_toy()
    study = demo_study(base, sw.Placement())
    assert [arm.name for arm in study.arms] == ARMS
    for arm in study.arms:
        exp = arm.experiment
        dearest = max(stage_flops_per_token(exp, stage).total for stage in sw.stages(exp))
        step = dearest * exp.optim.batch * exp.data.seq_len
        assert abs(spent(exp)["flops"] - spent(base)["flops"]) < step, arm.name


def test_the_fifth_arm_is_the_rack_that_the_second_ones_bytes_pay_for(shown) -> None:
    totals = {}
    for arm, _, run in shown.result.runs:
        memory = run.memory()
        totals[arm.name] = memory[memory["category"] == "total"]["predicted"].max()
    assert totals["end_to_end, same bytes"] <= totals["left_to_right"] < totals["end_to_end"]


def test_the_table_says_of_every_arm_what_it_reached_and_cost(shown) -> None:
    head, *rows = shown.table("arm")
    assert head == [
        "arm",
        "bits per byte",
        "parameters",
        "tokens",
        "FLOPs",
        "peak memory",
        "seconds",
    ]
    assert [row[0] for row in rows] == ARMS
    for row, (_, _, run) in zip(rows, shown.result.runs, strict=True):
        result = run.result()
        assert row[1] == f"{result['bits_per_byte']:.3f} ± {result['stderr']:.3f}"
        assert row[4] == f"{result['flops']:.3g}"
        assert row[5] == bytes_text(result["peak_bytes"])


def test_every_baseline_stands_beside_it(shown) -> None:
    head, *rows = shown.table("on the same held-out text")
    bits = {name: float(value) for name, value, *_ in rows}
    assert head == ["on the same held-out text", "bits per byte"]
    packers = [f"{name} {how}" for name in ("zlib", "bz2", "xz")
               for how in ("alone", "after training text")]  # fmt: skip
    assert list(bits) == ["constant", "unigram", "bigram", *packers]
    assert bits["constant"] == 8 > bits["unigram"] > bits["bigram"] > bits["xz after training text"]


def test_it_says_plainly_that_one_seed_names_no_winner(shown) -> None:
    (line,) = [line for line in shown.text.splitlines() if "winner" in line]
    assert re.fullmatch(
        r"Lowest here: .* at \d\.\d{3} bits per byte. One seed names no winner: repeat with three "
        r"or more\.",
        line,
    )


def test_every_rack_wrote_a_sample(shown) -> None:
    for name in ARMS:
        assert re.search(rf"^ *{name}: And the LORD said", shown.text, re.MULTILINE), name


def test_the_figure_has_its_three_panels(shown) -> None:
    (path,) = re.findall(r"^Figure: (.*)$", shown.text, re.MULTILINE)
    image = imread(shown.folder / path)[:, :, :3]
    height, width, _ = image.shape
    panels = {
        "loss and stages": image[: int(height * 0.55)],
        "loss by depth": image[int(height * 0.64) :, : int(width * 0.45)],
        "memory": image[int(height * 0.64) :, int(width * 0.6) :],
    }
    for name, panel in panels.items():
        assert (panel != panel[0, 0]).any(axis=2).mean() > 0.02, f"{name}: nothing is drawn"
    coloured = {name: (panel.max(2) - panel.min(2) > 0.2).any() for name, panel in panels.items()}
    assert coloured == {"loss and stages": True, "loss by depth": True, "memory": False}


def commands_in(text: str) -> list[list[str]]:
    """The commands under `Go on with:`, without the program's name."""
    lines = text.partition("Go on with:\n")[2].splitlines()
    assert len(lines) == 5
    words = [shlex.split(line) for line in lines]
    assert len({line[0] for line in words}) == 1
    return [line[1:] for line in words]


def test_the_commands_to_go_on_with_run_as_they_stand(shown, monkeypatch, capsys) -> None:
    """The one that trains is made small; JupyterLab is not opened, only called."""
    small = [f"{part}.{key}={value}" for part, keys in SMALL.items() for key, value in keys.items()]
    called: list[list[str]] = []
    monkeypatch.setattr("subprocess.call", lambda command: called.append(command) or 0)
    first = shown.result.runs[0][2].id
    for command in commands_in(shown.text):
        assert cli.main(command + small * (command[0] == "run")) == 0, command
        out = capsys.readouterr().out
        assert {
            "runs": first,
            "sample": "In the beginning",
            "eval": "bits per byte",
            "run": "bits per byte held-out",
            "lab": "",
        }[command[0]] in out
    assert "jupyterlab" in called[0]


def test_the_second_time_nothing_is_trained_and_the_commands_name_another_folder(
    shown, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("stackwise.training.run.train_stage", None)
    placement = sw.Placement(device="cpu", runs_dir=str(shown.folder / "runs"))
    again = Shown(tmp_path, placement)
    assert again.table("arm") == shown.table("arm")
    for command in commands_in(again.text)[:3]:
        assert cli.main(command) == 0, command
    assert str(shown.folder / "runs") in " ".join(commands_in(again.text)[3])
    assert "100%" in capsys.readouterr().err, "the bar takes finished arms into account"


def test_without_matplotlib_it_says_what_to_install_before_it_trains(
    tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in sys.modules if name.startswith("stackwise_widgets")]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.startswith("matplotlib")]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DataError):
        run_demo(small_toy(), sw.Placement())
    assert cli.main(["demo"]) == 2
    err = capsys.readouterr().err
    assert err == (
        "stackwise: the figure of the demo needs the package matplotlib: pip install matplotlib\n"
    )
    assert not list(tmp_path.iterdir())


class Pencil:
    """Stands for tqdm: keeps what it is told."""

    def __init__(self, **options) -> None:
        self.n, self.initial, self.total, self.texts = 0.0, 0.0, options["total"], []

    def set_description_str(self, text, refresh) -> None:
        assert not refresh, "a bar that is drawn at every step costs more than small steps do"

    def set_postfix_str(self, text, refresh) -> None:
        assert not refresh
        self.texts.append(text)

    def update(self, flops) -> None:
        self.n += flops

    def close(self) -> None:
        pass


def test_the_bar_is_full_where_all_steps_were_taken_before(monkeypatch) -> None:
    monkeypatch.setattr("stackwise.progress.tqdm", Pencil)
    with bar_over(100.0) as bar:
        bar.end()
    assert bar.bar.n == bar.bar.initial == 100.0


def test_the_bar_shows_stage_and_loss_and_ends_at_all_planned_flops(
    tiny, place, monkeypatch
) -> None:
    """Stopped and gone on with: what another attempt spent does not count in the time left."""
    monkeypatch.setattr("stackwise.progress.tqdm", Pencil)
    exp = tiny.replace(curriculum="left_to_right")

    def stop(work, numbers):
        work.stop_requested = work.at.stage == 1

    run = sw.train(exp, place, on_step=stop)
    assert run.state == "stopped"
    planned = sum(row["flops"] for row in run.plan())
    with bar_over(planned) as bar:
        sw.resume(run, on_step=bar.on_step)
    done = bar.bar
    assert done.n == pytest.approx(planned, rel=1e-12)
    first = run.plan()[0]["flops"]
    assert first < done.initial < first + run.plan()[1]["flops"]
    assert re.fullmatch(r"stage 2/4 s1, loss \d+\.\d{3}", done.texts[0])
    assert re.fullmatch(r"stage 4/4 s3, loss \d+\.\d{3}", done.texts[-1])
