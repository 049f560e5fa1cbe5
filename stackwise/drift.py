"""Drift: how far a rack moves between the ends of its stages, in weights and in what it makes.

A run keeps the rack as each stage left it (`stage_ends.py`). Weights are compared part by
part, so that no rack is ever built for it; what stacks put out, on the same text, from one rack at
a time. What did not train has drifted by exactly 0: the same file, the same numbers, nothing that
is estimated.

The likeness of two representations is linear CKA (Kornblith et al., arXiv 1905.00414, equation 4),
which no rotation and no scale of them changes; that of two predictions the Kullback-Leibler
divergence.

Shapes: B samples, T tokens, P positions of B x T, D width, V entries of the head.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

from stackwise.adapters import SUFFIX, Adapter, carried_after
from stackwise.memory.flops import forward_flops_per_token, head_flops_per_position
from stackwise.model.adapters import deltas_of
from stackwise.model.direction import Direction
from stackwise.model.rack import Rack
from stackwise.model.shape import stack_ids
from stackwise.objective import Corrupted, is_causal
from stackwise.runs.layers import exit_names
from stackwise.stage import parts_trained
from stackwise.stage_ends import own_end, rack_after, stage_ends, tensors_of, two_ends
from stackwise.training.part_names import AVERAGE
from stackwise.training.parts import numbers_of
from stackwise.training.start import stages_of

if TYPE_CHECKING:
    import pandas as pd

    from stackwise.config import Experiment
    from stackwise.runs import Run
    from stackwise.stage import Stage

MOST_POSITIONS = 256  # that representations are compared at: 512 KiB for each depth
WEIGHT_COLUMNS = ["part", "stage", "since", "trained", "format", "distance", "from_first"]
EXIT_COLUMNS = ["exit", "stage", "since", "drift", "kl"]


def weight_drift(run: Run) -> pd.DataFrame:
    """How far each part moved from one kept end of a stage to the next.

    Args:
        run: The run; its stages' ends are kept.

    Returns:
        One row per part and kept end, from its second one on. `part`: `embedding`, a stack, `head`.
        `stage`, `since`: the two ends. `trained`: whether it trained in between. `format`: what
        its matrices are frozen to, or None. `distance`: |W - W'| / |W'|, of all its numbers;
        `from_first`: the same, from its first kept end. Exactly 0 where it did not train, unless it
        was frozen to less in between.

    Raises:
        RunError: If fewer than two ends are kept.
        CheckpointError: If what is kept is damaged, or of another run.
    """
    import pandas as pd

    ends, stages = two_ends(run), stages_of(run)
    manifests = {number: own_end(run, folder) for number, folder in ends.items()}
    carried = {number: carried_after(stages[: number + 1]) for number in ends}
    rows = []
    for part in ("embedding", *stack_ids(run.experiment.rack), "head"):
        there = [number for number in ends if part in manifests[number]["parts"]]
        points = [
            _Point(run.experiment, ends[n], manifests[n], part, carried[n].get(part)) for n in there
        ]
        for at, (before, now) in enumerate(pairwise(there), start=1):
            between = stages[before + 1 : now + 1]
            moved = distance(points[at - 1], points[at])
            whole = moved if at == 1 else distance(points[0], points[at])
            trained = any({part, part + SUFFIX} & parts_trained(stage) for stage in between)
            rows.append([part, now, before, trained, points[at].format, moved, whole])
    return pd.DataFrame(rows, columns=WEIGHT_COLUMNS)


class _Point(NamedTuple):
    """A part at one end of a stage."""

    exp: Experiment
    folder: Path
    manifest: Mapping[str, Any]
    part: str
    adapter: Adapter | None

    @property
    def format(self) -> str | None:
        """What its matrices are frozen to."""
        found: str | None = self.manifest["parts"][self.part].get("format")
        return found

    @property
    def hashes(self) -> tuple[str | None, ...]:
        """Of the files that its numbers are in."""
        parts = self.manifest["parts"]
        return tuple(
            parts.get(name, {}).get("sha256")
            for owner in (self.part, self.part + SUFFIX)
            for name in (owner, f"{owner}.{AVERAGE}")
        )

    def numbers(self) -> dict[str, Tensor]:
        """Its weights by name, what its adapter adds to them included.

        Those that are frozen to less are the numbers that they stand for.
        """
        found = self.bare()
        if self.adapter is not None and self.adapter.part in self.manifest["parts"]:
            tensors = tensors_of(self.folder, self.manifest, self.adapter.part)
            for name, delta in deltas_of(tensors, self.adapter):
                found[name] = found[name].float() + delta
        return found

    def bare(self) -> dict[str, Tensor]:
        """The same without an adapter."""
        tensors = tensors_of(self.folder, self.manifest, self.part)
        if self.format is None:
            return tensors
        return numbers_of(self.exp, self.part, tensors, self.format)


def distance(before: _Point, now: _Point) -> float:
    """|W - W'| / |W'|; exactly 0, without reading, where both are the same files."""
    if before.hashes == now.hashes:
        return 0.0
    old, new = before.numbers(), now.numbers()
    moved = length = 0.0
    for name in sorted(new):
        if name not in old:
            continue  # a head that was parted from the embedding has a table of its own since
        x, y = old[name].float(), new[name].float()
        length += float(torch.linalg.vector_norm(x)) ** 2
        if not torch.equal(x, y):
            moved += float(torch.linalg.vector_norm(y - x)) ** 2
    return float((moved / length) ** 0.5) if length else float("nan")


@torch.no_grad()
def representation_drift(
    run: Run,
    noisy: Corrupted,
    *,
    most: int = MOST_POSITIONS,
    device: str = "cpu",
    lent: Literal["disk", "host"] | None = None,
) -> pd.DataFrame:
    """How far what each block puts out moved between kept ends of stages, on the same text.

    At each end the rack runs the path of that stage. One rack is in memory at a time, and of what
    blocks put out only P x P likenesses are kept.

    Args:
        run: The run; its stages' ends are kept.
        noisy: The text, as `fixed_draws` or `corrupt` makes it.
        most: Positions that are compared, P, spread evenly over those of the text.
        device: Where racks run.
        lent: As for `Run.rack`.

    Returns:
        One row per exit that both ends have: `exit` (`embedding`, `s0.0`, ...), `stage`, `since`,
        `drift`: 1 - CKA, from 0 for the same up to a rotation to 1 for nothing in common; exactly 0
        where the numbers are the same. The last row of each stage, `exit` prediction, has `kl`: the
        mean of KL(before, now) in nats, over the positions compared.

    Raises:
        RunError: If fewer than two ends are kept.
        CheckpointError: If what is kept is damaged, or of another run.
    """
    import pandas as pd

    rows: list[list[Any]] = []
    stages, causal = stages_of(run), is_causal(run.experiment.objective)
    before: tuple[int, Seen] | None = None
    for number in two_ends(run):
        rack = rack_after(run, number, device=device, lent=lent)
        made = seen(rack, noisy, stages[number], causal, most)
        del rack  # before the next one is read
        if before is not None:
            since, old = before
            rows += [
                [name, number, since, 1 - likeness(old.grams[name], gram_PP), None]
                for name, gram_PP in made.grams.items()
                if name in old.grams
            ]
            kl = divergence(old.log_PV, made.log_PV)
            rows.append(["prediction", number, since, None, kl])
        before = (number, made)
    return pd.DataFrame(rows, columns=EXIT_COLUMNS).astype({"drift": float, "kl": float})


def drift_flops(run: Run, length: int, rows: int = 1, most: int = MOST_POSITIONS) -> float:
    """FLOPs of `representation_drift`: every kept end reads the text; the likenesses beside.

    Args:
        run: The run.
        length: Tokens of each row of the text.
        rows: Rows.
        most: As there.
    """
    stages, places = stages_of(run), min(most, rows * length)
    exp = run.experiment.replace(data={"seq_len": length})
    total = 0.0
    for number in stage_ends(run):
        path = stages[number].path
        exits = 1 + len(path) * exp.rack.blocks_per_stack
        total += forward_flops_per_token(exp, path) * rows * length
        total += head_flops_per_position(exp) * places
        total += exits * 2.0 * places**2 * (exp.rack.d_model + 1)
    return total


def likeness(old_PP: Tensor, new_PP: Tensor) -> float:
    """Linear CKA of two centred Gram matrices: 1 for the same numbers, exactly."""
    if torch.equal(old_PP, new_PP):
        return 1.0
    both = torch.linalg.vector_norm(old_PP) * torch.linalg.vector_norm(new_PP)
    return float((old_PP * new_PP).sum() / both) if both else float("nan")


def divergence(old_PV: Tensor, new_PV: Tensor) -> float:
    """The mean of KL(old, new) over positions, of log-probabilities; nats."""
    if torch.equal(old_PV, new_PV):
        return 0.0
    return float((old_PV.exp() * (old_PV - new_PV)).sum(-1).mean())


class Seen(NamedTuple):
    """What a path makes of some text at P positions, float64, on the CPU.

    Attributes:
        grams: Centred Gram matrices (P, P) by exit.
        log_PV: Log-probabilities at the end.
    """

    grams: dict[str, Tensor]
    log_PV: Tensor


def seen(rack: Rack, noisy: Corrupted, stage: Stage, causal: Direction, most: int) -> Seen:
    """What the path of a stage makes of some text, at `most` positions evenly spread over it."""
    device = rack.embedding.table.device
    input_BT, tokens = noisy.input_BT.to(device), noisy.positions // len(noisy.input_BT)
    count, causal = noisy.positions, noisy.direction(causal)
    places_P = torch.linspace(0, count - 1, min(most, count), dtype=torch.float64).long()
    grams, x_BTD = [], None
    time_B = noisy.level_B.to(device)
    for x_BTD in rack.exits(input_BT, causal=causal, path=stage.path, time_B=time_B):
        grams.append(gram(x_BTD[:, :tokens].flatten(0, 1)[places_P.to(device)]))
    assert x_BTD is not None  # the embedding is always there
    logits_PV = rack.logits(x_BTD[:, :tokens].flatten(0, 1)[places_P.to(device)])
    names = exit_names(stage.path, len(grams))
    log_PV = logits_PV.double().log_softmax(-1).cpu()
    return Seen(dict(zip(names, grams, strict=True)), log_PV)


def gram(x_PD: Tensor) -> Tensor:
    """Products of all pairs of centred rows, (P, P), float64, on the CPU."""
    x_PD = x_PD.double()
    x_PD = x_PD - x_PD.mean(0)
    return (x_PD @ x_PD.mT).cpu()
