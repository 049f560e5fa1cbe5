"""What stands in the fields: texts by path, without any widget.

A sheet is filled from a mapping, as YAML gives one, and gives a mapping back, which the schema
reads. It knows what a knob was before it was changed, empties the other side of an either-or, and
keeps what was set for a kind while another one is looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from stackwise_widgets.form.schema import NOTHING, Spec, walk, within
from stackwise_widgets.form.text import text_of, value_of

Texts = dict[str, str | bool]


def texts_of(specs: Iterable[Spec], values: Any) -> Texts:
    """The texts of a mapping; a key that it lacks stands at its default."""
    found: Texts = {}
    for spec in specs:
        value = values.get(spec.key, NOTHING) if isinstance(values, Mapping) else NOTHING
        value = spec.default if value is NOTHING else value
        if spec.has_field:
            found[spec.path] = _own_text(spec, value)
        found |= texts_of(within(spec, found.get(spec.path, True)), value)
    return found


def _own_text(spec: Spec, value: Any) -> str | bool:
    if value is NOTHING:
        return False if spec.control in ("checkbox", "section") else ""
    if spec.control == "section":
        return value is not None
    if spec.control == "choice":
        name = value.get(spec.selector) if isinstance(value, Mapping) else value
        return "" if name is None else str(name)
    return text_of(spec, value)


def values_of(specs: Iterable[Spec], texts: Mapping[str, str | bool]) -> dict[str, Any]:
    """The mapping that texts say. A knob without a default is left out while it is empty."""
    found: dict[str, Any] = {}
    for spec in specs:
        filled = texts.get(spec.path, True if spec.control == "section" else "")
        below = values_of(within(spec, filled), texts)
        if spec.control == "section":
            found[spec.key] = below if filled else None
        elif spec.control == "choice":
            found[spec.key] = {spec.selector: filled, **below} if filled else None
        elif filled != "" or spec.default is not NOTHING:
            found[spec.key] = value_of(spec, filled)
    return found


class Sheet:
    """The fields of a form while it is filled in.

    Attributes:
        specs: The knobs, from the top.
        texts: What stands in the fields that are there.
    """

    def __init__(self, specs: Iterable[Spec]) -> None:
        self.specs = tuple(specs)
        self.texts: Texts = {}
        self._said: tuple[Mapping[str, Any], Mapping[str, Any]] = ({}, {})
        self._filled: Texts = {}
        self._base: Texts = {}
        self._kept: dict[tuple[str, str | bool], Texts] = {}

    def fill(
        self, values: Mapping[str, Any], base: Mapping[str, Any], stays: Texts | None = None
    ) -> None:
        """Write everything anew.

        Args:
            values: What is written.
            base: What a knob is compared with and reset to.
            stays: Texts of sections that stay as they were typed.
        """
        self._said, self._kept = (values, base), {}
        self.refresh()
        tops = {path.partition(".")[0] for path in stays or {}}
        new = {path: t for path, t in self._filled.items() if path.partition(".")[0] not in tops}
        self.texts = {**new, **(stays or {})}
        self._complete()

    def refresh(self) -> bool:
        """Look the kinds up again; say if that brought or took away a knob."""
        self._filled, self._base = (texts_of(self.specs, values) for values in self._said)
        return self._complete()

    def values(self) -> dict[str, Any]:
        """What the fields say, as YAML would."""
        return values_of(self.specs, self.texts)

    def present(self) -> Iterator[Spec]:
        """The knobs that are there now."""
        return walk(self.specs, self.texts)

    def find(self, path: str) -> Spec:
        """The knob at a path.

        Raises:
            KeyError: If there is none now.
        """
        for spec in self.present():
            if spec.path == path:
                return spec
        raise KeyError(path)

    def write(self, path: str, text: str | bool) -> None:
        """Put a text into a field. Another kind brings its own knobs, as they were left.

        Raises:
            KeyError: If there is no such field now.
            TypeError: If it is ticked and gets text, or the other way round.
        """
        if path not in self.texts:
            raise KeyError(path)
        if isinstance(text, bool) != isinstance(self.texts[path], bool):
            raise TypeError(f"{path}: {text!r} is not what its field holds")
        spec, before = self.find(path), self.texts[path]
        if text == before:
            return
        if within(spec, before) or within(spec, text):
            self._kept[path, before] = self._drop_below(path)
        self.texts[path] = text
        self.texts |= self._kept.get((path, text), {})
        self._complete()
        if text != "":
            self._empty_others(spec)

    def _complete(self) -> bool:
        """Give new knobs what they were filled with, and forget those that are gone."""
        before, new = self.texts.keys(), dict(_usual(self.specs, self.texts, self._filled))
        self.texts = {path: self.texts.get(path, text) for path, text in new.items()}
        return before != self.texts.keys()

    def usual(self) -> Texts:
        """What stands in each field that is there while nothing is changed."""
        return dict(_usual(self.specs, self.texts, self._base))

    def changed(self) -> list[str]:
        """Paths of the fields that say something else than the base does."""
        usual = self.usual()
        return [
            spec.path
            for spec in self.present()
            if spec.has_field and _says(spec, self.texts) != _says(spec, usual)
        ]

    def reset(self, path: str) -> None:
        """Put back one field, and with it what hangs on it.

        Raises:
            KeyError: If there is no such field now.
        """
        section = self._either(path)
        for each in [spec.path for spec in within(section, True)] if section else [path]:
            self.texts[each] = self.usual()[each]
            self._drop_below(each)
            below = self.usual().items()
            self.texts |= {key: text for key, text in below if key.startswith(f"{each}.")}
        self._complete()

    def _drop_below(self, path: str) -> Texts:
        below = {key: text for key, text in self.texts.items() if key.startswith(f"{path}.")}
        self.texts = {key: text for key, text in self.texts.items() if key not in below}
        return below

    def _either(self, path: str) -> Spec | None:
        """The section of which `path` is one side."""
        outer = path.rpartition(".")[0]
        return next((s for s in self.present() if s.path == outer and s.either), None)

    def _empty_others(self, spec: Spec) -> None:
        section = self._either(spec.path)
        for other in within(section, True) if section else ():
            if other.path != spec.path and other.empty:
                self.texts[other.path] = ""


def _says(spec: Spec, texts: Mapping[str, str | bool]) -> Any:
    return texts[spec.path] if spec.control == "choice" else value_of(spec, texts[spec.path])


def _usual(
    specs: Iterable[Spec], texts: Mapping[str, str | bool], base: Mapping[str, str | bool]
) -> Iterator[tuple[str, str | bool]]:
    """The base's texts below the kinds that it has too, and defaults below the others."""
    for spec in specs:
        if spec.has_field:
            yield spec.path, base.get(spec.path, _own_text(spec, spec.default))
        filled = texts.get(spec.path, True)
        same = not spec.has_field or base.get(spec.path) == filled
        yield from _usual(within(spec, filled), texts, base if same else {})
