"""The knobs of one kind, as its schema has them: what is chosen decides which there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets as w

from stackwise_widgets.form.fields import Looks, field_of
from stackwise_widgets.form.schema import Spec, specs_of
from stackwise_widgets.form.sheet import Texts, texts_of, values_of


class Knobs(w.Box):
    """A field for every knob of the kind that is chosen. What was filled in for another is kept.

    Args:
        registry: Name to `Choice`.
        changed: Called when a field is filled in.

    Attributes:
        fields: By the knob's name.
    """

    def __init__(self, registry: Mapping[str, Any], changed: Callable[[], Any]) -> None:
        super().__init__(layout={"display": "flex", "flex_flow": "row wrap"})
        self.fields: dict[str, w.ValueWidget] = {}
        self._registry, self._changed = registry, changed
        self._kind, self._specs = "", tuple[Spec, ...]()
        self._texts: dict[str, Texts] = {}
        self._looks = Looks()

    def use(self, kind: str) -> None:
        """Show the knobs of a kind."""
        if kind == self._kind:
            return
        model = getattr(self._registry[kind], "params", None)
        self._kind, self._specs = kind, specs_of(model)[1:] if model is not None else ()
        texts = self._texts.setdefault(kind, texts_of(self._specs, {}))
        self.fields = {s.key: field_of(s, texts[s.path], s.key, self._looks) for s in self._specs}
        gone, self.children = self.children, tuple(self.fields.values())
        for key, field in self.fields.items():
            field.observe(lambda change, key=key: self._write(key, change["new"]), "value")
        for field in gone:
            field.close()

    def _write(self, key: str, text: str | bool) -> None:
        self._texts[self._kind][key] = text
        self._changed()

    @property
    def value(self) -> dict[str, Any]:
        """What the fields say, as YAML would."""
        return values_of(self._specs, self._texts.get(self._kind, {}))
