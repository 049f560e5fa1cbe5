"""The keys of Llama's config.json, read one by one, with everything that is wrong noted.

RoPE's stand in two places: transformers 5 moved them into `rope_parameters`. Which rack the keys
mean is in `llama_config.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stackwise.errors import ExperimentError, short
from stackwise.model.shape import Llama3Scaling

MOST = 1e30  # of a number that a rack could have
THETA = 10_000.0  # what transformers takes for a missing base
SCALING = {  # theirs to ours
    "factor": "factor",
    "low_freq_factor": "low",
    "high_freq_factor": "high",
    "original_max_position_embeddings": "original",
}


class Keys:
    """The keys of a config.json, read with what is wrong with them noted.

    Attributes:
        problems: One line each.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.problems: list[str] = []

    def get(self, key: str, usual: Any = None) -> Any:
        """A key's value; what stands for a missing or empty one."""
        value = self.config.get(key)
        return usual if value is None else value

    def whole(self, key: str, usual: int | None = None) -> int | None:
        """A whole number of 1 or more."""
        value = self.get(key, usual)
        if value is None or isinstance(value, bool) or not isinstance(value, int) or value < 1:
            given = "is missing" if value is None else f"{short(value)} is not a size"
            self.refuse(key, f"{given}; give a whole number of 1 or more")
            return None
        return value

    def number(self, key: str, usual: float) -> float:
        """A number over zero."""
        return self._positive(key, self.get(key, usual), usual)

    def flag(self, key: str) -> bool:
        """True or false; missing is false."""
        value = self.get(key, False)
        if not isinstance(value, bool):
            self.refuse(key, f"{short(value)} is neither true nor false")
        return value is True

    def only(self, key: str, wanted: Any, way_out: str) -> None:
        """Refuse a key whose value is not the one that a rack has."""
        value = self.get(key, wanted)
        if value != wanted:
            self.refuse(key, f"{short(value)} cannot be had in a rack, {wanted!r} can; {way_out}")

    def refuse(self, key: str, why: str) -> None:
        """Note what is wrong with a key."""
        self.problems.append(f"{key}: {why}")

    def rope(self) -> tuple[float, Llama3Scaling | None]:
        """Base and stretch, from where either version of transformers puts them."""
        old, new = self.get("rope_scaling", {}), self.get("rope_parameters", {})
        for key, value in (("rope_scaling", old), ("rope_parameters", new)):
            if not isinstance(value, Mapping) or any(
                isinstance(v, Mapping) for v in value.values()
            ):
                self.refuse(key, f"{short(value)} is not one mapping for all layers")
                return THETA, None
        found = {**self._plain(old), **self._plain(new)}
        theta = self.config.get("rope_theta")
        placed = {"rope_theta": theta} if theta is not None else {}
        outer = self.config.get("original_max_position_embeddings")
        if outer is not None and found.get("rope_type") == "llama3":
            placed["original_max_position_embeddings"] = outer
        for place in (self._plain(old), self._plain(new), placed):
            for key in sorted(place.keys() & found.keys()):
                if place[key] != found[key]:
                    self.refuse(
                        f"rope_parameters.{key}",
                        f"is {short(found[key])} in one place and {short(place[key])} in another; "
                        "make them equal",
                    )
        found = {**placed, **found}
        base = self._positive("rope_theta", found.get("rope_theta", THETA), THETA)
        return base, self._scaling(found)

    def _plain(self, rope: Mapping[str, Any]) -> dict[str, Any]:
        """With `type`, as it was called once, by its name of today."""
        values = {key: value for key, value in rope.items() if value is not None}
        kind = values.pop("type", None)
        return {"rope_type": kind, **values} if kind is not None else values

    def _scaling(self, rope: Mapping[str, Any]) -> Llama3Scaling | None:
        kind = rope.get("rope_type", "default")
        part = rope.get("partial_rotary_factor", self.get("partial_rotary_factor", 1.0))
        if part != 1.0:
            self.refuse(
                "partial_rotary_factor",
                f"{short(part)} cannot be had: a rack turns whole heads; leave it at 1.0",
            )
        if kind == "default":
            return None
        if kind != "llama3":
            self.refuse(
                "rope_parameters.rope_type",
                f"{short(kind)} cannot be had in a rack; known: default, llama3",
            )
            return None
        rope = {"original_max_position_embeddings": self.get("max_position_embeddings"), **rope}
        missing = [key for key in SCALING if rope.get(key) is None]
        for key in missing:
            self.refuse(f"rope_parameters.{key}", "is missing, and llama3 reads it; give it")
        if missing:
            return None
        try:
            made = Llama3Scaling(**{ours: rope[theirs] for theirs, ours in SCALING.items()})
        except ExperimentError as error:
            self.problems += [f"rope_parameters.{problem}" for problem in error.problems]
            return None
        if made.low >= made.high:
            self.refuse(
                "rope_parameters.low_freq_factor",
                f"{made.low:g} must be under high_freq_factor={made.high:g}",
            )
        return made

    def _positive(self, key: str, value: Any, usual: float) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < MOST:
            self.refuse(key, f"{short(value)} is not a number over 0")
            return usual
        return float(value)
