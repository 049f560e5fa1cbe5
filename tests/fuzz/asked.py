"""Targets: what a user asks for. Experiments, placements, studies, machines and command lines."""

import contextlib
import io
import json
import os
from pathlib import Path
from typing import Any
from unittest import mock

import stackwise as sw
from stackwise.cli import main
from stackwise.errors import ExperimentError
from stackwise.planner.hardware import hardware_called
from stackwise.training.start import TrainingError

from .workplace import place, tiny

STEPS = 2000  # stages of an experiment that is looked at further: a plan of more takes its time
CODES = {0, 1, 2, 3, 4, 5, 6, 7, 8, 130, 143}
# What trains, measures, draws or deletes for good is no parser.
LEFT_OUT = ("doctor", "calibrate", "lab", "demo", "delete")


def written(name: str, content: bytes) -> Path:
    """A file of the workplace with this content."""
    path = place() / name
    path.write_bytes(content)
    return path


def experiment(content: bytes) -> None:
    """An experiment's file; one that is none the less valid comes back from its own text."""
    exp = sw.Experiment.load(written("fuzzed.yaml", content))
    assert sw.Experiment.from_yaml(exp.to_yaml()) == exp
    str(exp)
    sw.stages(exp)


def python_mapping(content: bytes) -> None:
    """The same from Python, where what JSON holds is given as it is."""
    exp = sw.Experiment(**keyed(content))
    sw.stages(exp)


def replaced(content: bytes) -> None:
    """Changes of an experiment, dotted keys among them."""
    sw.stages(tiny().replace(**keyed(content)))


def placement(content: bytes) -> None:
    """A placement's file, and the same laid over another one."""
    made = sw.Placement.load(written("fuzzed.yaml", content))
    assert sw.Placement().replace(**made.model_dump()) == made


def study(content: bytes) -> None:
    """A study's file."""
    path = written("fuzzed-study.yaml", content)
    with working_in(place()):
        sw.Study.load(path)


def card(content: bytes) -> None:
    """A machine that a file describes, and a plan on it."""
    machine = hardware_called(written("fuzzed.yaml", content))
    sw.plan(tiny(), sw.Placement(device="cpu"), hardware=machine)


def command_line(content: bytes) -> None:
    """A command, a word on each line; nothing of it trains, and nothing is waited for."""
    words = content.decode("utf-8", "surrogateescape").replace("\0", "").split("\n")
    if words[0] in LEFT_OUT:
        words[0] = "plan"
    if words[0] == "watch":
        words.append("--once")
    if words[0] == "study":
        words.append("--plan")
    with (
        working_in(place()),
        mock.patch("stackwise.training.start.create_run", checked),
        mock.patch("stackwise.training.run.execute", refused),
        mock.patch("stackwise.detached.launch.start", refused),
        mock.patch("stackwise.detached.launch.create_run", checked),
        mock.patch(
            "stackwise.lr_range.Stepper", lambda exp, *_, **__: checked(exp, sw.Placement())
        ),
        mock.patch("stackwise.training.score.evaluate_run", refused),
        mock.patch("stackwise.planner.advise.one_bought", refused),  # it takes half a minute
    ):
        told(words)


def told(words: list[str]) -> None:
    """Run a command in this process; it has to end as its page says, with words if it failed."""
    said, wrong = terminal("strict"), terminal("backslashreplace")
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(wrong):
        try:
            code = main(words)
        except SystemExit as stop:  # argparse's own way to say it
            code = stop.code if stop.code is not None else 0
    text = "".join(stream.buffer.getvalue().decode() for stream in (said, wrong))  # type: ignore[attr-defined]
    assert code in CODES, f"exit code {code}"
    assert "Traceback" not in text
    assert code in (0, 3) or text.strip(), f"{words[0]} failed without a word"


def checked(exp: sw.Experiment, where: sw.Placement, **_: Any) -> Any:
    """What is found out of a run before its text is read."""
    from stackwise.rules import check_placement

    check_placement(exp, where)
    made = sw.stages(exp)
    if len(made) <= STEPS:
        from stackwise.memory.bytes import plan_rows

        plan_rows(exp, where, made)
    refused()


def refused(*_: Any, **__: Any) -> Any:
    raise TrainingError("nothing trains here")


def keyed(content: bytes) -> dict[str, Any]:
    """A JSON mapping, or nothing: what Python itself refuses is no matter of ours."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        raise ExperimentError("no JSON") from None
    if not isinstance(found, dict):
        raise ExperimentError("no mapping")
    found.pop("self", None)
    return found


def terminal(errors: str) -> io.TextIOWrapper:
    """A stream as a terminal's in a UTF-8 locale."""
    return io.TextIOWrapper(io.BytesIO(), "utf-8", errors=errors, write_through=True)


@contextlib.contextmanager
def working_in(folder: Path) -> Any:
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
