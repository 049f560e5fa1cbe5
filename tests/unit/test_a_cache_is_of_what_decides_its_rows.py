"""The key of a cache of trunk outputs moves with everything that its rows come from, and only then.

So a stage never reads rows of another one, of other weights or of other samples.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

import stackwise as sw
from stackwise.training.caching import key_of
from stackwise.training.checkpoint import save
from stackwise.training.rows import ROWS

EXP = sw.Experiment.preset("toy")
MOVING = {"objective": "mlm", "masking": {"schedule": "ramp"}}


@pytest.fixture
def key(tmp_path):
    """`key(...)`: of the rows of a stage after the stacks of `trunk`."""

    def made(
        science=None,
        *,
        micro_batch=None,
        data="fingerprint",
        band=(0.0, 1.0),
        first=0,
        before=0,
        trunk=("s0", "s1"),
        moved=None,
        of="trained",
        read=0,
        **reads,
    ) -> str:
        parts_of_mix = ("a", "b") if "weights" in reads or read else ()
        names = ("embedding", "s0", "s1", "s2")
        values = {name: float(number) for number, name in enumerate(names)}
        values |= {} if moved is None else {moved: 9.0}
        parts = {name: {"w": torch.tensor([value])} for name, value in values.items()}
        save(tmp_path / "rack", parts)
        work = SimpleNamespace(
            exp=EXP.replace(**(science or {})),
            run=SimpleNamespace(path=tmp_path),
            placement=sw.Placement(micro_batch=micro_batch),
            dataset=SimpleNamespace(fingerprint=data, n_windows=30, parts=parts_of_mix),
            epoch_samples=100,
            stages=[sw.Stage(path=("s0", "s1", "s2"), active=("s2",), band=band, **reads)],
            length_of=lambda number: reads.get("seq_len", 64),
            weights_in=lambda number: reads.get("weights", (1, 1)),
            read_before=lambda number: [read],
            tokens_before=lambda number: 0,
            first_sample=lambda number, step: first,
            samples_before=lambda number: before,
            total_samples=100,
        )
        return key_of(work, 0, ROWS[of](work, 0), trunk)

    return made


CHANGES = {
    "the rack": {"science": {"rack": {"norm_eps": 1e-3}}},
    "attention": {"science": {"attention": "mla"}},
    "the objective": {"science": {"objective": "clm"}},
    "how tokens are masked": {"science": {"masking": {"schedule": "cosine"}}},
    "the seed": {"science": {"seed": 1}},
    "the length of samples": {"science": {"data": {"seq_len": 32}}},
    "the dtype of products": {"science": {"precision": {"compute": "bfloat16"}}},
    "the dtype of the border": {"science": {"precision": {"border": "fp8"}}},
    "the batch": {"science": {"optim": {"batch": 3}}},
    "the micro-batch, which is another order of sums": {"micro_batch": 1},
    "the text": {"data": "another"},
    "the noise band": {"band": (0.0, 0.5)},
    "the first sample": {"first": 64},
    "the embedding": {"moved": "embedding"},
    "weights of a stack of the trunk": {"moved": "s1"},
    "the stacks of the trunk": {"trunk": ("s0",)},
    "their order": {"trunk": ("s1", "s0")},
}


@pytest.mark.parametrize("case", CHANGES)
def test_what_decides_the_rows_is_in_it(key, case) -> None:
    assert key(**CHANGES[case]) != key()


SAME = {
    "weights above the trunk": {"moved": "s2"},
    "how fast it learns": {"science": {"optim": {"lr": 0.5}}},
    "where in training, which these masks do not follow": {"before": 50},
}


@pytest.mark.parametrize("case", SAME)
def test_what_does_not_is_not(key, case) -> None:
    assert key(**SAME[case]) == key()


READS = {
    "shorter samples in a stage": ({"seq_len": 32}, {}),
    "the weights of a mixture": ({"weights": (1, 2)}, {"weights": (1, 1)}),
    "what was read of each of its corpora": ({"weights": (1, 2), "read": 4}, {"weights": (1, 2)}),
}


@pytest.mark.parametrize("case", READS)
def test_so_is_what_the_stage_itself_reads(key, case) -> None:
    one, other = READS[case]
    assert key(**one) != key(**other)
    assert key(**one, of="heldout") == key(**other, of="heldout")


def test_where_masks_follow_training_it_is(key) -> None:
    assert key(MOVING, before=50) != key(MOVING)


def test_held_out_windows_have_a_key_of_their_own(key) -> None:
    fewer = {"eval": {"windows": 4}}
    assert key(of="heldout") != key()
    assert key(of="heldout", first=64) == key(of="heldout") == key(of="heldout", micro_batch=1)
    assert key(fewer, of="heldout") != key(of="heldout")
    assert key({"optim": {"batch": 3}}, of="heldout") != key(of="heldout")
    assert key(of="heldout", band=(0.0, 0.5)) != key(of="heldout")
