"""How good a rack is on held-out windows: bits per byte.

`clm` scores every token exactly. Masked objectives get the continuous-time bound, estimated by
drawing the number k of masked tokens instead of the time (LLaDA, arXiv 2502.09992):

    -log p(x) <= E over k ~ U{1..T} of T/k * (cross-entropy summed over k masked tokens)

with k spread evenly over all windows and draws. It is the same expectation for every schedule, at
a fraction of the variance of drawing times (`tests/unit/test_drawing_times_well_pays.py`). With
`block_diffusion` that is done in each block, and exact where blocks are single tokens. A rack with
noise bands runs, for each window, the path whose band holds k/T. Bits are divided by the true bytes
of the text. Losses at every depth are in `probe.py`.

Shapes: N windows (in `nats_at`: positions), M = windows x draws, B rows, T tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from stackwise.block_diffusion import block_sizes, chosen_in_blocks, read_as
from stackwise.choice import Params, parse
from stackwise.draws import Stream, smallest, uniform_BT
from stackwise.model.direction import BlockCausal
from stackwise.objective import OBJECTIVES, is_causal
from stackwise.pulse import beat
from stackwise.stage import FULL_BAND

if TYPE_CHECKING:
    from stackwise.model.rack import Rack

LOGITS_AT_ONCE = 1 << 24  # 64 MB in float32: what is materialised of the head's output

NOTES = {
    "exact": "likelihood of every token, the first of each window included",
    "nelbo": "upper bound (NELBO) by masked diffusion, number of masked tokens stratified",
}
BLOCK_NOTES = {
    "exact": "likelihood of every token given those before it, each read as [MASK] in its place",
    "nelbo": "upper bound (NELBO) by masked diffusion in blocks of {size} tokens, given those "
    "before them; number of masked tokens stratified in each",
}
MLM_NOTE = "an mlm rack has no likelihood of its own: " + NOTES["nelbo"]


@dataclass(frozen=True)
class Evaluation:
    """What held-out windows cost a rack.

    Attributes:
        bits_per_byte: Total bits over the true bytes of the text.
        nats_per_token: The same in nats over tokens.
        stderr: Standard error of `bits_per_byte` from drawing masks, slightly too large since the
            windows' own spread is in it; 0 for an exact likelihood. It is not the error from
            having few windows.
        tokens: Tokens scored.
        bytes: Bytes of the text they decode to.
        estimate: `exact`, or `nelbo` for an upper bound.
        note: The same in words.
    """

    bits_per_byte: float
    nats_per_token: float
    stderr: float
    tokens: int
    bytes: int
    estimate: Literal["exact", "nelbo"]
    note: str


@torch.no_grad()
def evaluate(
    rack: Rack,
    windows_NT: ArrayLike,
    byte_count: ArrayLike,
    *,
    objective: Params | str | Mapping[str, Any],
    seed: int = 0,
    draws: int = 1,
    batch: int = 64,
) -> Evaluation:
    """Score held-out windows; a pure function of rack, windows, seed and draws.

    Args:
        rack: The rack, with a path for every masked fraction.
        windows_NT: Ids below the rack's vocabulary, (N, T).
        byte_count: True bytes of the text the windows decode to: in all, or per window.
        objective: What the rack was trained with: its name, parameters, or a mapping of them.
        seed: Of the masks.
        draws: Masks per window, 1 or more; a causal rack needs none.
        batch: Rows per forward pass.

    Raises:
        ValueError: If there is no window, no byte or no draw, or the objective is unknown.
    """
    objective = parse(OBJECTIVES, objective, "objective", "kind")
    ids_NT = torch.as_tensor(np.asarray(windows_NT), dtype=torch.int64)
    size, tokens = int(np.sum(byte_count)), ids_NT.numel()
    if not tokens or size < 1 or draws < 1:
        raise ValueError(
            f"evaluate: {tokens} tokens, {size} bytes, {draws} draws; each must be 1 or more"
        )
    if is_causal(objective):
        estimate: Literal["exact", "nelbo"] = "exact"
        nats, error = float(_causal_nats(rack, ids_NT, batch).mean()), 0.0
    elif (blocks := read_as(objective, ids_NT.shape[1])) is not None:
        exact = blocks.size == 1
        estimate = "exact" if exact else "nelbo"
        nats, error = _block_nats(rack, ids_NT, blocks, seed, 1 if exact else draws, batch)
    else:
        estimate = "nelbo"
        nats_M = _masked_nats(rack, ids_NT, seed, draws, batch)
        nats, error = float(nats_M.mean()), systematic_stderr(nats_M)
    to_bits = tokens / size / math.log(2)
    note = _note(objective, estimate, ids_NT.shape[1])
    return Evaluation(nats * to_bits, nats, error * to_bits, tokens, size, estimate, note)


def _note(objective: Params, estimate: str, tokens: int) -> str:
    """What kind of figure it is."""
    if objective.choice == "mlm":
        return MLM_NOTE
    blocks = read_as(objective, tokens)
    return NOTES[estimate] if blocks is None else BLOCK_NOTES[estimate].format(size=blocks.size)


def _causal_nats(rack: Rack, ids_NT: Tensor, batch: int) -> NDArray[np.float64]:
    """Nats per token of each window, left to right."""
    found = []
    for ids_BT in ids_NT.to(device_of(rack)).split(batch):
        start_B1 = torch.full_like(ids_BT[:, :1], rack.start_id)
        x_BTD = rack.hidden(torch.cat([start_B1, ids_BT[:, :-1]], 1), causal=True)
        nats_N = nats_at(rack, x_BTD.flatten(0, 1), ids_BT.flatten())
        found.append(nats_N.view(ids_BT.shape).mean(1).cpu().numpy())
    return np.concatenate(found)


def _masked_nats(
    rack: Rack, ids_NT: Tensor, seed: int, draws: int, batch: int
) -> NDArray[np.float64]:
    """Mean nats over the k masked tokens of each (window, draw), by rising k.

    Its mean is the bound per token: the weight T/k over T tokens is 1/k.
    """
    windows, T = ids_NT.shape
    k_M, window_M, draw_M = stratified_counts(windows, T, draws, seed)
    paths = [rack.path_for(k / T) for k in k_M]
    nats_M = np.empty(len(k_M))
    for path, rows in _runs(paths, batch):
        u_BT = uniform_BT(seed, window_M[rows], draw_M[rows], FULL_BAND, T, Stream.EVALUATION)
        masked_BT = torch.from_numpy(smallest(u_BT, k_M[rows])).to(device_of(rack))
        ids_BT = ids_NT[window_M[rows]].to(device_of(rack))
        input_BT = ids_BT.masked_fill(masked_BT, rack.mask_id)
        x_BTD = rack.hidden(input_BT, causal=False, path=path)
        nats_BT = torch.zeros(ids_BT.shape, dtype=torch.float64, device=ids_BT.device)
        nats_BT[masked_BT] = nats_at(rack, x_BTD[masked_BT], ids_BT[masked_BT])
        nats_M[rows] = nats_BT.sum(1).cpu().numpy() / k_M[rows]
    return nats_M


def _block_nats(
    rack: Rack, ids_NT: Tensor, blocks: BlockCausal, seed: int, draws: int, batch: int
) -> tuple[float, float]:
    """Nats per token, and the standard error of drawing masks.

    In a block of L tokens of which k are masked the weight L/k over L tokens is 1/k. A last block
    that is shorter has draws of its own, and its error is its own.
    """
    windows, T = ids_NT.shape
    k_DWN, frac_DWN = counts_in_blocks(windows, T, blocks.size, draws, seed)
    nats_DWN = np.empty(k_DWN.shape)
    for draw, k_WN in enumerate(k_DWN):
        for first in range(0, windows, batch):
            rows = slice(first, first + batch)
            window_B = np.arange(windows)[rows]
            u_BT = uniform_BT(
                seed, window_B, np.full(len(window_B), draw), FULL_BAND, T, Stream.EVALUATION
            )
            masked_BT = torch.from_numpy(chosen_in_blocks(u_BT, k_WN[rows], blocks.size))
            nats_BN = _nats_by_block(rack, ids_NT[rows], masked_BT, blocks)
            nats_DWN[draw, rows] = nats_BN / k_WN[rows]
    size_N, nats, variance = block_sizes(blocks.size, T), 0.0, 0.0
    for size in np.unique(size_N):
        alike_N = size_N == size
        order_M = np.argsort(frac_DWN[..., alike_N], axis=None)
        nats_M, share = nats_DWN[..., alike_N].flatten()[order_M], size * alike_N.sum() / T
        nats += share * float(nats_M.mean())
        if size > 1:  # a token alone is masked always
            variance += (share * systematic_stderr(nats_M)) ** 2
    return nats, math.sqrt(variance)


def _nats_by_block(
    rack: Rack, ids_BT: Tensor, masked_BT: Tensor, blocks: BlockCausal
) -> NDArray[np.float64]:
    """The cross-entropy of the masked tokens of each block, (B, N), all read at once."""
    ids_BT, masked_BT = ids_BT.to(device_of(rack)), masked_BT.to(device_of(rack))
    noisy_BT = ids_BT.masked_fill(masked_BT, rack.mask_id)
    x_BRD = rack.hidden(torch.cat([noisy_BT, ids_BT[:, : blocks.clean]], 1), causal=blocks)
    x_BTD = x_BRD[:, : blocks.noisy]
    nats_BT = torch.zeros(ids_BT.shape, dtype=torch.float64, device=ids_BT.device)
    nats_BT[masked_BT] = nats_at(rack, x_BTD[masked_BT], ids_BT[masked_BT])
    missing = -blocks.noisy % blocks.size
    return F.pad(nats_BT, (0, missing)).unflatten(1, (-1, blocks.size)).sum(2).cpu().numpy()


def counts_in_blocks(
    windows: int, length: int, size: int, draws: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Numbers of masked tokens, spread evenly over all blocks of all windows, for every draw.

    Returns:
        Numbers (draws, windows, blocks), each up to its block's length, and the numbers in [0, 1)
        that they were made of; blocks of another length have those of their own.
    """
    size_N = block_sizes(size, length)
    frac_DWN = np.empty((draws, windows, len(size_N)))
    for group, alike in enumerate(np.unique(size_N)[::-1]):
        alike_N = size_N == alike
        frac_DM = _spread_fracs(windows * int(alike_N.sum()), draws, seed, group)
        frac_DWN[..., alike_N] = frac_DM.reshape(draws, windows, -1)
    k_DWN = np.minimum(np.floor(frac_DWN * size_N).astype(np.int64) + 1, size_N)
    return k_DWN, frac_DWN


