"""Where a key lives that was written in another section: `rack.heads` for `attention.heads`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from stackwise.errors import Problem, near_names

BESIDE = {  # what is given beside an experiment, by the key that is tried
    "placement": (
        "it changes no number, and an experiment holds none; give sw.Placement(...) beside it"
    ),
    "preset": (
        "a preset is named instead of a file (stackwise run toy seed=1, "
        "sw.Experiment.preset('toy').replace(...)), or under base of a study's"
    ),
}


def pointed(problem: Problem) -> Problem:
    """A problem of an experiment; if it is a key that lives elsewhere, with its place."""
    if not problem.text.startswith("unknown key"):
        return problem
    said, key = problem.text.partition(";")[0], problem.path.rpartition(".")[2]
    places = list(_places(key))
    if problem.path in BESIDE:
        return Problem(problem.path, f"{said}; {BESIDE[problem.path]}")
    if not places and near_names(problem.path, ["placement"]):
        places = ["placement"]
    return Problem(problem.path, f"{said}; it is {' or '.join(places)}") if places else problem


def _places(key: str) -> Iterator[str]:
    """The sections that hold a key of this name, then the choices of which some kind has it."""
    from stackwise.choice import Section
    from stackwise.config import Experiment, Placement
    from stackwise.curriculum import CURRICULA
    from stackwise.data.corpora import CORPORA
    from stackwise.data.tokenizer import TOKENIZERS
    from stackwise.model.attention import ATTENTION
    from stackwise.objective import OBJECTIVES
    from stackwise.schedules import SCHEDULES

    sections: dict[str, Any] = {
        name: field.annotation for name, field in Experiment.model_fields.items()
    }
    for name, section in {**sections, "placement": Placement}.items():
        if (
            isinstance(section, type)
            and issubclass(section, Section)
            and key in section.model_fields
        ):
            yield f"{name}.{key}"
    registries: dict[str, Mapping[str, Any]] = {
        "attention": ATTENTION,
        "objective": OBJECTIVES,
        "curriculum": CURRICULA,
        "masking.schedule": SCHEDULES,
        "data.corpus": CORPORA,
        "data.tokenizer": TOKENIZERS,
    }
    for name, registry in registries.items():
        params = {kind: getattr(entry, "params", None) for kind, entry in registry.items()}
        kinds = [
            k for k, p in params.items() if p and key in p.model_fields and key != p.selector()
        ]
        if kinds:
            yield f"a key of {name}={', '.join(kinds)}"
