"""The command line: `stackwise run | resume | runs | eval | sample | presets | demo | lab`.

Each command is a small function over the public names. Exit codes: 0 done, 1 failed, 2 the command
or the experiment is wrong, 130 stopped with Ctrl-C (the run is saved and can be resumed).
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

STOPPED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    What takes long to import is imported inside, so that Ctrl-C is answered from the start.
    """
    try:
        return answered(arguments)
    except KeyboardInterrupt:
        print("stackwise: interrupted", file=sys.stderr)
        return STOPPED


def answered(arguments: Sequence[str] | None) -> int:
    """The same; Ctrl-C outside of training is raised."""
    options = parser().parse_args(arguments)
    from stackwise.data.errors import DataError
    from stackwise.runs import RunBusy, RunError
    from stackwise.training.checkpoint import CheckpointError
    from stackwise.training.run import Stopped
    from stackwise.training.start import TrainingError

    try:
        return int(options.command(options))
    except (ValueError, RunError, DataError) as error:
        print(f"stackwise: {error}", file=sys.stderr)
        return 2
    except (RunBusy, CheckpointError, TrainingError, OSError) as error:
        print(f"stackwise: {error}", file=sys.stderr)
        return 1
    except Stopped as stopped:
        print(f"stackwise: {stopped}", file=sys.stderr)
        return STOPPED


FIRST_STEPS = """first steps:
  stackwise presets                      what can be trained as it is
  stackwise run toy curriculum=grow      minutes on two cores; Ctrl-C stops it, and nothing is lost
  stackwise runs                         what is there, and how far it is
  stackwise sample RUN "In the beginning"

RUN is a run's id, or the beginning of one, or its folder. Exit codes: 0 done, 1 failed, 2 the
command or the experiment is wrong, 130 stopped with Ctrl-C and saved."""
RUN_MORE = """The run is a folder in placement.runs_dir, named by what decides its numbers. The
same command again finds the run that is there, and goes on with it if it is unfinished. Keys are
those of a run's experiment.yaml and, after placement., of its placement.yaml; an unknown key is
answered with those that there are.

examples:
  stackwise run toy
  stackwise run toy curriculum=right_to_left masking.bands=linear seed=1
  stackwise run mine.yaml data.corpus=text:book.txt budget.flops=1e12 placement.device=cuda"""


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

    run = add("run", run_command, "train an experiment: a preset's name or a YAML file", RUN_MORE)
    run.add_argument(
        "experiment",
        metavar="EXPERIMENT",
        help="a name that `stackwise presets` lists, or a YAML file",
    )
    run.add_argument(
        "changes",
        nargs="*",
        default=[],
        metavar="key=value",
        help="changes: optim.lr=1e-3 curriculum=grow",
    )
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
    runs = add("runs", runs_command, "list the runs, newest first")
    score = add("eval", eval_command, "bits per byte of a run's rack on its held-out text")
    _takes_a_run(score)
    score.add_argument("--draws", type=int, help="masks per window; default: the run's eval.draws")
    score.add_argument("--seed", type=int, help="of the masks; default: the run's")
    score.add_argument("--device", choices=["auto", "cpu", "cuda"], help="default: the run's")
    score.add_argument("--best", action="store_true", help="the best checkpoint, not the last")
    score.add_argument(
        "--raw", action="store_true", help="of an unfinished run, the weights without averaging"
    )
    text = add("sample", sample_command, "let a run's rack write text")
    _takes_a_run(text)
    text.add_argument("prompt", nargs="?", default="", help="the text to continue (default: none)")
    text.add_argument("--length", type=int, default=64, help="tokens to add (default 64)")
    text.add_argument(
        "--steps", type=int, default=None, help="denoising steps; default: one per token"
    )
    text.add_argument(
        "--method",
        default=None,
        help="ancestral, confidence or autoregressive; default: autoregressive for a rack trained "
        "with clm, else ancestral",
    )
    text.add_argument(
        "--temperature", type=float, default=1.0, help="0: the likeliest tokens (default 1)"
    )
    text.add_argument("--seed", type=int, default=0, help="of every random choice (default 0)")
    for command in (again, runs, score, text):
        command.add_argument("--runs-dir", default="runs", help="folder of the runs (default runs)")
    add("presets", presets_command, "list the shipped experiments with their parameter counts")
    demo = add("demo", demo_command, "train a small rack five ways on real text, at equal FLOPs")
    demo.add_argument(
        "changes", nargs="*", metavar="key=value", help="changes to the toy preset, as for run"
    )
    add("lab", lab_command, "open JupyterLab on the notebooks")
    return top


