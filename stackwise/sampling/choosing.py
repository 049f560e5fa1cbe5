"""From logits at some masked positions to tokens there.

Choosing uses Gumbel noise in float64: in float32 it is truncated, which lowers the temperature and
flatters the sample (Zheng et al., arXiv 2409.02908). Which positions are filled when is the
samplers' business.

Shapes: B samples, T tokens, N masked positions, V entries of the head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from stackwise.sampling.view import View


def logits_at(rack: View, ids_BT: Tensor, at_BT: Tensor) -> Tensor:
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


def cut(logits_NV: Tensor, temperature: float, top_k: int | None, top_p: float) -> Tensor:
    """Take the unlikely tokens out: their logits become -inf, so that the rest is renormalised.

    Args:
        logits_NV: (N, V).
        temperature: At which the tokens will be chosen; at 0 nothing is cut, as the best one is
            taken anyway.
        top_k: Keep the k likeliest tokens, and those that tie with the last of them; None for all.
        top_p: Of those, keep the fewest likeliest whose probabilities at this temperature sum to
            `top_p` or more; 1 for all.

    Returns:
        (N, V), of the same dtype.

    Source: nucleus sampling, Holtzman et al. (arXiv 1904.09751), section 3.1.
    """
    if temperature == 0:
        return logits_NV
    if top_k is not None and top_k < logits_NV.shape[-1]:
        least_N1 = logits_NV.topk(top_k, dim=-1).values[..., -1:]
        logits_NV = logits_NV.masked_fill(logits_NV < least_N1, -torch.inf)
    if top_p < 1:
        prob_NV = (logits_NV.double() / temperature).softmax(-1)
        prob_NV, order_NV = prob_NV.sort(dim=-1, descending=True, stable=True)
        before_NV = prob_NV.cumsum(-1) - prob_NV
        out_NV = torch.zeros_like(before_NV, dtype=torch.bool)
        out_NV.scatter_(-1, order_NV, before_NV >= top_p)
        logits_NV = logits_NV.masked_fill(out_NV, -torch.inf)
    return logits_NV
