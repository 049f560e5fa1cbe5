"""What a run's folder says once and for all: its stages, its plan, what was asked.

A file that is missing or damaged leaves its part empty, and is named under `problems`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stackwise.runs.asked import asked_of
from stackwise.runs.damage import RunError

if TYPE_CHECKING:
    import stackwise as sw


@dataclass(frozen=True)
class Facts:
    """Of a run's folder.

    Attributes:
        stages: What is executed; with the keys that the charts need.
        plan: What was predicted, by the number of the stage.
        asked: experiment.yaml as it is written; empty if it cannot be read.
        problems: What is damaged.
    """

    stages: tuple[dict[str, Any], ...]
    plan: Mapping[int, dict[str, Any]]
    asked: Mapping[str, Any]
    problems: tuple[str, ...]

    def section(self, name: str) -> Mapping[str, Any]:
        """A section of what was asked; empty if there is none."""
        found = self.asked.get(name)
        return found if isinstance(found, dict) else {}

    def number(self, section: str, key: str) -> int | None:
        """A whole number that was asked; None if it cannot be known."""
        found = self.section(section).get(key)
        return found if isinstance(found, int) and found > 0 else None

    @property
    def objective(self) -> str | None:
        """`diffusion`, `mlm`, `clm`; None if it cannot be known."""
        found = self.section("objective").get("kind")
        return found if isinstance(found, str) else None

    def step_tokens(self, stage: Mapping[str, Any]) -> int | None:
        """Tokens of one optimizer step of a stage; None if they cannot be known."""
        batch, length = self.number("optim", "batch"), self.number("data", "seq_len")
        length = stage.get("seq_len") or length
        return batch * length if batch and length else None


def facts_of(run: sw.Run) -> Facts:
    """Read what does not change while a run goes on. Never raises."""
    problems: list[str] = []

    def read(what: Callable[[], Any], empty: Any) -> Any:
        try:
            return what()
        except (RunError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
            text = str(error) if isinstance(error, RunError) else f"{type(error).__name__}: {error}"
            problems.append(text)
            return empty

    return Facts(
        stages=read(lambda: tuple(_stage(stage) for stage in run.stages()), ()),
        plan=read(lambda: {int(row["stage"]): row for row in run.plan()}, {}),
        asked=read(lambda: asked_of(run), {}),
        problems=tuple(problems),
    )


def _stage(stage: Mapping[str, Any]) -> dict[str, Any]:
    """A stage with the kinds of values that a stage has; KeyError, TypeError otherwise."""
    low, high = stage.get("band") or (0.0, 1.0)
    return {
        "name": str(stage["name"]),
        "path": tuple(map(str, stage["path"])),
        "active": tuple(map(str, stage["active"] or ())),
        "embedding": bool(stage.get("embedding", True)),
        "head": bool(stage.get("head", True)),
        "band": (float(low), float(high)),
        "tokens": None if stage.get("tokens") is None else int(stage["tokens"]),
    }