def _takes_a_run(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "run", metavar="RUN", help="a run's id, the beginning of one, or its folder"
    )


def settings(source: str, changes: Sequence[str]) -> tuple[Any, Any]:
    """The experiment and placement that a preset or file and `key=value` pairs say.

    A file may hold a section `placement` beside those of the experiment.

    Raises:
        ExperimentError: If anything of it is wrong.
    """
    from stackwise.changes import merged, nested
    from stackwise.config import Experiment, Placement, presets
    from stackwise.errors import ExperimentError, closest, said_in
    from stackwise.yaml_text import read_mapping, read_text

    science = nested(said(changes))
    asked, section = science.pop("placement", {}), {}
    if source in presets():
        exp = Experiment.preset(source)
    elif Path(source).suffix in (".yaml", ".yml") or (source and Path(source).exists()):
        values = read_mapping(read_text(source), source)
        section = values.pop("placement", {})
        with said_in(source):
            exp = Experiment(**values)
    elif re.match(r"[\w.]+=", source):
        raise ExperimentError(
            f"{source!r} is a change; name what it changes first, as: toy {source}"
        )
    else:
        raise ExperimentError(
            f"{source!r} is neither a YAML file nor a preset{closest(source, presets())}"
        )
    with said_in(source):
        placement = Placement.model_validate(section)
    return exp.replace(**science), Placement.model_validate(merged(placement, asked))


def said(changes: Sequence[str]) -> dict[str, Any]:
    """Keys and values of `key=value` pairs.

    Raises:
        ExperimentError: If one is no such pair.
    """
    from stackwise.errors import ExperimentError

    found: dict[str, Any] = {}
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals or not key:
            raise ExperimentError(f"{change!r}: not of the form key=value, as in optim.lr=1e-3")
        found.pop(key, None)  # of a key given twice the later one counts, also for its place
        found[key] = parsed(text, key)
    return found


def placement_keys(changes: Sequence[str]) -> dict[str, Any] | None:
    """What `placement.key=value` pairs change of a run; None for nothing.

    Raises:
        ExperimentError: If one is no such pair, or would change what decides the numbers.
    """
    from stackwise.changes import nested
    from stackwise.errors import ExperimentError

    found = nested(said(changes))
    wrong = [key for key in found if key != "placement"]
    if wrong:
        raise ExperimentError(
            f"{wrong[0]}: decides the numbers, which a run that is there does not change; only "
            "placement.key=value is read here"
        )
    keys = found.get("placement")
    return {"device": keys} if isinstance(keys, str) else keys


