"""Generation: iterative denoising, and left to right.

A denoising sampler fills the [MASK]s of a batch over some steps and never touches anything else.
At each step a rack with noise bands runs the path whose band holds the sample's masked fraction.
Choosing uses Gumbel noise in float64: in float32 it is truncated, which lowers the temperature and
flatters the sample (Zheng et al., arXiv 2409.02908). Likelihoods are in `evaluation.py`.

Shapes: B samples, T tokens, N masked positions, V entries of the head.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from pydantic import Field
from torch import Tensor

from stackwise.choice import Choice, Params, find, parse
from stackwise.evaluation import device_of
from stackwise.model.decoding import reading
from stackwise.schedules import SCHEDULES, time_schedule

if TYPE_CHECKING:
    from stackwise.data.tokenizer import Tokenizer
    from stackwise.model.rack import Rack


SEEDS = 1 << 63


class Ancestral(Params):
    """Reverse the noise process, from time t to s: a mask stays with (1 - alpha_s)/(1 - alpha_t).

    Exact in the limit of many steps (MDLM, arXiv 2406.07524).
    """

    kind: Literal["ancestral"] = "ancestral"
    schedule: str = Field("linear", description="schedule over time whose times are the steps")


class Confidence(Params):
    """The same number of positions at each step, those whose choice is most probable.

    MaskGIT (arXiv 2202.04200); LLaDA's low-confidence remasking (2502.09992). Often
    better text than `ancestral` at few steps, but not the rack's distribution.
    """

    kind: Literal["confidence"] = "confidence"


class Autoregressive(Params):
    """One token at a time, left to right, for causal racks; each is read once, into a cache."""

    kind: Literal["autoregressive"] = "autoregressive"


def sample(
    rack: Rack,
    prompt: str = "",
    *,
    tokenizer: Tokenizer,
    length: int = 64,
    method: str | Params = "ancestral",
    steps: int | None = None,
    temperature: float = 1.0,
    seed: int = 0,
) -> str:
    """Continue a text.

    Args:
        rack: The rack.
        prompt: What it continues; may be empty.
        tokenizer: The one it was trained with.
        length: Tokens to add.
        method: `ancestral`, `ancestral:SCHEDULE`, `confidence` or `autoregressive`.
        steps: Denoising steps; None for one per token. Not used left to right.
        temperature: 0 takes the most probable token; 1 samples the rack's distribution.
        seed: Of every random choice.

    Returns:
        Prompt and continuation.

    Raises:
        ValueError: As `sample_ids`.
    """
    ids_T = sample_ids(
        rack,
        np.asarray(tokenizer.encode(prompt), dtype=np.int64),
        length=length,
        method=method,
        steps=steps,
        temperature=temperature,
        seed=seed,
    )
    return tokenizer.decode(ids_T.cpu().numpy())


def sample_ids(
    rack: Rack,
    prompt: ArrayLike | Tensor,
    *,
    length: int,
    method: str | Params = "ancestral",
    steps: int | None = None,
    temperature: float = 1.0,
    seed: int = 0,
) -> Tensor:
    """Continue prompts of equal length.

    Args:
        rack: The rack.
        prompt: Ids below V, (P,) or (B, P); P may be 0.
        length: Tokens to add, 1 or more.
        method: As for `sample`.
        steps: Denoising steps; None for one per token.
        temperature: 0 or more.
        seed: Of every random choice.

    Returns:
        Ids below V, (P + length,) or (B, P + length), int64, that begin with the prompt.

    Raises:
        ValueError: If the method is unknown, or a number or an id is out of range.
    """
    prompt_BP = torch.as_tensor(prompt, dtype=torch.int64, device=device_of(rack))
    _check(rack, prompt_BP, length, steps, temperature)
    if not 0 <= seed < SEEDS:
        raise ValueError(f"seed: {seed} must be 0 or more, and under {SEEDS}")
    ids_BT = torch.nn.functional.pad(torch.atleast_2d(prompt_BP), (0, length), value=rack.mask_id)
    *_, ids_BT = trajectory(rack, ids_BT, method, steps or length, temperature, seed)
    return ids_BT if prompt_BP.dim() == 2 else ids_BT[0]


def trajectory(
    rack: Rack,
    ids_BT: Tensor,
    method: str | Params,
    steps: int,
    temperature: float = 1.0,
    seed: int = 0,
) -> Iterator[Tensor]:
    """Fill the [MASK]s of `ids_BT`, anywhere in it, and yield the ids after every step."""
    params = parse(SAMPLERS, method, "method", "kind")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        yield from find(SAMPLERS, params.choice, "method").build(
            rack, ids_BT, params, steps, temperature, generator
        )


def ancestral(
    rack: Rack,
    ids_BT: Tensor,
    params: Ancestral,
    steps: int,
    temperature: float,
    generator: torch.Generator,
) -> Iterator[Tensor]:
    """Unmask each position by chance as time falls from 1 to 0; read only when one leaves."""
    schedule = parse(SCHEDULES, params.schedule, "method.schedule", "name")
    masked_prob = 1 - time_schedule(schedule).alpha(np.linspace(1, 0, steps + 1))
    for before, after in pairwise(masked_prob):
        u_BT = torch.rand(ids_BT.shape, generator=generator, dtype=torch.float64)
        leaves_BT = (ids_BT == rack.mask_id) & (u_BT >= after / before).to(ids_BT.device)
        if leaves_BT.any():
            chosen_N = choose(logits_at(rack, ids_BT, leaves_BT), temperature, generator)
            ids_BT = ids_BT.masked_scatter(leaves_BT, chosen_N)
        yield ids_BT


def confidence(
    rack: Rack,
    ids_BT: Tensor,
    params: Confidence,
    steps: int,
    temperature: float,
    generator: torch.Generator,
) -> Iterator[Tensor]:
    """Spread the masks evenly over the steps; commit the most probable choices first."""
    count_B1 = (ids_BT == rack.mask_id).sum(1, keepdim=True)
    for step in range(steps):
        take_B1 = count_B1 * (step + 1) // steps - count_B1 * step // steps
        if take_B1.any():
            masked_BT = ids_BT == rack.mask_id
            logits_NV = logits_at(rack, ids_BT, masked_BT)
            chosen_N = choose(logits_NV, temperature, generator)
            prob_NV = logits_NV.double().softmax(-1)
            sure_BT = torch.full(ids_BT.shape, -1.0, dtype=torch.float64, device=ids_BT.device)
            sure_BT[masked_BT] = prob_NV.gather(1, chosen_N[:, None])[:, 0]
            rank_BT = sure_BT.argsort(dim=1, descending=True, stable=True).argsort(1)
            leaves_BT = rank_BT < take_B1
            ids_BT = ids_BT.masked_scatter(leaves_BT, chosen_N[leaves_BT[masked_BT]])
        yield ids_BT


def autoregressive(
    rack: Rack,
    ids_BT: Tensor,
    params: Autoregressive,
    steps: int,
    temperature: float,
    generator: torch.Generator,
) -> Iterator[Tensor]:
    """Fill the masked columns left to right, each from what stands before it, read once."""
    start_B1, last_of = torch.full_like(ids_BT[:, :1], rack.start_id), reading(rack)
    for column in (ids_BT == rack.mask_id).any(0).nonzero()[:, 0].tolist():
        x_BD = last_of(torch.cat([start_B1, ids_BT[:, :column]], 1))
        chosen_B = choose(rack.logits(x_BD), temperature, generator)
        masked_B = ids_BT[:, column] == rack.mask_id
        ids_BT = ids_BT.clone()
        ids_BT[:, column] = torch.where(masked_B, chosen_B, ids_BT[:, column])
        yield ids_BT


SAMPLERS: dict[str, Choice] = {
    "ancestral": Choice(ancestral, Ancestral),
    "confidence": Choice(confidence, Confidence),
    "autoregressive": Choice(autoregressive, Autoregressive),
}


def logits_at(rack: Rack, ids_BT: Tensor, at_BT: Tensor) -> Tensor:
    """Logits (N, V) at some masked positions, each sample by the path of its masked fraction."""
    read_B = at_BT.any(1)
    ids_BT, at_BT = ids_BT[read_B], at_BT[read_B]
    count_B = (ids_BT == rack.mask_id).sum(1).tolist()
    paths = [rack.path_for(count / ids_BT.shape[1]) for count in count_B]
    row_N = at_BT.nonzero()[:, 0]
    logits, places = [], []
    for path in dict.fromkeys(paths):
        mine_B = torch.tensor([p == path for p in paths], device=ids_BT.device)
        x_BTD = rack.hidden(ids_BT[mine_B], causal=False, path=path)
        logits.append(rack.logits(x_BTD[at_BT[mine_B]]))
        places.append(mine_B[row_N].nonzero()[:, 0])
    return torch.cat(logits)[torch.cat(places).argsort()]


def choose(logits_NV: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """Sample ids from softmax(logits / temperature) by the Gumbel trick, in float64."""
    if temperature == 0:
        return logits_NV.argmax(-1)
    u_NV = torch.rand(logits_NV.shape, generator=generator, dtype=torch.float64)
    gumbel_NV = -(-u_NV.clamp_min(2.0**-54).log()).log()
    return (logits_NV.double() / temperature + gumbel_NV.to(logits_NV.device)).argmax(-1)


def _check(
    rack: Rack, prompt_BP: Tensor, length: int, steps: int | None, temperature: float
) -> None:
    """Refuse what cannot be continued."""
    if prompt_BP.dim() not in (1, 2):
        raise ValueError(f"prompt: {prompt_BP.dim()} dimensions; give (P,) or (B, P)")
    if prompt_BP.numel() and not 0 <= int(prompt_BP.min()) <= int(prompt_BP.max()) < rack.mask_id:
        raise ValueError(
            f"prompt: ids from {int(prompt_BP.min())} to {int(prompt_BP.max())}, but the rack "
            f"knows 0 to {rack.mask_id - 1}; use the tokenizer it was trained with"
        )
    if length < 1:
        raise ValueError(f"length: {length} must be 1 or more")
    if steps is not None and steps < 1:
        raise ValueError(f"steps: {steps} must be 1 or more; leave it out for one per token")
    if not 0 <= temperature < float("inf"):
        raise ValueError(
            f"temperature: {temperature} must be 0 or more and finite; 0 takes the best token"
        )
