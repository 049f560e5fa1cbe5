"""Standard streams that are closed, full, or read by nobody end no run and reach none of its files.

What a command could not say on standard output is an error with that stream's name, by which
whoever called it knows.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import stackwise as sw

from ..warm import Child

CODE = """
import os, sys
from stackwise.cli import main
how, *arguments = sys.argv[1:]
kept = sys.stdout, sys.stderr  # they would close their numbers as they go
if how == "closed":  # as the shell's >&- 2>&- <&-: Python has no streams, and the numbers are free
    for number in (0, 1, 2):
        os.close(number)
    sys.stdin = sys.stdout = sys.stderr = sys.__stdout__ = sys.__stderr__ = None
else:
    name, _, number = how.partition(" ")
    if name == "unread":
        read, write = os.pipe()
        os.close(read)
    else:
        write = os.open("/dev/full", os.O_WRONLY)
    os.dup2(write, int(number))
    for stream, own in (("stdout", 1), ("stderr", 2)):
        made = open(own, "w", closefd=False)
        setattr(sys, stream, made)
        setattr(sys, f"__{stream}__", made)
os._exit(main(arguments))
"""
NOBODY = "stackwise: standard output: nobody reads it any more"
FULL = "stackwise: standard output cannot be written: No space left on device"


@pytest.fixture
def exp(tiny) -> sw.Experiment:
    return tiny.replace(budget={"tokens": 4 * 4 * 16})


@pytest.fixture
def file(exp, tmp_path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(exp.to_yaml())
    return path


def called(how: str, *arguments: str) -> tuple[int, str]:
    with Child(CODE, how, *arguments) as child:
        _, errors = child.stdout.read(), child.stderr.read()
        return child.wait(), errors


@pytest.mark.parametrize("how", ["closed", "unread 2"])
def test_it_trains_to_the_same_weights(how, file, exp, place, tmp_path) -> None:
    whole = sw.train(exp, place.replace(runs_dir=str(tmp_path / "whole")))
    code, _ = called(
        how, "run", str(file), "placement.device=cpu", f"placement.runs_dir={place.runs_dir}"
    )
    (run,) = sw.runs_in(place.runs_dir)
    assert (code, run.state, run.weights_hash()) == (0, "finished", whole.weights_hash())


@pytest.mark.parametrize(("how", "code", "said"), [("full 1", 5, FULL), ("unread 1", 1, NOBODY)])
def test_what_cannot_be_printed_is_an_error(how, code, said) -> None:
    assert called(how, "presets") == (code, f"{said}\n")


def test_closed_streams_keep_their_numbers() -> None:
    """A run's file that got the number of standard error would have warnings written into it."""
    code = (
        "import os\nfrom stackwise.cli.streams import hold_numbers\n"
        "os.close(0); os.close(2)\nhold_numbers()\n"
        "handle = os.open('/dev/zero', os.O_RDONLY)\n"
        "print(handle > 2, os.readlink('/proc/self/fd/2'))"
    )
    with Child(code) as child:
        assert child.stdout.read().split() == ["True", os.devnull]
        assert child.wait() == 0
