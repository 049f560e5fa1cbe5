"""A panel's thread that computes as Python ends is waited for: killed in torch, it would abort."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAD = """
import threading, torch
from stackwise_widgets.latest import Latest
from stackwise_widgets.panel import Guard
from stackwise_widgets.player import Player
from stackwise_widgets.ticking import Ticking

begun = threading.Event()

def work(*found):
    begun.set()
    a = torch.randn(300, 300)
    for _ in range(100):
        a = (a @ a).softmax(-1)
    print("worked")
    return True
"""
LATEST = """
latest = Latest(Guard())
latest.ask("first", work)
begun.wait()
for word in ("second", "third"):
    latest.ask(word, work)
"""
TICKING = "ticking = Ticking('ticking', work, Guard(), 0.001); ticking.start(); begun.wait()"
PLAYER = """
player = Player("playing", work, lambda: 0.001, Guard(), lambda: None)
player.play()
begun.wait()
"""


@pytest.mark.parametrize("using", [LATEST, TICKING, PLAYER], ids=["latest", "ticking", "player"])
def test_python_ends_well(using) -> None:
    done = subprocess.run([sys.executable, "-c", HEAD + using], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() in (["worked"], ["worked"] * 2)  # not all that was asked
