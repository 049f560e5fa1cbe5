"""The samplers, by name: what builds each, and what is to be known of it before it is chosen."""

from __future__ import annotations

from typing import Any

from stackwise.choice import Choice, Params
from stackwise.sampling.ancestral import Ancestral, ancestral
from stackwise.sampling.autoregressive import Autoregressive, left_to_right
from stackwise.sampling.first_hitting import FirstHitting, first_hitting
from stackwise.sampling.ranked import Confidence, Entropy, Margin, Random, ranked
from stackwise.sampling.remask import Remask, remask
from stackwise.sampling.semi_autoregressive import (
    SemiAutoregressive,
    inner_of,
    semi_autoregressive,
)
from stackwise.sampling.task import Sampler
from stackwise.sampling.through_depth import ThroughDepth, through_depth

EACH, ONE = "one per mask", "with one per step"


def _unless_per_step(params: Any) -> bool:
    return params.per_step is None


def _never(params: Params) -> bool:
    return False


def _as_inner(params: Any) -> bool:
    entry, inner = inner_of(params.inner)
    return entry.takes_steps(inner)


def _ranked(params: type[Params], source: str, law: str = "no") -> Sampler:
    forwards = "one per step"
    return Sampler(
        ranked, params, takes_steps=_unless_per_step, law=law, forwards=forwards, source=source
    )


SAMPLERS: dict[str, Choice] = {
    "ancestral": Sampler(
        ancestral,
        Ancestral,
        law="in the limit of many steps",
        forwards="one per step in which something leaves, one per mask at most",
        source="MDLM, arXiv 2406.07524",
    ),
    "first_hitting": Sampler(
        first_hitting,
        FirstHitting,
        takes_steps=_never,
        law="yes",
        forwards=EACH,
        source="Zheng et al., arXiv 2409.02908",
    ),
    "confidence": _ranked(Confidence, "MaskGIT, arXiv 2202.04200; LLaDA, arXiv 2502.09992"),
    "margin": _ranked(Margin, "Kim et al., arXiv 2502.06768", ONE),
    "entropy": _ranked(Entropy, "Dream, arXiv 2508.15487", ONE),
    "random": _ranked(Random, "any-order sampling, arXiv 2110.02037", ONE),
    "remask": Sampler(
        remask,
        Remask,
        law="in the limit of many steps with eta times steps held, without confidence",
        forwards="one per step in which something leaves",
        source="ReMDM, arXiv 2503.00307",
    ),
    "semi_autoregressive": Sampler(
        semi_autoregressive,
        SemiAutoregressive,
        takes_steps=_as_inner,
        law="as the inner sampler",
        forwards="as the inner sampler",
        source="LLaDA, arXiv 2502.09992",
    ),
    "through_depth": Sampler(
        through_depth,
        ThroughDepth,
        takes_steps=_unless_per_step,
        law="with one per step, unless rule=confidence",
        forwards="one per step, by the stacks of one band",
        source="DiffusionBlocks, arXiv 2506.14202, for masks",
    ),
    "autoregressive": Sampler(
        left_to_right,
        Autoregressive,
        causal=True,
        takes_steps=_never,
        law="yes",
        forwards=EACH,
        source="the chain rule",
    ),
}


def samplers_for(causal: bool) -> list[str]:
    """The samplers for racks that were trained causally, or bidirectionally."""
    return [name for name in SAMPLERS if is_causal_sampler(name) == causal]


def is_causal_sampler(name: str) -> bool:
    """Whether a sampler reads left to right. A plain `Choice` does not."""
    entry = SAMPLERS[name]
    return isinstance(entry, Sampler) and entry.causal


def takes_steps(params: Params) -> bool:
    """Whether a number of steps may be given with these parameters."""
    entry = SAMPLERS[params.choice]
    return not isinstance(entry, Sampler) or entry.takes_steps(params)
