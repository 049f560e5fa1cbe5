"""A button's handler waits for the running cell, on the main thread; a thread's updates do not.

So training belongs into a process of its own, and what shows it into a thread.
"""

from .lab import Lab
from .notebooks import HELD

PANEL = """
import threading, time
import ipywidgets as widgets

on_main_thread = []
ticks = widgets.Label("tick 0")
said = widgets.Label("waiting")
button = widgets.Button(description="Press")


@button.on_click
def pressed(_):
    on_main_thread.append(threading.current_thread() is threading.main_thread())
    said.value = "answered"


def tick():
    for n in range(1, 10_000):
        ticks.value = f"tick {n}"
        time.sleep(0.1)


threading.Thread(target=tick, daemon=True).start()
widgets.VBox([button, said, ticks])
"""


def test_a_click_waits_for_the_running_cell_and_a_thread_does_not(lab: Lab) -> None:
    lab.open(lab.write("busy.ipynb", PANEL, HELD))
    lab.run(0)
    lab.run(1, wait=False)
    lab.click("Press")
    lab.wait_for_change(lab.wait_for("tick"), times=10)
    assert lab.busy
    assert "answered" not in lab.text(0)

    lab.release()
    lab.wait_for("answered")
    assert "released" in lab.text(1)
    assert lab.value("on_main_thread") == "[True]"
