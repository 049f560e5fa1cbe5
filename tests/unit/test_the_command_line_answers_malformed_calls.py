"""Malformed commands: one clear message on stderr and exit code 2, never a traceback."""

import re
import signal
import subprocess
import sys

import pytest

import stackwise as sw
from stackwise import Experiment, ExperimentError, Placement
from stackwise.cli import main
from stackwise.memory.room import check_room
from stackwise.runs import RunError, make_run
from stackwise.stopping import gently, listening

CALLS = {
    "no command": ([], "COMMAND"),
    "an unknown command": (["frobnicate"], "invalid choice: 'frobnicate'"),
    "no experiment": (["run"], "the following arguments are required: EXPERIMENT\n"),
    "an unknown preset": (["run", "toyy"], "nor a preset; did you mean 'toy'? known: "),
    "an empty name": (["run", ""], "'' is neither a YAML file, a model folder nor a preset"),
    "a change and no experiment": (
        ["run", "rack.heads=4"],
        "'rack.heads=4' is a change; name what it changes first, as: toy rack.heads=4",
    ),
    "a missing file": (["run", "nope.yaml"], "nope.yaml: no such file"),
    "a folder": (["run", "folder"], "folder: is a folder; name a YAML file"),
    "a file that is no text": (["run", "latin.yaml"], "byte 10 is not UTF-8 text"),
    "a list": (["run", "list.yaml"], "list.yaml: ['a'] is not a mapping of keys"),
    "no YAML": (["run", "open.yaml"], "open.yaml: line 2, column 1: "),
    "an unknown key in a file": (
        ["run", "typo.yaml"],
        "typo.yaml: rack.headz: unknown key; did you",
    ),
    "no equals sign": (["run", "toy", "optim.lr"], "'optim.lr': not of the form key=value"),
    "no key": (["run", "toy", "=3"], "'=3': not of the form key=value"),
    "no value": (["run", "toy", "optim.lr="], "optim.lr: is empty; give a value"),
    "an unknown key": (["run", "toy", "optim.lrr=3"], "optim.lrr: unknown key; did you mean 'lr'?"),
    "an empty part": (["run", "toy", "optim..lr=3"], "optim.'': unknown key"),
    "a dot": (["run", "toy", ".=3"], "'': unknown key"),
    "too deep": (["run", "toy", "seed.x=3"], "seed: {'x': 3} is not a whole number"),
    "open brackets": (["run", "toy", "seed=" + "[" * 3000], "is not YAML: is nested too deeply"),
    "an open brace": (
        ["run", "toy", "optim={lr: 1e-3"],
        "optim: '{lr: 1e-3' is not YAML: line 1, column 10: expected ',' or '}'",
    ),
    "a key twice in braces": (
        ["run", "toy", "optim={lr: 1e-3, lr: 2e-3}"],
        "optim: '{lr: 1e-3, lr: 2e-3}' is not YAML: line 1, column 12: the key 'lr' is given twice",
    ),
    "a colon and nothing": (
        ["run", "toy", "data.corpus=hf:"],
        "data.corpus: 'hf:' ends with its colon; write hf:DATASET",
    ),
    "no date": (["run", "toy", "seed=2024-99-99"], "seed: '2024-99-99' is not a whole number"),
    "true": (["run", "toy", "seed=true"], "seed: True is not a number"),
    "a tag": (["run", "toy", "seed=!!python/name:os.system"], "is not a whole number"),
    "an unknown device": (["run", "toy", "placement=gpu"], "placement.device: 'gpu' is not one"),
    "an unknown placement": (["run", "toy", "placement.nope=1"], "placement.nope: unknown key"),
    "too little": (
        ["run", "toy", "data=text:long.txt", "data.tokenizer=bytes", "budget.tokens=10"],
        "budget.tokens: 10 is less than one step",
    ),
    "no text": (["run", "toy", "data=text:none.txt"], "none.txt: no such file"),
    "no tokenizer": (["run", "toy", "data.tokenizer=json:none.json"], "none.json: no such file"),
    "an unknown option": (
        ["run", "toy", "attention={kind: mlm, rank: 3}"],
        "attention: unknown kind 'mlm'; did you mean",
    ),
    "demo, what the arms set": (
        ["demo", "curriculum=grow"],
        "curriculum: the five arms of the demo set it; leave it out",
    ),
    "demo, bands": (
        ["demo", "masking.bands=linear"],
        "masking.bands: the five arms of the demo set it; leave it out",
    ),
    "demo, an unknown change": (["demo", "nope"], "'nope': not of the form key=value"),
    "resume, no run": (["resume", "nope"], "nope: no such run in runs"),
    "resume, half a run": (["resume", "runs/half"], "placement.yaml: no such file"),
    "eval, no run": (["eval", "nope"], "nope: no such run in runs"),
    "eval, half a run": (["eval", "runs/half"], "no such file"),
    "eval, too many draws": (
        ["eval", "x", "--draws", "9999"],
        "--draws: 9999 must be 1 or more, and at most 1024",
    ),
    "eval, a huge seed": (
        ["eval", "x", "--seed", "99999999999"],
        "--seed: 99999999999 must be 0 or more, and at most 2147483647",
    ),
    "sample, bytes that are no text": (
        ["sample", "x", "a\udcff"],
        "prompt: character 1 is not UTF-8 text",
    ),
    "resume, nothing": (["resume", ""], "'' names no run; `stackwise runs` lists those"),
    "eval, no number": (["eval", "x", "--draws", "zz"], "invalid int value: 'zz'"),
    "sample, no run": (["sample", "nope"], "nope: no such run in runs"),
    "sample, half a run": (["sample", "runs/half"], "no such file"),
    "import, nothing": (["import"], "the following arguments are required: MODEL_DIR"),
    "import, no folder": (["import", "nope"], "nope: is no folder; name one that holds config"),
    "import, a name too long": (["import", "x" * 5000], "is no folder; name one that holds"),
    "import, no model": (["import", "folder"], "folder/config.json: no such file; fetch it with"),
    "import, no number": (
        ["import", "folder", "--blocks-per-stack", "0"],
        "blocks_per_stack: 0 must be a whole number of 1 or more",
    ),
    "export, no target": (["export", "x"], "the following arguments are required: TARGET"),
    "export, no source": (["export", "nope", "out"], "nope: no such run in runs"),
    "export, a name too long": (["export", "x" * 5000, "out"], "no such run in runs"),
    "export, another format": (["export", "x", "out", "--to", "gguf"], "invalid choice: 'gguf'"),
    "export, no size": (
        ["export", "x", "out", "--shard-size", "five"],
        "--shard-size: 'five' is no size of a file; write it as 5GB or 500MB",
    ),
    "export, an empty size": (
        ["export", "x", "out", "--shard-size", "0GB"],
        "--shard-size: '0GB' is no size of a file; write it as 5GB or 500MB",
    ),
    "export, half a run": (["export", "runs/half", "out"], "no such file"),
    "runs, a file": (["runs", "--runs-dir", "list.yaml"], "list.yaml: is no folder"),
}


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "latin.yaml").write_bytes("title: caf\xe9".encode("latin-1"))
    (tmp_path / "long.txt").write_text("In the beginning " * 1000)
    (tmp_path / "list.yaml").write_text("- a\n")
    (tmp_path / "open.yaml").write_text("rack: [1,\n")
    (tmp_path / "typo.yaml").write_text("rack:\n  headz: 4\n")
    (tmp_path / "runs" / "half").mkdir(parents=True)
    (tmp_path / "runs" / "half" / "stages.json").write_text("{")


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize(("call", "expected"), CALLS.values(), ids=list(CALLS))
def test_a_malformed_call_is_answered_with_one_message(call, expected, capsys):
    try:
        code = main(call)
    except SystemExit as stop:  # argparse's own way to say it
        code = stop.code
    out, err = capsys.readouterr()
    assert code == 2
    assert expected in err
    assert out == ""
    assert len(re.findall(r"^stackwise[a-z ]*: ", err, re.MULTILINE)) == 1
    assert "Traceback" not in err


