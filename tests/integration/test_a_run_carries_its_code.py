"""A kind of one's own goes along with its run, and is imported only by those who trust it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import stackwise as sw
from stackwise import own_code
from stackwise.cli import main
from stackwise.detached import launch as launching
from stackwise.runs import Run, RunError
from stackwise.training.run import resume
from stackwise.training.score import evaluate_run

from ..warm import forked_json

MINE = '''
from __future__ import annotations

from pathlib import Path
from typing import Literal

import stackwise as sw
from stackwise.schedules import Schedule, TimeSchedule


class Root(sw.Params):
    """alpha(t) = 1 - sqrt(t)."""

    name: Literal["root"] = "root"


def root(params: Root) -> TimeSchedule:
    return TimeSchedule(lambda t: 1 - t**0.5, lambda t: 0.5 / t, lambda lam: lam**2)


def two(exp):
    ids = sw.stack_ids(exp.rack)
    yield sw.Stage(path=ids[:2])
    yield sw.Stage(path=ids, active=ids[2:])


sw.SCHEDULES["root"] = Schedule(root, Root)
sw.CURRICULA["two"] = two
Path("imported").touch()
'''
TRAIN = """
import json, sys
import stackwise as sw

runs, code, stop, changes = sys.argv[1:]
sw.load_code(code)
exp = sw.Experiment(**json.loads(changes))
place = sw.Placement(runs_dir=runs, device="cpu")


def one(work, numbers):
    work.stop_requested = bool(int(stop)) and work.at.total_steps >= 9