def parsed(text: str, key: str) -> Any:
    """A value as YAML reads it; what is not YAML is text, unless it begins a mapping or a list.

    Raises:
        ExperimentError: If it does, and is not YAML.
    """
    import yaml

    from stackwise.errors import ExperimentError, short
    from stackwise.yaml_text import marked, read_value

    if re.fullmatch(r"\w+:", text):  # as data=text: and no mapping to nothing
        return text
    try:
        return read_value(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if not text.lstrip().startswith(("{", "[")):
            return text
        why = marked(error) if isinstance(error, yaml.MarkedYAMLError) else "is nested too deeply"
        raise ExperimentError(f"{key}: {short(text)} is not YAML: {why}") from None


def run_command(options: argparse.Namespace) -> int:
    """Train, with a progress bar; Ctrl-C stops and keeps everything."""
    from stackwise.memory.room import check_room
    from stackwise.training.start import create_run, seen_from, settled

    exp, placement = settings(options.experiment, options.changes)
    given = bool(placement.model_fields_set)
    exp, placement = settled(exp, placement)
    check_room(exp, placement)
    run = create_run(exp, placement, rerun=options.rerun)
    return carry_out(run, seen_from(run.path, placement) if given else None)


def resume_command(options: argparse.Namespace) -> int:
    """Go on with a run."""
    from stackwise.runs import attach
    from stackwise.training.start import changed_placement

    keys = placement_keys(options.changes)
    run = attach(options.run, options.runs_dir)
    return carry_out(run, None if run.state == "finished" else changed_placement(run, keys))


def carry_out(run: Any, placement: Any = None) -> int:
    """Execute a run under a progress bar and say what came of it."""
    from stackwise.progress import bar_over
    from stackwise.report import beside, bytes_text, called, count_text, number, program
    from stackwise.runs import RunError
    from stackwise.runs.folder import RESTORE
    from stackwise.training.run import execute

    print(f"{run.id}: {run.experiment}")
    for note in run.provenance()["data"]["notes"]:
        print(f"note: {note}")
    if run.state != "finished":
        try:
            with bar_over(sum(row["flops"] for row in run.plan())) as bar, hangup_saves():
                execute(run, placement, on_step=bar.on_step)
                if run.state == "finished":  # also where all steps were taken before
                    bar.end()
        except KeyboardInterrupt:
            print(
                "stackwise: interrupted before the state was saved; go on from the last "
                f"checkpoint with: {program()} resume {called(run)}",
                file=sys.stderr,
            )
            return STOPPED
    if run.state == "stopped":
        print(f"stopped and saved; go on with: {program()} resume {called(run)}")
        return STOPPED
    result = run.result()
    if not result:
        raise RunError(
            f"run {run.id}: is finished, but its events.jsonl is damaged and holds no result; "
            f"{program()} eval {called(run)} measures its weights again"
        )
    print(
        f"{number(result['bits_per_byte'])} bits per byte held-out ({result['note']}), "
        f"{count_text(result['parameters'])} parameters, {result['flops']:.3g} FLOPs, "
        f"peak {bytes_text(result['peak_bytes'])}, {result['seconds']:.0f} s of training"
    )
    print(beside(run))
    if not run.has_weights():
        raise RunError(f"run {run.id}: its weights are gone: rack/ holds none; {RESTORE}")
    print(f'look at it with: {program()} sample {called(run)} "In the beginning"')
    return 0


@contextmanager
def hangup_saves() -> Iterator[None]:
    """A closed terminal stops a run as SIGTERM does, with its state saved; not under nohup."""
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is None or signal.getsignal(hangup) == signal.SIG_IGN:
        yield
        return
    before = signal.signal(hangup, lambda *_: signal.raise_signal(signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(hangup, before)


def runs_command(options: argparse.Namespace) -> int:
    """List the runs, newest first."""
    from stackwise.report import program, table
    from stackwise.runs import runs_in

    folder = Path(options.runs_dir)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{options.runs_dir}: is no folder; name the one that holds the runs")
    found = runs_in(folder)
    if not found:
        print(f"no runs in {options.runs_dir}; make one with: {program()} run toy")
        return 0
    head = ["run", "state", "stage", "step", "bits per byte", "peak memory"]
    print(table(head, [run_row(run.summary()) for run in found]))
    for run in found:
        why = run.error()
        if why:
            print(f"{run.id}: {why}")
    return 0


def run_row(found: Mapping[str, Any]) -> list[str]:
    """What the list says of one run's summary; of a damaged one, that it is."""
    from stackwise.report import bytes_text, number

    try:
        if found["problem"] is None:
            return [
                found["id"],
                found["state"],
                f"{(found['stage'] or 0) + 1}/{found['stages']}",
                str(found["step"] or 0),
                number(found["bits_per_byte"]),
                bytes_text(found["peak_bytes"]),
            ]
    except TypeError:  # a file of it holds something else than numbers
        pass
    return [found["id"], "damaged", "", "", "", ""]


def eval_command(options: argparse.Namespace) -> int:
    """Score a run's rack on its held-out text: without options, the figure that it reported."""
    from stackwise.report import beside
    from stackwise.runs import attach
    from stackwise.training.score import evaluate_run

    for name, low, high in (("draws", 1, 1024), ("seed", 0, (1 << 31) - 1)):
        value = getattr(options, name)
        if value is not None and not low <= value <= high:
            raise ValueError(f"--{name}: {value} must be {low} or more, and at most {high}")
    run = attach(options.run, options.runs_dir)
    score = evaluate_run(
        run,
        best=options.best,
        raw=options.raw,
        seed=options.seed,
        draws=options.draws,
        device=options.device,
    )
    print(
        f"{score.bits_per_byte:.4f} ± {score.stderr:.4f} bits per byte, "
        f"{score.nats_per_token:.4f} nats per token, {score.tokens} tokens of {score.bytes} bytes"
    )
    print(score.note)
    print(beside(run))
    return 0


def sample_command(options: argparse.Namespace) -> int:
    """Write text."""
    from stackwise.objective import is_causal
    from stackwise.runs import attach
    from stackwise.sampling import sample

    check_prompt(options.prompt)
    run = attach(options.run, options.runs_dir)
    causal = is_causal(run.experiment.objective)
    usual = "autoregressive" if causal else "ancestral"
    check_sampling(options, run.experiment.objective.choice, causal)
    print(
        sample(
            run.rack(),
            options.prompt,
            tokenizer=run.tokenizer(),
            length=options.length,
            steps=options.steps,
            method=usual if options.method is None else options.method,
            temperature=options.temperature,
            seed=options.seed,
        )
    )
    return 0


def check_prompt(prompt: str) -> None:
    """Refuse bytes of the command line that are no text."""
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"prompt: character {error.start} is not UTF-8 text") from None


def check_sampling(options: argparse.Namespace, objective: str, causal: bool) -> None:
    """Refuse what a rack of this objective does not read, or what would write noise."""
    from stackwise.errors import ExperimentError

    method = options.method
    if method == "":
        raise ExperimentError("--method: is empty; name a method or leave it out")
    if causal and options.steps is not None:
        raise ExperimentError(
            f"--steps: {options.steps} is not read with objective={objective}, which writes one "
            "token at a time; leave it out"
        )
    if method is None:
        return
    kind = method.partition(":")[0]
    if causal and kind in ("ancestral", "confidence"):
        raise ExperimentError(
            f"--method: {kind!r} fills in masks, of which objective={objective} knows none; use "
            "autoregressive or leave it out"
        )
    if not causal and kind == "autoregressive":
        raise ExperimentError(
            f"--method: 'autoregressive' reads from left to right, which objective={objective} "
            "does not learn; use ancestral, confidence or leave it out"
        )


def presets_command(options: argparse.Namespace) -> int:
    """List the shipped experiments."""
    from stackwise.config import Experiment, presets
    from stackwise.memory.bytes import cache_bytes_per_token
    from stackwise.memory.flops import vocab_size
    from stackwise.model.count import count_parameters
    from stackwise.model.shape import stack_ids
    from stackwise.report import program, table

    rows = []
    for name in presets():
        exp = Experiment.preset(name)
        count = count_parameters(exp.rack, exp.attention, vocab_size(exp))
        shape = f"{exp.rack.stacks} x {exp.rack.blocks_per_stack}"
        kinds = [exp.attention.choice, exp.objective.choice]
        cache = f"{cache_bytes_per_token(exp, stack_ids(exp.rack)):,}"
        row = [name, shape, str(exp.rack.d_model), *kinds, f"{count:,}", cache]
        rows.append((count, row))
    head = ["preset", "stacks x blocks", "width", "attention", "objective", "parameters"]
    head += ["KV cache, bytes/token"]
    print(table(head, [row for _, row in sorted(rows)]))
    print(f"\ntrain one with: {program()} run toy")
    return 0


def demo_command(options: argparse.Namespace) -> int:
    """Run the demo."""
    from stackwise.changes import nested
    from stackwise.demo import run_demo
    from stackwise.errors import ExperimentError

    for key, value in nested(said(options.changes)).items():
        if key == "curriculum" or (
            key == "masking" and isinstance(value, Mapping) and "bands" in value
        ):
            name = key if key == "curriculum" else "masking.bands"
            raise ExperimentError(f"{name}: the five arms of the demo set it; leave it out")
    exp, placement = settings("toy", options.changes)
    run_demo(exp, placement)
    return 0


def lab_command(options: argparse.Namespace) -> int:
    """Open JupyterLab, on the loopback address, with its usual token."""
    import importlib.util
    import subprocess

    from stackwise.data.errors import missing_package

    if importlib.util.find_spec("jupyterlab") is None:
        raise missing_package("stackwise lab", "jupyterlab")
    folder = Path("notebooks")
    command = [sys.executable, "-m", "jupyterlab", "--ServerApp.ip=127.0.0.1"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")  # as in a container; only this machine can reach it
    return subprocess.call([*command, str(folder)] if folder.is_dir() else command)


if __name__ == "__main__":
    sys.exit(main())
