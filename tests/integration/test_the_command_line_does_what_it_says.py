"""`stackwise run | resume | eval | sample | runs | presets`: what succeeds, and Ctrl-C.

What is answered to malformed calls is in `tests/unit`; `import` and `export` are in
`test_models_move_by_the_command_line.py`.
"""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

import stackwise as sw
from stackwise.cli import arguments as cli
from stackwise.cli import main
from stackwise.cli.keeping import FETCH_MORE, PRUNE_MORE
from stackwise.cli.running import LAUNCH_MORE
from stackwise.cli.settings import settings
from stackwise.progress import Bar
from stackwise.report import bytes_text

# The toy, shrunk to a synthetic text and 60 steps, as one types it.
SMALL = shlex.split(
    "toy title=small curriculum=left_to_right rack.blocks_per_stack=1 rack.d_model=16 "
    "'data.corpus={kind: markov, size_bytes: 40000}' data.seq_len=16 optim.batch=4 "
    "budget.tokens=3840 eval.points=2 eval.windows=8 placement.device=cpu placement.threads=1"
)
PROGRAM = [sys.executable, "-c", "import sys; from stackwise.cli import main; sys.exit(main())"]
# The same, but in step 23 it waits for a line, so that the signal finds it there.
WAITING = """
import sys
from stackwise.cli import main
from stackwise.progress import Bar
step = Bar.on_step
def waiting(bar, work, numbers):
    step(bar, work, numbers)
    if work.at.total_steps == 23:
        print("in step 23", flush=True)
        sys.stdin.readline()
Bar.on_step = waiting
sys.exit(main())
"""


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(capsys, *arguments: str, code: int = 0) -> list[str]:
    """What a command prints, line by line."""
    assert main(arguments) == code
    return capsys.readouterr().out.splitlines()


def stop_in_step(monkeypatch, number: int) -> None:
    """What the first Ctrl-C does, in a step that is known."""
    step = Bar.on_step

    def on_step(bar, work, numbers):
        step(bar, work, numbers)
        work.stop_requested = work.at.total_steps == number

    monkeypatch.setattr(Bar, "on_step", on_step)


def command_in(line: str) -> list[str]:
    """The command that a message ends with, without the program's own name."""
    return shlex.split(line.partition(": ")[2])[1:]