@pytest.mark.usefixtures("workplace")
def test_a_damaged_run_does_not_hide_the_others(capsys):
    assert main(["runs"]) == 0
    assert re.search(r"half +damaged", capsys.readouterr().out)


@pytest.mark.usefixtures("workplace")
def test_a_finished_run_whose_events_are_damaged_says_what_is_left(tmp_path, capsys):
    run = finished(tmp_path)
    (run.path / "events.jsonl").write_text("{bad\n")
    with pytest.warns(UserWarning, match=r"events\.jsonl is damaged: 1 of its lines"):
        assert main(["resume", run.id]) == 6
    assert re.fullmatch(
        rf"stackwise: run {run.id}: is finished, but its events.jsonl is damaged and holds no "
        rf"result; .* eval {run.id} measures its weights again\n",
        capsys.readouterr().err,
    )


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize(
    ("objective", "call", "expected"),
    [
        (
            "clm",
            ["--steps", "8"],
            "--steps: 8 is not read with objective=clm, which writes one token at a time; leave "
            "it out",
        ),
        (
            "clm",
            ["--method", "ancestral"],
            "--method: 'ancestral' fills in masks, of which objective=clm knows none; use "
            "autoregressive or leave it out",
        ),
        (
            "mlm",
            ["--method", "autoregressive"],
            "--method: 'autoregressive' reads from left to right, which objective=mlm does not "
            "learn; use ancestral, first_hitting, confidence, margin, entropy, random, remask, "
            "semi_autoregressive, through_depth or leave it out",
        ),
        ("mlm", ["--method", ""], "--method: is empty; name a method or leave it out"),
    ],
)
def test_a_way_to_sample_that_the_rack_does_not_read_is_refused(
    objective, call, expected, tmp_path, capsys
):
    run = finished(tmp_path, objective=objective)
    assert main(["sample", run.id, *call]) == 2
    assert capsys.readouterr().err == f"stackwise: {expected}\n"


