"""The commands, their options and what `--help` says of them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from stackwise.cli.checking import doctor_command
from stackwise.cli.keeping import PRUNE_MORE, add_fetch, add_keeping, add_prune
from stackwise.cli.looking import (
    eval_command,
    lab_command,
    presets_command,
    runs_command,
)
from stackwise.cli.lr_finding import add_lr_find
from stackwise.cli.moving import export_command, import_command
from stackwise.cli.planning import add_advise, add_calibrate, add_plan
from stackwise.cli.running import add_running
from stackwise.cli.sampling import SAMPLE_MORE, add_sample_options, sample_command
from stackwise.cli.settings import add_settings, add_trust
from stackwise.cli.studying import add_study
from stackwise.cli.training import demo_command, resume_command, run_command
from stackwise.exit_codes import TEXT

FIRST_STEPS = f"""first steps:
  stackwise presets                      what can be trained as it is
  stackwise plan toy --hardware h200     what it will take, before anything is made
  stackwise run toy curriculum=grow      minutes on two cores; Ctrl-C stops it, and nothing is lost
  stackwise launch toy curriculum=grow   the same in a process of its own
  stackwise watch toy-grow               how it stands, until it ends
  stackwise runs                         what is there, and how far it is
  stackwise sample RUN "In the beginning"

RUN is a run's id, or the beginning of one, or its folder.
{TEXT}"""
RUN_MORE = """The run is a folder in placement.runs_dir, named by what decides its numbers. The
same command again finds the run that is there, and goes on with it if it is unfinished. Keys are
those of a run's experiment.yaml and, after placement., of its placement.yaml; an unknown key is
answered with those that there are.

examples:
  stackwise run toy
  stackwise run toy curriculum=right_to_left masking.bands=linear seed=1
  stackwise run mine.yaml data.corpus=text:book.txt budget.flops=1e12 placement.device=cuda
  stackwise run models/Llama-3.1-8B data.corpus=text:book.txt optim.name=adamw8bit"""
IMPORT_MORE = """Weights keep their dtype, bit for bit, and are streamed: a few rows of a tensor
are in memory at a time, however large the model is. Only safetensors and JSON are read, no pickle.
`stackwise run` of the new folder trains the model a stack at a time.

examples:
  stackwise import Llama-3.1-8B
  stackwise import Llama-3.1-8B models/eight --blocks-per-stack 4"""
EXPORT_MORE = """SOURCE is a model folder, as `stackwise import` makes it, or a run: its id, the
beginning of one, or its folder. What was imported comes out bit for bit. Of a run the moving
average is given where there is one; what is printed says which weights they are, and so does the
new folder's stackwise.json. A rack that no Llama can be is refused with every reason.

examples:
  stackwise export models/eight out
  stackwise export RUN out --shard-size 2GB"""

DOCTOR_MORE = """Small real runs in a scratch folder, which is removed at the end, by Ctrl-C, too.
What is measured goes into a file, from which plans take their error bars on this machine.
Exit codes: 0 all is good, 1 something failed, 2 the command is wrong.

