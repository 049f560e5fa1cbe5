"""Racks for samplers: a law with noise bands, and tiny racks of every direction."""

from __future__ import annotations

import pytest
import torch

from stackwise.choice import parse
from stackwise.model.rack import Rack
from stackwise.model.shape import RackShape
from stackwise.objective import OBJECTIVES

BANDS = [(0.7, 1.0, ("s0", "s1")), (0.4, 0.7, ("s1",)), (0.0, 0.4, ("s2",))]
SHAPE = RackShape(stacks=3, blocks_per_stack=1, d_model=8, heads=2, d_ff=8)


@pytest.fixture
def banded_law(toy_law):
    """The class: a law whose conditionals every band knows."""

    class BandedLaw(toy_law):
        paths = BANDS

        def path_for(self, mask_frac):
            return next(path for low, high, path in BANDS if low < mask_frac <= high)

    return BandedLaw


@pytest.fixture
def rack_of():
    """A tiny rack: `rack_of("diffusion")`, `rack_of("clm")`, `rack_of(None, paths=BANDS)`."""

    def make(objective=None, vocab=5, paths=None, seed=0):
        rack = Rack(SHAPE, "mha", vocab, seed=seed, paths=paths)
        torch.nn.init.normal_(rack.embedding.table, generator=torch.Generator().manual_seed(seed))
        if objective is not None:
            rack.objective = parse(OBJECTIVES, objective, "objective", "kind")
        return rack.eval()

    return make


@pytest.fixture
def causal_rack():
    """A tiny causal rack of a kind of attention, with the rack's window if one is given."""

    def make(attention, window=None):
        heads = {"kv_heads": 1} if attention == "gqa" else {}
        shape = SHAPE.model_copy(update={"window": window, **heads})
        rack = Rack(shape, attention, 5)
        rack.objective = parse(OBJECTIVES, "clm", "objective", "kind")
        return rack.eval()

    return make
