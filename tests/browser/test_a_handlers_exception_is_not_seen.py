"""An exception in a handler shows nothing in the notebook, and the panel's other handlers go on.

So every handler of ours goes through a wrapper that shows what happened.
"""

from .lab import Lab

PANEL = """
import ipywidgets as widgets

said = widgets.Label("waiting")
fails, works = (widgets.Button(description=name) for name in ("Fails", "Works"))


@fails.on_click
def fail(_):
    raise ValueError("-".join(["nobody", "reads", "this"]))


works.on_click(lambda _: setattr(said, "value", "answered"))
widgets.VBox([fails, works, said])
"""


def test_a_handlers_exception_is_not_seen(lab: Lab) -> None:
    lab.open(lab.write("raises.ipynb", PANEL))
    lab.run(0)
    lab.click("Fails")
    lab.click("Works")
    lab.wait_for("answered")
    assert "nobody-reads-this" not in lab.page.locator("body").inner_text()
    assert lab.page.get_by_role("dialog").or_(lab.page.get_by_role("alert")).count() == 0
    assert lab.page.locator(".jp-OutputArea-output[data-mime-type*=stderr]").count() == 0