def stratified_counts(
    windows: int, length: int, draws: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Numbers of masked tokens, spread evenly over 1..length, for every window and draw.

    A random shift makes each number uniform; a random order per draw unties it from the text.

    Returns:
        Number, window and draw of each of the M = windows x draws rows, by rising number.
    """
    frac_DN = _spread_fracs(windows, draws, seed)
    order_M = np.argsort(frac_DN, axis=None)
    draw_M, window_M = np.unravel_index(order_M, frac_DN.shape)
    k_M = np.floor(frac_DN.flatten()[order_M] * length).astype(np.int64) + 1
    return np.minimum(k_M, length), window_M, draw_M


def _spread_fracs(count: int, draws: int, seed: int, group: int = 0) -> NDArray[np.float64]:
    """Evenly spread numbers in [0, 1), in an order of its own for each draw: (draws, count)."""
    draw_D, group_D = np.arange(draws), np.full(draws, group)
    u = uniform_BT(seed, group_D, draw_D, FULL_BAND, count + 1, Stream.EVALUATION_ORDER)
    place_DN = np.argsort(np.argsort(u[:, 1:], axis=1), axis=1)
    return np.asarray((place_DN + (draw_D[:, None] + u[0, 0]) / draws) / count)


def systematic_stderr(value_M: NDArray[np.float64]) -> float:
    """Standard error of the mean of evenly spaced draws, from differences of neighbours.

    sqrt(sum of (y_(m+1) - y_m)^2 / (2 (M - 1) M)) (Wolter, Introduction to Variance Estimation,
    on systematic sampling): the trend along the spacing does not count as noise.
    """
    count = len(value_M)
    if count < 2:
        return math.inf
    return math.sqrt(float(np.square(np.diff(value_M)).sum()) / (2 * (count - 1) * count))


def _runs(paths: Sequence[tuple[str, ...]], batch: int) -> Iterator[tuple[tuple[str, ...], slice]]:
    """Rows in order, cut where the path changes and at most `batch` long."""
    start = 0
    for path, group in groupby(paths):
        end = start + len(list(group))
        for first in range(start, end, batch):
            yield path, slice(first, min(first + batch, end))
        start = end


def nats_at(rack: Rack, x_ND: Tensor, target_N: Tensor) -> Tensor:
    """Cross-entropy of each target from its hidden state, float64, logits never held whole."""
    beat()
    size = max(1, LOGITS_AT_ONCE // rack.vocab)
    parts = [
        F.cross_entropy(rack.logits(x_PD).float(), target_P, reduction="none").double()
        for x_PD, target_P in zip(x_ND.split(size), target_N.split(size), strict=True)
    ]
    return torch.cat(parts)


def device_of(rack: Rack) -> torch.device:
    """Where the rack's weights are."""
    weight = next(rack.parameters(), None)
    return torch.device("cpu") if weight is None else weight.device
