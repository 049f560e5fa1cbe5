"""A reload loses what was not saved; saved widgets come back live, and plain output as it was then.

So a panel can be made again from the run's folder, and prints nothing that is needed later.
"""

from .lab import Lab
from .notebooks import HELD

PANEL = """
import threading, time
import ipywidgets as widgets

ticks = widgets.Label("tick 0")
said = widgets.Label("waiting")
button = widgets.Button(description="Press")
button.on_click(lambda _: setattr(said, "value", "answered"))


def tick():
    for n in range(1, 10_000):
        ticks.value = f"tick {n}"
        time.sleep(0.1)


threading.Thread(target=tick, daemon=True).start()
print("printed before")
widgets.VBox([button, said, ticks])
"""


def test_what_was_not_saved_is_gone(lab: Lab) -> None:
    lab.open(lab.write("reloaded.ipynb", PANEL))
    lab.run(0)
    lab.wait_for("tick")
    lab.reload()
    lab.wait_until_idle()
    assert lab.everything().strip() == ""


def test_saved_widgets_come_back_live(lab: Lab) -> None:
    lab.open(lab.write("reloaded.ipynb", PANEL))
    lab.run(0)
    lab.save()
    lab.reload()
    lab.wait_for_change(lab.wait_for("tick"))
    lab.click("Press")
    lab.wait_for("answered")
    assert "printed before" in lab.text(0)


def test_after_a_reload_in_mid_cell_widgets_wait_for_its_end_and_prints_are_lost(lab: Lab) -> None:
    lab.open(lab.write("reloaded.ipynb", PANEL, f"print('saved')\n{HELD}"))
    lab.run(0)
    lab.run(1, wait=False)
    lab.wait_for("saved")
    lab.save()
    lab.reload()
    lab.wait_for("Loading widget")
    assert lab.busy

    lab.release()
    lab.wait_for_change(lab.wait_for("tick"))
    lab.wait_until_idle()
    assert "saved" in lab.text(1)
    assert "released" not in lab.text(1)