@pytest.mark.usefixtures("here")
def test_from_a_run_over_a_stop_to_text(capsys, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        stop_in_step(patch, 20)
        first, stopped = said(capsys, "run", *SMALL, code=130)
    run = sw.runs_in("runs")[0]
    assert first == f"{run.id}: {run.experiment}"
    assert stopped.startswith("stopped and saved; go on with: ")
    assert command_in(stopped) == ["resume", run.id]

    head, _, row, together = said(capsys, "runs")
    assert re.split("  +", head) == [
        "run",
        "state",
        "stage",
        "step",
        "bits per byte",
        "peak memory",
        "disk",
        "predicted",
    ]
    assert together == f"on disk together: {bytes_text(run.disk()['bytes'])}"
    assert row.split()[:4] == [run.id, "stopped", "2/4", "20"]

    _, result, beside, hint = said(capsys, *command_in(stopped))
    bits = f"{run.result()['bits_per_byte']:.3f}"
    assert re.fullmatch(
        rf"{bits} bits per byte held-out \(upper bound \(NELBO\) .*\), 24\.7 k parameters, "
        r"[\d.e+]+ FLOPs, peak [\d.]+ [KM]iB, \d+ s of training",
        result,
    )
    assert re.fullmatch(
        r"on the same text: constant 8\.000, unigram \d\.\d{3}, bigram \d\.\d{3}; entropy of the "
        r"source \d\.\d{3} bits per byte",
        beside,
    )
    assert command_in(hint)[:2] == ["sample", run.id]
    assert said(capsys, "run", *SMALL) == [first, result, beside, hint], "it attaches"
    assert said(capsys, "runs")[2].split()[:5] == [run.id, "finished", "4/4", "60", bits]

    score, note, again = said(capsys, "eval", run.id)
    assert re.fullmatch(
        rf"{run.result()['bits_per_byte']:.4f} ± 0\.\d{{4}} bits per byte, \d\.\d{{4}} nats per "
        r"token, 2000 tokens of 2000 bytes",
        score,
    )
    assert (note, again) == (run.result()["note"], beside)

    asked = ("sample", run.id, "abc", "--length", "20")
    texts = [
        "\n".join(said(capsys, *asked, *options))
        for options in ([], ["--seed", "1"], ["--steps", "4"], ["--method", "confidence"])
    ]
    assert all(text.startswith("abc") and len(text) == 23 for text in texts)
    assert len(set(texts)) == 4
    assert "\n".join(said(capsys, *asked)) == texts[0]


@pytest.mark.usefixtures("here")
def test_runs_in_another_folder_are_called_by_it(capsys, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        stop_in_step(patch, 5)
        *_, stopped = said(capsys, "run", *SMALL, "placement.runs_dir=my runs", code=130)
    command = command_in(stopped)
    assert command == ["resume", str(Path("my runs") / sw.runs_in("my runs")[0].id)]
    *_, hint = said(capsys, *command)
    assert said(capsys, *command_in(hint))[0].startswith("In the beginning")
    assert said(capsys, "runs", "--runs-dir", "my runs")[2].split()[1] == "finished"
    assert said(capsys, "runs")[0].startswith("no runs in runs; make one with: ")


def test_presets_are_listed_by_size_with_the_published_counts(capsys) -> None:
    lines = said(capsys, "presets")
    rows = [re.split("  +", line) for line in lines[2 : 2 + len(sw.presets())]]
    counts = [int(row[5].replace(",", "")) for row in rows]
    assert counts == sorted(counts)
    assert [row[0] for row in rows][2:] == [
        "text8",
        "bert-base",
        "gpt2-small",
        "1b",
        "8b",
        "llama-2-70b",
        "llama-3-70b",
        "405b",
    ]
    known = ["8b", "16 x 2", "4096", "gqa", "clm", "8,030,261,248"]
    assert known in [row[:6] for row in rows]
    assert command_in(lines[-1]) == ["run", "toy"]


def test_ctrl_c_says_how_to_go_on_and_going_on_gives_the_weights_of_an_uninterrupted_run(
    here, capsys
) -> None:
    """The real program in a process of its own, and the signal that a terminal sends.

    A second one would interrupt at once; the first lets the step in hand end.
    """
    child = subprocess.Popen(
        [sys.executable, "-c", WAITING, "run", *SMALL, "placement.runs_dir=stopped"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    first = child.stdout.readline()
    assert child.stdout.readline() == "in step 23\n"
    child.send_signal(signal.SIGINT)
    out, err = child.communicate("\n", timeout=120)
    assert child.returncode == 130
    assert "Traceback" not in err
    (run,) = sw.runs_in("stopped")
    last = out.splitlines()[-1]
    assert first.startswith(f"{run.id}: ")
    assert last.startswith("stopped and saved; go on with: ")
    assert run.state == "stopped" and len(run.metrics()) == 23

    going_on = subprocess.run([*PROGRAM, *command_in(last)], capture_output=True, text=True)
    assert going_on.returncode == 0, going_on.stderr
    said(capsys, "run", *SMALL, "placement.runs_dir=whole")
    (whole,) = sw.runs_in("whole")
    assert run.state == whole.state == "finished"
    assert run.weights_hash() == whole.weights_hash()
    assert run.result()["bits_per_byte"] == whole.result()["bits_per_byte"]


@pytest.mark.usefixtures("here")
def test_a_stopped_demo_says_that_the_same_command_goes_on(capsys, monkeypatch) -> None:
    demo = [change for change in SMALL[1:] if not change.startswith("curriculum")]
    with monkeypatch.context() as patch:
        stop_in_step(patch, 5)
        assert main(["demo", *demo]) == 130
    err = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(
        r"stackwise: end_to_end stopped and saved; the same study goes on from there: .*stackwise"
        r"(\.cli)? demo",
        err,
    )


def test_lab_says_what_to_install(monkeypatch, capsys) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["lab"]) == 2
    err = capsys.readouterr().err
    assert err == "stackwise: stackwise lab needs the package jupyterlab: pip install jupyterlab\n"


TRAINING = ["run", "resume", "runs", "eval", "sample", "import", "export", "fetch"]
PLANNING = ["plan", "lr-find", "advise", "calibrate", "doctor"]
RUNNING = ["launch", "pause", "stop", "watch", "fork", "label", "delete", "share"]
COMMANDS = [*TRAINING, *RUNNING, "study", *PLANNING, "presets", "demo", "lab"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_explains_every_argument(command, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for action in subparser(command)._actions:
        assert action.help and action.help in shown, action.dest


def subparser(command: str):
    (commands,) = [a for a in cli.parser()._actions if hasattr(a, "choices") and a.choices]
    assert list(commands.choices) == COMMANDS
    return commands.choices[command]


@pytest.mark.usefixtures("here")
def test_the_examples_of_the_help_are_commands(capsys) -> None:
    Path("mine.yaml").write_text(sw.Experiment.preset("toy").to_yaml())
    sizes = {"vocab_size": 256, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2)).save_pretrained("llama")
    sw.import_model("llama", "models/Llama-3.1-8B")
    training = [cli.FIRST_STEPS, cli.RUN_MORE, LAUNCH_MORE, PRUNE_MORE, FETCH_MORE]
    text = "\n".join([*training, cli.IMPORT_MORE, cli.EXPORT_MORE])
    lines = [re.split("  +", line.strip())[0] for line in text.splitlines()]
    examples = [shlex.split(line)[1:] for line in lines if line.startswith("stackwise ")]
    assert len(examples) == 23
    for words in examples:
        options = cli.parser().parse_args(words)
        if words[0] in ("run", "launch"):
            settings(options.experiment, options.changes)