@pytest.mark.usefixtures("workplace")
def test_a_rack_larger_than_the_machine_is_refused_with_the_figures(monkeypatch, capsys):
    monkeypatch.setattr("stackwise.memory.room.machine_bytes", lambda: 1 << 20)
    assert main(["run", "toy", "data=text:long.txt", "placement=cpu"]) == 3
    assert re.fullmatch(
        r"stackwise: rack: training takes \d+\.\d MiB by arithmetic, and this machine has 1\.0 "
        r"MiB; make the rack smaller, or lower "
        r"placement\.micro_batch, or give placement\.checkpointing=true, or with a curriculum "
        r"that freezes stacks, give placement\.trunk=streamed; `stackwise plan` says what would "
        r"fit",
        capsys.readouterr().err.strip(),
    )
    plan = [{"peak_bytes": 1 << 50, "host_bytes": 0}]
    monkeypatch.setattr("stackwise.memory.room.machine_bytes", lambda: None)
    check_room(plan, Placement(device="cpu"))
    monkeypatch.setattr("stackwise.memory.room.machine_bytes", lambda: 1 << 20)
    with pytest.raises(ExperimentError, match=r"^rack: training takes .* by arithmetic"):
        sw.train("toy", "cpu")


def finished(folder, **changes):
    """A run that is finished as far as its status says."""
    run = make_run(
        folder / "runs",
        "done",
        experiment=Experiment(title="done", **changes).to_yaml(),
        placement=Placement().to_yaml(),
        stages=[{"name": "s0"}],
        plan=[],
        facts={"data": {"notes": []}},
    )
    (run.path / "status.json").write_text('{"state": "finished", "stage": 0, "step": 1}')
    return run


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")
def test_ctrl_c_while_it_is_still_importing_is_no_traceback():
    code = (
        "import signal, sys, time\n"
        # as at a terminal; where tests run in a shell's background it is ignored
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "class Slow:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'stackwise.data':\n"
        "            print('importing', flush=True)\n"
        "            time.sleep(60)\n"
        "sys.meta_path.insert(0, Slow())\n"
        "from stackwise.cli import main\n"
        "sys.exit(main(['presets']))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "stackwise: interrupted\n")


def test_the_command_line_itself_is_imported_at_once():
    code = "import sys, stackwise.cli; print([m for m in ('yaml', 'pydantic') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.usefixtures("workplace")
def test_the_list_says_why_a_run_failed_and_outlives_a_folder_in_place_of_a_file(tmp_path, capsys):
    run = finished(tmp_path)
    (run.path / "status.json").write_text('{"state": "failed", "stage": 0, "step": 1}')
    (run.path / "exit.json").write_text('{"error": "OSError: disk full"}')
    other = make_run(
        tmp_path / "runs", "other", experiment="{}", placement="{}", stages=[], plan=[], facts={}
    )
    (other.path / "events.jsonl").mkdir()
    assert main(["runs"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"done +failed", said)
    assert re.search(r"other +damaged", said)
    assert "\ndone: OSError: disk full\n" in said
    (run.path / "status.json").write_text('{"state": "finished", "stage": 0, "step": 1}')
    assert run.error().startswith("events.jsonl is damaged: it holds no result; restore it")
    assert "\nother: [Errno 21] Is a directory" in said
    assert "\nhalf: run half: stages.json is damaged; restore it" in said


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize(
    ("state", "code", "expected"),
    [
        (
            "finished",
            6,
            "run done: is finished, but its rack/manifest.json is missing; restore it from a copy "
            "of the run, or train again (rerun=True, --rerun)",
        ),
        ("stopped", 1, "run done: has no checkpoint yet; it is stopped"),
    ],
)
def test_a_run_without_weights_says_how_it_stands(state, code, expected, tmp_path, capsys):
    run = finished(tmp_path)
    (run.path / "status.json").write_text(f'{{"state": "{state}", "stage": 0, "step": 1}}')
    assert main(["sample", run.id]) == code
    assert capsys.readouterr().err == f"stackwise: {expected}\n"


@pytest.mark.usefixtures("workplace")
def test_a_run_without_its_tokenizer_says_so(tmp_path):
    with pytest.raises(RunError) as error:
        finished(tmp_path).tokenizer()
    assert str(error.value) == (
        "run done: tokenizer.json is missing; restore it from a copy of the run, or train again "
        "(rerun=True, --rerun)"
    )


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no terminal to close")
def test_a_closed_terminal_stops_a_run_as_sigterm_does():
    asked = []
    outside = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored where tests run under nohup
    try:
        with listening(program=True), gently(lambda: asked.append("a stop")):
            signal.raise_signal(signal.SIGHUP)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with listening(program=True), gently(lambda: asked.append("under nohup")):
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, outside)
    assert asked == ["a stop"]
