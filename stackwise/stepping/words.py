"""What happens in a phase, in a sentence or two, made of the facts of that very step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from stackwise.block_diffusion import read_as
from stackwise.by_stage import in_blocks
from stackwise.objective import Clm, Mlm
from stackwise.report import bytes_text
from stackwise.stage import FULL_BAND, Stage, parts_trained, roles, trunk_of
from stackwise.stepping.phase import Phase

if TYPE_CHECKING:
    from stackwise.config import Experiment

TERMS = {
    "consistency": "how far from the embedding's output what goes into the frozen suffix is",
    "distill": "the divergence from what that rack predicts",
}
Told = Callable[[Phase, "Experiment", Stage], str]
MANY = 3  # stacks in a row that are named one by one
MOST_ROWS = 6  # of stacks that are named
OPTIMIZERS = {
    "adamw": "AdamW",
    "adamw8bit": "AdamW in 8 bits",
    "paged_adamw8bit": "AdamW in 8 bits, paged,",
    "lion8bit": "Lion in 8 bits",
    "adafactor": "Adafactor",
    "muon": "Muon, with AdamW for all but the matrices of stacks,",
}


def words_of(phase: Phase, exp: Experiment, stage: Stage) -> str:
    """The sentence of a phase."""
    return WORDS[phase.name](phase, exp, stage)


def batch(phase: Phase, exp: Experiment, stage: Stage) -> str:
    """What is read."""
    count, length = phase.tokens.ids_BT.shape
    return (
        f"Step {phase.step + 1:,} of {phase.steps:,} in stage {phase.stage} ({stage.name}) reads "
        f"{count} sample{'s' * (count > 1)} of {length} tokens, in an order that the seed decides."
    )


def mask(phase: Phase, exp: Experiment, stage: Stage) -> str:
    """What is hidden, and what will count."""
    tokens, whole = phase.tokens, phase.tokens.ids_BT.size
    if isinstance(exp.objective, Clm):
        return (
            f"Nothing is masked: the text moves one place to the right, so that each position sees "
            f"only what stands before it and predicts the token that comes. All {whole:,} count."
        )
    if isinstance(exp.objective, Mlm):
        return (
            f"{phase.counted:,} of {whole:,} positions are to be predicted: most of them read "
            f"[MASK], some another token, some their own. Only these positions count in the loss."
        )
    low, high = float(tokens.mask_frac_B.min()), float(tokens.mask_frac_B.max())
    if (blocks := read_as(in_blocks(exp, stage).objective, tokens.ids_BT.shape[1])) is not None:
        return (
            f"Each block of {blocks.size} tokens draws a noise level of its own; samples lose "
            f"from {low:.0%} to {high:.0%} here, {phase.counted:,} of {whole:,} in all. The clean "
            f"text is read beside: a block sees itself as it is masked, and the blocks before it "
            f"clean. Only the masked positions count in the loss."
        )
    band = ""
    if stage.band != FULL_BAND:
        band = f" from this stage's noise band ({stage.band[0]:.3g}, {stage.band[1]:.3g}]"
    return (
        f"Each sample draws a noise level{band}, and loses about that part of its tokens: from "
        f"{low:.0%} to {high:.0%} here, {phase.counted:,} of {whole:,} in all. Only the masked "
        f"positions count in the loss."
    )


def embedding(phase: Phase, exp: Experiment, stage: Stage) -> str:
    """The first vectors, where no frozen stack follows."""
    made = f"The embedding turns each id into {exp.rack.d_model} numbers."
    if stage.embedding:
        return (
            f"{made} It trains in this stage, so that nothing here is fixed: there is no trunk "
            "whose output could be kept for later."
        )
    return f"{made} It is frozen, and nothing before it trains, so no gradient will come here."


def trunk(phase: Phase, exp: Experiment, stage: Stage) -> str:
    """The frozen stacks before the first that trains."""
    stacks, several = trunk_of(stage), len(trunk_of(stage)) > 1
    these = named(stacks)
    kept = " Autograd keeps nothing of it." if phase.kept_bytes == 0 else ""
    if stage.embedding:
        return f"{these} {'are' if several else 'is'} frozen and run without gradient.{kept}"
    return (
        f"{listed(['The embedding', *runs(stacks)])} are frozen, and nothing before them trains. "
        f"So they run without gradient, as a fixed function of the tokens: the trunk.{kept}"
    )


def active(phase: Phase, exp: Experiment, stage: Stage) -> str:
    """Stacks that train."""
    these, one = named(phase.parts), len(phase.parts) == 1
    return (
        f"{these} train{'s' * one}. For the gradients of {'its' if one else 'their'} weights "
        f"autograd keeps the input of every product{_kept(phase)}."
    )


def suffix(phase: Phase, exp: Experiment, stage: Stage) -> str:
    """Frozen stacks that gradient crosses, or comes to for what they carry."""
    these, one = named(phase.parts), len(phase.parts) == 1
    carrying = [adapter.stack for adapter in stage.adapters or () if adapter.stack in phase.parts]
    if carrying:
        which = "" if len(carrying) == len(phase.parts) else f" on {named(carrying)}"
        return (
            f"{these} {'is' if one else 'are'} frozen, but low-rank adapters{which} train: each "
            "adds the product of two thin matrices to one that stands still. Autograd keeps what "
            f"that takes{_kept(phase)}; the weights themselves get no gradient."
        )
    return (
        f"{these} {'is' if one else 'are'} frozen, but {_reached(phase.parts, stage)} before "
        f"{'it' if one else 'them'} train"
        f"{'s' * (len(_before(phase.parts, stage)) == 1)}: the gradient must cross {these}. "
        f"Autograd keeps what that takes{_kept(phase)}; {'its' if one else 'their'} weights get "
        "none."
    )


def loss(phase: Phase, exp: Experiment, stage: Stage) -> str:
    """The head, and the loss."""
    count, vocab = phase.counted, phase.tokens.vocab
    assert phase.loss is not None
    which = "every position" if isinstance(exp.objective, Clm) else "the counted positions alone"
    guessed = np.asarray(phase.tokens.guess_BT) == phase.tokens.ids_BT
    right = int((guessed & phase.tokens.counted_BT).sum())
    return (
        f"The head makes {vocab:,} logits at {which}. Their weighted cross-entropies, over all "
        f"{phase.tokens.ids_BT.size:,} positions, are a loss of {phase.loss:.4f} nats a token. "
        f"The likeliest token is the right one at {right:,} of {count:,}.{_held(phase, stage)}"
    )


def gradients(phase: Phase, exp: Experiment, stage: Stage) -> str:
    """How far the gradient goes, and why no further."""
    assert phase.grad_norm is not None
    through = [part for part in reversed(phase.parts) if part != "head"]
    way = f"from the loss through {listed(['the head', *runs(through)])}"
    end = _end(stage)
    frozen = [part for part in phase.parts if is_frozen(part, stage)]
    passes = ""
    if frozen:
        one = len(frozen) == 1
        passes = f" {named(frozen)} let{'s' * one} it pass and get{'s' * one} none."
    return f"Backward runs {way}{end}.{passes} Norm over all that trains: {phase.grad_norm:.4g}."


def update(phase: Phase, exp: Experiment, stage: Stage) -> str:
    """What moved, and what did not."""
    still = [name for name, change in phase.changes.items() if change == 0]
    clipped = ""
    if phase.clip is not None and (phase.grad_norm or 0) > phase.clip:
        clipped = f", after the gradient was scaled down to a norm of {phase.clip:g}"
    rule = OPTIMIZERS.get(exp.optim.name, exp.optim.name)
    moved = listed(runs(phase.parts))
    rest = listed(runs(list(dict.fromkeys(name.partition(".")[0] for name in still))))
    held = f" Not a bit of {rest} has changed." if still else ""
    return f"{rule} moves {moved} at a learning rate of {phase.rate:.3g}{clipped}.{held}"


WORDS: dict[str, Told] = {
    "batch": batch,
    "mask": mask,
    "embedding": embedding,
    "trunk": trunk,
    "active": active,
    "suffix": suffix,
    "loss": loss,
    "gradients": gradients,
    "update": update,
}


def is_frozen(part: str, stage: Stage) -> bool:
    """Whether a part of the path does not train."""
    return part not in parts_trained(stage)


def _end(stage: Stage) -> str:
    """Where the gradient stops, and why."""
    if stage.embedding:
        return ", down to the table of the tokens"
    role = roles(stage)
    behind = ["the embedding", *(stack for stack in stage.path if role[stack] == "trunk")]
    one = len(behind) == 1
    return (
        f", and stops there: {listed([behind[0], *runs(behind[1:])])} "
        f"{'is' if one else 'are'} frozen, and nothing before {'it' if one else 'them'} trains"
    )


def _before(parts: Sequence[str], stage: Stage) -> list[str]:
    """What trains before some stacks of the path."""
    first = stage.path.index(parts[0])
    ahead = [stack for stack in stage.path[:first] if stack in (stage.active or ())]
    return [*(["the embedding"] if stage.embedding else []), *ahead]


def _reached(parts: Sequence[str], stage: Stage) -> str:
    found = _before(parts, stage)
    ends = found[:1] if found[:1] == ["the embedding"] else []
    return listed([*ends, *runs(found[len(ends) :])])


def _held(phase: Phase, stage: Stage) -> str:
    """What is added to the loss, where the stage is held to the rack before it."""
    terms = [
        f"{getattr(stage.preserve, name):g} times {TERMS[name]} ({value:.4g})"
        for name, value in phase.preserved.items()
    ]
    return f" Added to it, to hold the stage to the rack before: {listed(terms)}." if terms else ""


def _kept(phase: Phase) -> str:
    if phase.kept_bytes is None:
        return ""
    return f": {bytes_text(phase.kept_bytes)}"


def named(stacks: Sequence[str]) -> str:
    """Stacks as a sentence names them: `s1`, `s1 and s2`, `s1 to s7`."""
    return listed(runs(stacks))


def runs(parts: Sequence[str]) -> list[str]:
    """Names of parts; of many stacks in a row the first and the last, of many rows some."""
    ends = {"embedding": "the embedding", "head": "the head"}
    stacks = [part for part in parts if part not in ends]
    if len(stacks) <= MANY:
        return [ends.get(part, part) for part in parts]
    before = [ends[part] for part in parts[: parts.index(stacks[0])]]
    after = [ends[part] for part in parts[parts.index(stacks[-1]) + 1 :]]
    rows = _rows(stacks)
    shown = rows if len(rows) <= MOST_ROWS else [*rows[: MOST_ROWS - 2], "\u2026", rows[-1]]
    return [*before, *shown, *after]


def _rows(stacks: Sequence[str]) -> list[str]:
    """Stacks, neighbours in the rack as one row: `s0`, `s2 to s7`."""
    rows: list[list[str]] = []
    for stack in stacks:
        beside = rows and abs(_place(stack) - _place(rows[-1][-1])) == 1
        if beside:
            rows[-1].append(stack)
        else:
            rows.append([stack])
    return [
        name for row in rows for name in (row if len(row) < MANY else [f"{row[0]} to {row[-1]}"])
    ]


def _place(stack: str) -> int:
    """Where a stack stands in the rack."""
    return int(stack.removeprefix("s"))


def listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    if len(names) < 2:
        return "".join(names) or "nothing"
    return f"{', '.join(names[:-1])} and {names[-1]}"
