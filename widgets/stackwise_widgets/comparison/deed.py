"""What may be done with one run: rename it, note something, tag it, share it, delete it.

Nothing is deleted at the first click, and no file that is there is written over.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ipywidgets as w

import stackwise as sw
from stackwise.runs.damage import RunError
from stackwise_widgets.comparison.rows import Listed
from stackwise_widgets.latest import Latest
from stackwise_widgets.panel import Guard
from stackwise_widgets.shipped import is_shipped
from stackwise_widgets.views.markup import clean, escaped

KINDS = {
    "zip, with weights": (".zip", True),
    "zip, without weights": (".zip", False),
    "one HTML page": (".html", False),
}
SHIPS = "It ships with the project: it can be shared, and neither renamed nor deleted"
WIDE = {"width": "auto", "flex": "1 1 220px", "min_width": "160px"}


class Deed(w.VBox):
    """A box for the run whose name was pressed.

    Args:
        guard: Of the panel.
        changed: Called when a run was renamed, tagged or deleted.
    """

    def __init__(self, guard: Guard, changed: Callable[[], None]) -> None:
        self._guard, self._changed, self._work = guard, changed, Latest(guard)
        self._of: Listed | None = None
        self._title, self._said = w.HTML(), w.HTML()
        self._name = w.Text(description="Name", layout=WIDE)
        self._tags = w.Text(description="Tags", placeholder="divided by commas", layout=WIDE)
        self._note = w.Textarea(description="Note", rows=2, layout={"width": "auto"})
        self._save = w.Button(description="Save", tooltip="Keep name, tags and note")
        self._kind = w.Dropdown(description="Share as", options=list(KINDS), layout=WIDE)
        self._file = w.Text(description="File", layout=WIDE)
        self._share = w.Button(description="Write the file")
        self._delete = w.Button(description="Delete…", tooltip="Asks once more")
        self._keep = w.Button(description="Keep it")
        super().__init__()
        self.add_class("sw-deed")
        on = {
            self._save: ("saving name, tags and note", self.save),
            self._share: ("sharing the run", self.share),
            self._delete: ("deleting the run", self.delete),
            self._keep: ("keeping the run", self._forget_delete),
        }
        for button, (doing, do) in on.items():
            button.on_click(guard(doing, lambda _, do=do: do()))
        self._kind.observe(guard("naming the file", lambda _: self._name_file()), "value")
        self.show(None)

    @property
    def name(self) -> w.Text:
        """The field of the name."""
        return self._name

    @property
    def tags(self) -> w.Text:
        """The field of the tags."""
        return self._tags

    @property
    def note(self) -> w.Textarea:
        """The field of the note."""
        return self._note

    @property
    def kind(self) -> w.Dropdown:
        """What the run is shared as."""
        return self._kind

    @property
    def file(self) -> w.Text:
        """The file that is written."""
        return self._file

    @property
    def said(self) -> str:
        """What was done last, as HTML."""
        return str(self._said.value)

    @property
    def asks(self) -> bool:
        """Whether one more click deletes the run."""
        return self._delete.button_style == "danger"

    def show(self, one: Listed | None) -> None:
        """Show a run; None: nothing."""
        same = one is not None and self._of is not None and one.key == self._of.key
        gone = one is None and self._of is None  # what was said of one that is gone stays
        self._of = one
        if not (same or gone):
            self._said.value = ""
        self._forget_delete()
        if one is None:
            self.children = (self._said,) if self._said.value else ()
            return
        run = one.brief.run
        self._title.value = f"<b>{escaped(one.brief.name)}</b> <code>{escaped(one.key)}</code>"
        if run is not None:
            labels = run.labels
            self._name.value, self._note.value = labels.name, labels.note
            self._name.placeholder, self._tags.value = clean(one.brief.id), ", ".join(labels.tags)
        ships = self._allow(run)
        self._name_file()
        row = {"display": "flex", "flex_flow": "row wrap"}
        rows = [
            w.Box([self._name, self._tags], layout=row),
            self._note,
            w.Box([self._save], layout=row),
            w.Box([self._kind, self._file, self._share], layout=row),
        ]
        last = w.Box([self._delete, self._keep], layout=row)
        top = [self._title, w.HTML(f'<div class="sw-said">{SHIPS}.</div>')][: 1 + ships]
        self.children = (*top, *(rows if run is not None else ()), last, self._said)

    def _allow(self, run: sw.Run | None) -> bool:
        """Enable what may be done with a run, and say why the rest may not; whether it ships."""
        ships, live = run is not None and is_shipped(run), run is not None and run.is_live
        for field in (self._name, self._tags, self._note, self._save):
            field.disabled = ships
        self._save.tooltip = SHIPS if ships else "Keep name, tags and note"
        self._delete.disabled = ships or live or run is None
        why = "It is live: stop it first" if live else "Asks once more"
        self._delete.tooltip = SHIPS if ships else why
        return ships

    def save(self) -> None:
        """Keep name, tags and note."""
        run = self._own()
        tags = [tag.strip() for tag in self._tags.value.split(",")]
        run.label(name=self._name.value, note=self._note.value, tags=tags)
        self._say("Saved.")
        self._changed()

    def share(self) -> None:
        """Write the file, in a thread: a zip of many weights takes long."""
        run, kind = self._run(), KINDS[self._kind.value]
        name = self._file.value.strip()
        if not name:
            raise RunError(f"file: a name is missing; give one that ends in {kind[0]}")
        target = Path(name).expanduser()
        if target.exists():
            raise FileExistsError(f"{target}: is there already; name another file")
        if target.suffix not in (kind[0], ".htm" if kind[0] == ".html" else kind[0]):
            raise RunError(f"{target}: ends in {target.suffix!r}; for this it has to be {kind[0]}")
        self._share.disabled = True
        self._say(f"Writing {target} …")
        self._work.ask(
            "sharing the run",
            lambda: run.share(target, weights=kind[1]),
            self._shared,
            lambda: self._shared(None),
        )

    def _shared(self, target: Path | None) -> None:
        self._share.disabled = False
        if target is None:
            self._say("")
            return
        self._say(f"Written: {target} ({target.stat().st_size / 1e6:.2f} MB).")
        self._name_file()

    def delete(self) -> None:
        """Ask at the first click, delete at the second."""
        run = self._own()
        if not self.asks:
            self._delete.button_style = "danger"
            self._delete.description = "Delete it for good"
            self._keep.layout.display = ""
            self._say(f"{run.id} and its weights are deleted at the next click. There is no way "
                      "back.")  # fmt: skip
            return
        gone = run.id
        run.delete()
        self._forget_delete()
        self._of = None
        self._say(f"Deleted: {gone}.")
        self.show(None)
        self._changed()

    def wait(self, timeout: float | None = None) -> bool:
        """Until what was asked to be written is."""
        return self._work.wait(timeout)

    def _run(self) -> sw.Run:
        if self._of is None or self._of.brief.run is None:
            raise RunError("no run is chosen; press its name in the table")
        return self._of.brief.run

    def _own(self) -> sw.Run:
        run = self._run()
        if is_shipped(run):
            raise RunError(f"run {run.id}: ships with the project; copy its folder to change it")
        return run

    def _forget_delete(self) -> None:
        if self.asks:
            self._say("")
        self._delete.button_style, self._delete.description = "", "Delete…"
        self._keep.layout.display = "none"

    def _name_file(self) -> None:
        """A name that is free, beside the notebook."""
        if self._of is None:
            return
        ending, number = KINDS[self._kind.value][0], 1
        name = plain = clean(self._of.brief.id)
        while Path(f"{name}{ending}").exists():
            number += 1
            name = f"{plain}-{number}"
        self._file.value = f"{name}{ending}"

    def _say(self, text: str) -> None:
        self._said.value = f'<div class="sw-said">{escaped(text)}</div>' if text else ""