run = sw.train(exp, place, code=[code], on_step=one)
print(json.dumps([str(run.path), run.state, run.weights_hash()]))
"""


@pytest.fixture(autouse=True)
def registries_stay() -> Iterator[None]:
    before, files = own_code._snapshot(), dict(own_code._loaded)
    yield
    own_code._restore(before)
    own_code._loaded.clear()
    own_code._loaded.update(files)


@pytest.fixture
def mine(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return path


def trained(tiny: sw.Experiment, mine: Path, stop: bool, runs: str = "runs") -> list[str]:
    """A run made by a process that knows the kinds; what is imported there leaves no mark here."""
    asked = tiny.model_dump(mode="json")
    asked |= {"masking": {"schedule": "root"}, "curriculum": {"name": "two"}}
    found = forked_json(TRAIN, runs, str(mine), str(int(stop)), json.dumps(asked))
    Path("imported").unlink()
    return found


def test_opening_a_run_imports_nothing_and_trusting_it_goes_on_to_the_same_bits(tiny, mine, capsys):
    whole = trained(tiny, mine, stop=False, runs="whole")
    path, state, _ = trained(tiny, mine, stop=True)
    assert state == "stopped" and Path(path).name == Path(whole[0]).name
    run = sw.attach(path)
    (
        run.summary(),
        run.metrics(),
        run.events(),
        run.plan(),
        run.stages(),
        run.provenance(),
        run.log(),
    )
    run.share("shared.html")
    assert main(["runs"]) == 0 and main(["watch", path, "--once", "--plain"]) == 0
    capsys.readouterr()
    (digest,) = run.carries().values()
    why = (
        f"run {run.id}: carries code of its own, which is not imported unless you trust it: "
        f"code/mine.py (sha256 {digest}). Read it; then say --trust on the command line, or "
        "trust=True"
    )
    refused = [
        lambda: resume(run),
        lambda: launching.relaunch(run),
        lambda: run.fork(after_stage=0),
        lambda: evaluate_run(run),
        lambda: run.rack(),
    ]
    for act in refused:
        with pytest.raises(sw.TrustError) as error:
            act()
        assert str(error.value).startswith(why)
    for words in (["resume"], ["eval"], ["sample"], ["fork"], ["export"]):
        more = {"fork": ["0"], "export": ["out"]}.get(words[0], [])
        assert main([*words, path, *more]) == 8, words
        assert why in capsys.readouterr().err
    assert not Path("imported").exists()
    assert resume(run, trust=True).weights_hash() == whole[2]
    assert Path("imported").exists()


def test_only_what_the_run_began_with_is_imported(tiny, mine):
    path, *_ = trained(tiny, mine, stop=True)
    (Path(path) / "code" / "mine.py").write_text("open('imported', 'w')")
    with pytest.raises(RunError, match=r"code/mine.py: is not what the run began with"):
        resume(path, trust=True)
    (Path(path) / "code" / "mine.py").unlink()
    (Path(path) / "code" / "mine.py").symlink_to(mine)
    with pytest.raises(RunError, match=r"code/mine.py: cannot be read"):
        resume(path, trust=True)
    assert not Path("imported").exists()


def test_a_launched_run_has_its_code_from_whoever_launched_it(tiny, mine, place):
    sw.load_code(mine)
    exp = tiny.replace(curriculum="two", **{"masking.schedule": "root"})
    with pytest.raises(sw.ExperimentError, match="'root' is known to this process alone"):
        sw.launch(exp, place)
    run = sw.launch(exp, place, code=mine, queue=False)
    run.wait(60)
    assert run.state == "finished", run.error()
    assert run.carries() == {"mine.py": own_code.read_code(mine)[0].sha256}
    branch = run.fork(after_stage=0, queue=False, optim={"lr": 0.02})
    branch.wait(60)
    assert branch.state == "finished" and branch.carries() == run.carries()


def test_code_is_part_of_what_a_run_is_and_of_nothing_else(tiny, mine, place):
    from stackwise.training.start import create_run

    plain = create_run(tiny, place)
    assert plain.carries() == {} and not (plain.path / "code").exists()
    carrying = create_run(tiny, place, code=own_code.read_code(mine))
    mine.write_text(f"{MINE}\n")
    other = create_run(tiny, place, code=own_code.read_code(mine))
    assert len({plain.id, carrying.id, other.id}) == 3
    assert not Path("imported").exists()  # a run may carry what it does not need


def test_kinds_that_are_known_need_no_code(tiny, mine):
    path, *_ = trained(tiny, mine, stop=True)
    cell = MINE.replace('Path("imported").touch()', "")
    exec(compile(cell, "a cell", "exec", dont_inherit=True), sys.modules[__name__].__dict__)
    assert resume(path).state == "finished"
    assert not Path("imported").exists()


def test_another_version_of_a_file_is_not_taken_for_the_runs_own(tiny, mine):
    path, *_ = trained(tiny, mine, stop=True)
    mine.write_text(MINE.replace("0.5 / t", "0.4 / t"))
    sw.load_code(mine)
    with pytest.raises(sw.TrustError, match="carries code of its own"):
        resume(path)
    assert resume(path, trust=True).state == "finished"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            "import stackwise as sw\nsw.ATTENTION['mha'] = 1",
            "replaces attention 'mha', which Stack",
        ),
        ("import stackwise as sw\ndel sw.ATTENTION['mha']", "takes attention 'mha' away"),
        ("1 / 0", "cannot be imported: ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "cannot be imported: SystemExit: 3"),
        ("def", "cannot be imported: SyntaxError"),
    ],
)
def test_a_file_that_would_change_what_ships_is_refused(mine, text, why):
    before = own_code._snapshot()
    mine.write_text(text)
    with pytest.raises(sw.ExperimentError, match=why):
        sw.load_code(mine)
    assert own_code._snapshot() == before


def test_a_file_has_to_bring_what_the_experiment_names(tiny, mine, place):
    sw.load_code(mine)
    exp = tiny.replace(**{"masking.schedule": "root"})
    other = mine.with_name("other.py")
    other.write_text("")
    with pytest.raises(sw.ExperimentError, match=r"'root' is brought by none of other\.py"):
        sw.train(exp, place, code=other)
    mine.write_text(f"{MINE}\n")
    with pytest.raises(sw.ExperimentError, match=r"mine.py has changed since masking.schedule"):
        sw.train(exp, place, code=mine)


def test_a_study_carries_code_too(tiny, mine, place, capsys):
    sw.load_code(mine)
    exp = tiny.replace(**{"masking.schedule": "root"})
    study = sw.Study(exp, placement=place, code=mine, same_bytes=False, lr_grid=None)
    result = study.run()
    assert all(run.carries() for _, _, run in result.runs)
    shutil.rmtree(Path(place.runs_dir) / result.runs[0][2].id / "rack")
    own_code._restore({**own_code._snapshot(), "masking.schedule": {
        k: v for k, v in sw.SCHEDULES.items() if k != "root"}})  # fmt: skip
    own_code._loaded.clear()
    Path("imported").unlink()
    assert main(["study", str(study.folder), "--plan"]) == 8
    assert "code/mine.py (sha256 " in capsys.readouterr().err
    assert not Path("imported").exists()
    assert main(["study", str(study.folder), "--plan", "--trust"]) == 0
    assert sw.Study(tiny, placement=place).folder.name.startswith("study-tiny-")


def test_the_command_line_takes_code_before_it_reads_the_experiment(mine, capsys):
    small = ["rack.stacks=3", "rack.d_model=16", "rack.heads=2", "curriculum=two", "masking=root"]
    assert main(["plan", "toy", *small]) == 2
    assert "unknown name 'two'" in capsys.readouterr().err
    assert main(["plan", "toy", *small, "--code", str(mine)]) == 0


def test_a_provenance_that_lists_other_files_is_damaged(tiny, mine, place):
    from stackwise.training.start import create_run

    run = create_run(tiny, place, code=own_code.read_code(mine))
    facts = run.provenance()
    for name in ("../mine.py", "/etc/mine.py", "mine.txt", "", "a\0.py", 3):
        facts["carries"] = [{"file": name, "sha256": "0" * 64}]
        (run.path / "provenance.json").write_text(json.dumps(facts))
        with pytest.raises(RunError, match=r"provenance.json is damaged"):
            Run(run.path).carries()
