"""A signal to stop is obeyed on the spot, gently, or once what must not be cut is done."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress

import pytest

from stackwise import stopping
from stackwise.runs import RunWriter, make_run
from stackwise.stopping import Terminated, gently, listening, undisturbed, was_interrupted


def test_on_the_spot_it_is_an_exception_of_its_kind() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt) as stop, listening(program=True):
        signal.raise_signal(signal.SIGINT)
    assert stop.type is KeyboardInterrupt and was_interrupted()
    with pytest.raises(Terminated), listening(program=True):
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGINT) == before


def test_gently_the_first_one_asks_and_the_second_one_interrupts() -> None:
    asked = []
    with listening(program=True), gently(lambda: asked.append("a stop")):
        signal.raise_signal(signal.SIGTERM)
        assert asked == ["a stop"]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert asked == ["a stop"]


def test_what_must_not_be_cut_is_done_first() -> None:
    done = []
    with pytest.raises(Terminated), listening(program=True), undisturbed():
        signal.raise_signal(signal.SIGTERM)
        done.append("all of it")
    assert done == ["all of it"]


def test_the_last_word_of_a_run_is_said_whole(tmp_path, monkeypatch) -> None:
    run = make_run(tmp_path, "toy", experiment="", placement="", stages=[], plan=[], facts={})
    write_exit = RunWriter._write_exit

    def told(self, error):
        signal.raise_signal(signal.SIGTERM)
        write_exit(self, error)

    with monkeypatch.context() as patch:
        patch.setattr(RunWriter, "_write_exit", told)
        with pytest.raises(Terminated), listening(program=True), RunWriter(run.path):
            pass
    assert run.state == "finished" and (run.path / "exit.json").exists()
    with RunWriter(run.path):
        assert run.state == "running", "it was let go of"


def test_nothing_is_raised_while_an_exception_unwinds(monkeypatch) -> None:
    with listening(program=True):
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)  # a third one, or that of a terminal to its group
        monkeypatch.setattr(stopping, "UNWINDING_SECONDS", 0.0)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_one_whose_exception_got_lost_is_obeyed_before_the_next_step() -> None:
    asked = []
    with listening(program=True):
        with suppress(KeyboardInterrupt):  # as a finalizer does, which cannot raise
            signal.raise_signal(signal.SIGTERM)
        with gently(lambda: asked.append("a stop")):
            assert asked == ["a stop"]


def test_in_another_thread_it_does_nothing() -> None:
    before, seen = signal.getsignal(signal.SIGTERM), []

    def inside() -> None:
        with listening(), gently(lambda: None), undisturbed():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [before]


def test_a_script_that_would_have_ended_at_sigterm_does_so_once_it_is_unwound(tmp_path) -> None:
    child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            with listening():
                try:
                    signal.raise_signal(signal.SIGTERM)
                finally:
                    (tmp_path / "unwound").touch()
        finally:
            os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
    assert (tmp_path / "unwound").exists()
