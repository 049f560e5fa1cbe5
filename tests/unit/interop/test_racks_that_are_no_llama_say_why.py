"""Every option that a Llama has not is named, all at once."""

from __future__ import annotations

import pytest

import stackwise as sw
from stackwise.interop.llama_rules import NEEDED, refuse_what_is_no_llama

LAST = (
    "run x: is no Llama for these reasons; it can be used from here (run.rack(), stackwise sample),"
    " and one that is trained without them exported"
)


def refusal(params, attention: str = "mha", objective: str = "clm", **rack) -> list[str]:
    """The reasons, without whose they are."""
    with pytest.raises(sw.ModelError) as error:
        refuse_what_is_no_llama(
            sw.RackShape(**rack), params.attention(attention), objective, "run x"
        )
    *lines, last = str(error.value).splitlines()
    assert last == LAST
    return [line.removeprefix("run x: ") for line in lines]


def test_all_of_them_are_said_at_once(params) -> None:
    found = refusal(
        params,
        "mla",
        "mlm",
        d_model=18,
        heads=4,
        head_dim=6,
        ffn="gelu",
        norm="layernorm",
        norm_place="post",
        qk_norm=True,
        residual_gain=0.5,
        token_types=2,
        embed_norm=True,
        head_transform=True,
        head_bias=True,
        rope_base=[10.0, 20.0],
        window=[None, 3],
    )
    assert found == [
        "objective: 'mlm' reads in both directions, and a Llama is loaded as one that reads from "
        "left to right, which this rack never did; train with clm",
        "attention: 'mla' is none of a Llama's: mha, gqa",
        "rack.ffn: 'gelu' is not a Llama's, which has 'swiglu'",
        "rack.norm: 'layernorm' is not a Llama's, which has 'rmsnorm'",
        "rack.norm_place: 'post' is not a Llama's, which has 'pre'",
        "rack.qk_norm: True is not a Llama's, which has False",
        "rack.residual_gain: 0.5 is not a Llama's, which has 1.0",
        "rack.token_types: 2 is not a Llama's, which has 0",
        "rack.embed_norm: True is not a Llama's, which has False",
        "rack.head_transform: True is not a Llama's, which has False",
        "rack.head_bias: True is not a Llama's, which has False",
        "rack.rope_base: (10.0, 20.0) differs between blocks; a Llama has one",
        "rack.window: (None, 3) is not a Llama's, which sees all tokens",
        "rack.heads: 4 does not divide d_model=18; transformers' Llama asks for that, whatever "
        "head_dim is; use heads that divide it",
    ]


@pytest.mark.parametrize("positions", ["learned", "none"])
def test_other_positions(positions, params) -> None:
    rack = {"positions": positions, "max_positions": 9 if positions == "learned" else None}
    assert refusal(params, **rack) == [
        f"rack.positions: {positions!r} is not a Llama's, which has 'rope'"
    ]


def test_every_option_of_a_rack_is_either_written_or_refused() -> None:
    """A new field of RackShape has to be looked at: what does a Llama make of it?"""
    written = {
        *("stacks", "blocks_per_stack", "d_model", "heads", "kv_heads", "head_dim", "d_ff"),
        *("vocab", "tied", "norm_eps", "bias", "rope_base", "rope_scaling", "init_std", "window"),
        "max_positions",  # only read with learned positions
        "time_width",  # only read with time input
        *("frozen_up", "spectral_norm"),  # how weights train: written are those computed with
    }
    assert written | set(NEEDED) == set(sw.RackShape.model_fields)
