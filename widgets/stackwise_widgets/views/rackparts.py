"""The parts of a rack as a run's folder tells them, without loading any weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import stackwise as sw
from stackwise.stage import untied_from
from stackwise_widgets.views.cells import State, columns_of, states_of

if TYPE_CHECKING:
    from stackwise import Experiment, Run, Stage

OTHERS = {"optimizer": "moments", "average": "moving average", "master": "master weights"}


def rack_parts(run: Run) -> list[dict[str, Any]]:
    """Embedding, stacks and head of a run, from its manifest, stages and status alone.

    Args:
        run: Of `sw.attach`; it may be running.

    Returns:
        One mapping per part, in the order in which a token meets them. `name`; `state`: that of
        the stage in hand (`active`, `trunk`, `suffix`, `held`, `absent`), or `trained` where the
        run is finished; `stage`: the one in which it was last written; `format`: what it is frozen
        to, or None; `dtype`; `bytes`: of its file; `parameters`; `beside`: bytes of what resuming
        needs, by kind. What a checkpoint does not say, or before there is one, is None.

    Raises:
        RunError: If the folder is damaged.
        CheckpointError: If the manifest is.
    """
    from stackwise.training.start import stages_of

    exp, listed, made = run.experiment, _listed(run), stages_of(run)
    states = _states(run, exp, made)
    counts = _parameters(run, exp, made)
    return [
        {
            "name": name,
            "state": _state(states[name], listed.get(name), bool(listed)),
            "stage": _entry(listed, name).get("stage"),
            "format": _entry(listed, name).get("format"),
            "dtype": _entry(listed, name).get("dtype"),
            "bytes": _entry(listed, name).get("bytes"),
            "parameters": counts.get(name),
            "beside": dict(_beside(listed, name)),
        }
        for name in columns_of(exp)
    ]


def _listed(run: Run) -> Mapping[str, Mapping[str, Any]]:
    """The entries of the last checkpoint; none before the first."""
    from stackwise.training.manifest import read_manifest

    return dict(read_manifest(run.path / "rack")["parts"]) if run.has_weights() else {}


def _entry(listed: Mapping[str, Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    return listed.get(name, {})


def _states(run: Run, exp: Experiment, made: Sequence[Stage]) -> dict[str, State | str]:
    """The state of every part in the stage in hand; `trained` all of them at the end."""
    names = columns_of(exp)
    if run.state == "finished":
        return dict.fromkeys(names, "trained")
    number = _stage_in_hand(run, made)
    held = {entry.stack for stage in made[: number + 1] for entry in stage.new or ()}
    return dict(states_of(made[number], frozenset(held), names))


def _stage_in_hand(run: Run, made: Sequence[Stage]) -> int:
    """The stage that trains, or did last; the first before any has begun."""
    return min(int(run.status().get("stage") or 0), len(made) - 1)


def _state(state: str, entry: Mapping[str, Any] | None, written: bool) -> str:
    """A finished run's checkpoint lists what there is; before one, the stage alone tells."""
    return "absent" if state == "trained" and written and entry is None else state


def _parameters(run: Run, exp: Experiment, made: Sequence[Stage]) -> dict[str, int]:
    """Numbers of each part, by arithmetic; a tied head that was parted has a table of its own."""
    from stackwise.model.block import block_parameters
    from stackwise.model.count import embedding_parameters, head_parameters

    vocab, apart = exp.rack.vocab or run.tokenizer().size, untied_from(exp.rack, made)
    untied = apart is not None and _stage_in_hand(run, made) >= apart
    stack = exp.rack.blocks_per_stack * block_parameters(exp.rack, exp.attention)
    return {
        "embedding": embedding_parameters(exp.rack, vocab),
        **dict.fromkeys(sw.stack_ids(exp.rack), stack),
        "head": head_parameters(exp.rack, vocab, untied=untied),
    }


def _beside(listed: Mapping[str, Mapping[str, Any]], part: str) -> Iterator[tuple[str, int]]:
    """What resuming needs of a part, by kind."""
    for name, entry in listed.items():
        owner, _, kind = name.partition(".")
        if kind.startswith("adapter."):
            kind = f"{OTHERS.get(kind.removeprefix('adapter.'), kind)} of its adapter"
        if owner == part and kind:
            yield OTHERS.get(kind, kind), int(entry["bytes"])