examples:
  stackwise doctor
  stackwise doctor --quick
  stackwise doctor --device cuda --folder /big/runs --output doctor.json"""


def read(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What a command line says. Changes may follow an option, where argparse itself takes none."""
    top = parser()
    options, left = top.parse_known_args(arguments)
    changes = [word for word in left if "=" in word and not word.startswith("-")]
    if left and (changes != left or not hasattr(options, "changes")):
        top.error(f"unrecognized arguments: {' '.join(left)}")
    if changes:
        options.changes = [*options.changes, *changes]
    return options


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    plain = argparse.RawDescriptionHelpFormatter
    title = "Train transformers a few layers at a time, and compare what that gives and costs."
    top = argparse.ArgumentParser(
        prog="stackwise", description=title, epilog=FIRST_STEPS, formatter_class=plain
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, function: Any, text: str, more: str = "") -> argparse.ArgumentParser:
        made = commands.add_parser(
            name, help=text, description=text, epilog=more, formatter_class=plain
        )
        made.set_defaults(command=function)
        return made

    run = add("run", run_command, "train: a preset, a YAML file or an imported model", RUN_MORE)
    add_settings(run, "changes: optim.lr=1e-3 curriculum=grow")
    run.add_argument("--rerun", action="store_true", help="make another run even if there is one")
    again = add("resume", resume_command, "go on with a run from its last checkpoint")
    _takes_a_run(again)
    again.add_argument(
        "changes",
        nargs="*",
        default=[],
        metavar="placement.key=value",
        help="how it is carried out from here on: placement.device=cuda",
    )
    again.add_argument(
        "--from",
        dest="checkpoint",
        type=int,
        metavar="STEP",
        help="go back to the checkpoint of this step; a wrong one is answered with those there are",
    )
    again.add_argument(
        "--detach", action="store_true", help="in a process of its own, and return at once"
    )
    add_keeping(run)
    add_keeping(again, launched="--detach")
    runs = add("runs", runs_command, "list the runs, newest first", PRUNE_MORE)
    add_prune(runs)
    score = add("eval", eval_command, "bits per byte of a run's rack on its held-out text")
    _takes_a_run(score)
    score.add_argument("--draws", type=int, help="masks per window; default: the run's eval.draws")
    score.add_argument("--seed", type=int, help="of the masks; default: the run's")
    score.add_argument("--device", choices=["auto", "cpu", "cuda"], help="default: the run's")
    score.add_argument("--best", action="store_true", help="the best checkpoint, not the last")
    score.add_argument(
        "--raw", action="store_true", help="of an unfinished run, the weights without averaging"
    )
    text = add("sample", sample_command, "let a run's rack write text", SAMPLE_MORE)
    _takes_a_run(text)
    add_sample_options(text)
    _add_import(
        add(
            "import",
            import_command,
            "read a Hugging Face Llama folder into a model folder",
            IMPORT_MORE,
        )
    )
    out = add(
        "export",
        export_command,
        "write a model folder or a run as transformers loads it",
        EXPORT_MORE,
    )
    _add_export(out)
    for command in (again, score, text, out):
        add_trust(command)
    for command in (again, runs, score, text, out):
        command.add_argument("--runs-dir", default="runs", help="folder of the runs (default runs)")
    add_fetch(add)
    add_running(add)
    add_study(add)
    for command_of in (add_plan, add_lr_find, add_advise, add_calibrate):
        command_of(add)
    _add_doctor(
        add(
            "doctor",
            doctor_command,
            "find out in ten minutes whether to trust this machine",
            DOCTOR_MORE,
        )
    )
    add("presets", presets_command, "list the shipped experiments with their parameter counts")
    demo = add("demo", demo_command, "train a small rack five ways on real text, at equal FLOPs")
    demo.add_argument(
        "changes", nargs="*", metavar="key=value", help="changes to the toy preset, as for run"
    )
    add("lab", lab_command, "open JupyterLab on the notebooks")
    return top


def _add_import(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "model",
        metavar="MODEL_DIR",
        help="a folder with config.json and safetensors files, as save_pretrained writes it",
    )
    command.add_argument(
        "target",
        metavar="TARGET",
        nargs="?",
        help="the new folder; default: models/ and the name of MODEL_DIR",
    )
    command.add_argument(
        "--blocks-per-stack",
        type=int,
        default=1,
        metavar="N",
        help="layers in each stack (default 1)",
    )
    command.add_argument(
        "--seed",
        type=int,
        default=0,
        help="of the vector of [MASK], and of [START] where config.json names no bos_token_id "
        "(default 0)",
    )


def _add_export(command: argparse.ArgumentParser) -> None:
    command.add_argument("source", metavar="SOURCE", help="a model folder or a run")
    command.add_argument("target", metavar="TARGET", help="the new folder")
    command.add_argument(
        "--to", choices=["hf"], default="hf", help="hf: Hugging Face's Llama (default)"
    )
    command.add_argument(
        "--shard-size",
        default="5GB",
        metavar="SIZE",
        help="at most this much in one file (default 5GB)",
    )
    command.add_argument(
        "--raw", action="store_true", help="of an unfinished run, the weights without averaging"
    )
    command.add_argument("--best", action="store_true", help="of a run, its best checkpoint")


def _add_doctor(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--quick", action="store_true", help="environment and gradient gates alone, under a minute"
    )
    command.add_argument(
        "--device", choices=["auto", "cpu", "cuda"], default="auto", help="default: auto"
    )
    command.add_argument(
        "--folder",
        metavar="DIR",
        help="where scratch runs go, and whose disk is measured (default runs)",
    )
    command.add_argument(
        "--output",
        metavar="FILE",
        help="the file of figures (default: doctor.json in StackWise's folder of your cache)",
    )
    command.add_argument(
        "--memory",
        metavar="SIZE",
        help="most that one run may take (default: an eighth of what is free, 1GiB at most, on a "
        "card 4GiB)",
    )


def _takes_a_run(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "run", metavar="RUN", help="a run's id, the beginning of one, or its folder"
    )
