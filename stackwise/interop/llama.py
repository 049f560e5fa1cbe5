"""Which tensors of a Llama are which of a rack's, both ways.

Ours are theirs under other names, but for two: a block's queries, keys and values are one product
here (rows of q, then k, then v), and RoPE pairs neighbours (2i, 2i + 1) where theirs pairs halves
(i, i + E/2), so that rows of q and k change places inside each head (`model/attention/rope.py`).
No number changes. Everything is lazy: nothing is read here.

E numbers per head, V entries of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from stackwise.interop.stored import cut, joined, reordered
from stackwise.model.init import generator_for
from stackwise.model.shape import RackShape, d_ff, head_dim, kv_heads, total_blocks
from stackwise.training.tensorfile import LazyTensor

Lazy = Mapping[str, LazyTensor]
Shapes = dict[str, tuple[int, ...]]

TABLE, NORM, HEAD = "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"
COMPUTED = ".rotary_emb.inv_freq"  # old folders hold what the configuration says already
NORMS = {"attention_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
LINEARS = {
    "attention.out": "self_attn.o_proj",
    "ffn.gate": "mlp.gate_proj",
    "ffn.up": "mlp.up_proj",
    "ffn.down": "mlp.down_proj",
}
QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
DRAWN = 1 << 20  # numbers at a time


def layer(number: int, name: str) -> str:
    """A tensor's name in a Llama."""
    return f"model.layers.{number}.{name}"


def llama_shapes(shape: RackShape, vocab: int) -> Shapes:
    """Name and shape of every tensor of a Llama of these sizes, in the order they run."""
    width, wide = shape.d_model, d_ff(shape)
    inner, outer = shape.heads * head_dim(shape), kv_heads(shape) * head_dim(shape)
    linears = {
        QKV[0]: (inner, width),
        QKV[1]: (outer, width),
        QKV[2]: (outer, width),
        "self_attn.o_proj": (width, inner),
        "mlp.gate_proj": (wide, width),
        "mlp.up_proj": (wide, width),
        "mlp.down_proj": (width, wide),
    }
    found: Shapes = {TABLE: (vocab, width)}
    for number in range(total_blocks(shape)):
        found |= {layer(number, f"{name}.weight"): (width,) for name in NORMS.values()}
        for name, sizes in linears.items():
            found[layer(number, f"{name}.weight")] = sizes
            if shape.bias:
                found[layer(number, f"{name}.bias")] = sizes[:1]
    found[NORM] = (width,)
    return found if shape.tied else {**found, HEAD: (vocab, width)}


def block_from(theirs: Lazy, shape: RackShape, number: int) -> dict[str, LazyTensor]:
    """The tensors of one block, of layer `number`'s."""
    order = to_neighbours(head_dim(shape))
    made = {
        f"{ours}.weight": theirs[layer(number, f"{name}.weight")] for ours, name in NORMS.items()
    }
    for kind in ("weight", "bias") if shape.bias else ("weight",):
        q, k, v = (theirs[layer(number, f"{name}.{kind}")] for name in QKV)
        made[f"attention.qkv.{kind}"] = joined([reordered(q, order), reordered(k, order), v])
        for ours, name in LINEARS.items():
            made[f"{ours}.{kind}"] = theirs[layer(number, f"{name}.{kind}")]
    return made


def block_to(ours: Lazy, shape: RackShape, number: int) -> dict[str, LazyTensor]:
    """The tensors of layer `number`, of one block's."""
    order = to_neighbours(head_dim(shape)).argsort()
    inner, outer = shape.heads * head_dim(shape), kv_heads(shape) * head_dim(shape)
    made = {layer(number, f"{name}.weight"): ours[f"{mine}.weight"] for mine, name in NORMS.items()}
    for kind in ("weight", "bias") if shape.bias else ("weight",):
        qkv = ours[f"attention.qkv.{kind}"]
        q, k = cut(qkv, 0, inner), cut(qkv, inner, inner + outer)
        parts = (reordered(q, order), reordered(k, order), cut(qkv, inner + outer, qkv.shape[0]))
        made |= {layer(number, f"{name}.{kind}"): x for name, x in zip(QKV, parts, strict=True)}
        made |= {
            layer(number, f"{name}.{kind}"): ours[f"{o}.{kind}"] for o, name in LINEARS.items()
        }
    return made


def to_neighbours(size: int) -> Tensor:
    """For each row of a head in our order, its place in theirs: 0, E/2, 1, E/2 + 1, ..."""
    return torch.arange(size).unflatten(0, (2, -1)).T.flatten()


def parts_from(
    theirs: Lazy, shape: RackShape, vocab: int, seed: int, bos: int | None = None
) -> dict[str, dict[str, LazyTensor]]:
    """The parts of a rack, of a Llama's tensors.

    Args:
        theirs: Those that `llama_shapes` names.
        shape: The rack's.
        vocab: Entries of the head.
        seed: Of the vectors of [MASK] and [START] as far as a Llama has none.
        bos: The token that its texts begin with, whose vector is then [START]'s; None for none.
    """
    table = theirs[TABLE]

    def drawn(start: int, stop: int) -> Tensor:
        return special_rows(shape, vocab, seed).to(table.dtype)[start:stop]

    special = LazyTensor(table.dtype, (2, shape.d_model), drawn)
    rows = [table, special]
    if bos is not None:
        rows = [table, cut(special, 0, 1), cut(table, bos, bos + 1)]
    parts = {"embedding": {"table": joined(rows)}}
    for place in range(shape.stacks):
        first = place * shape.blocks_per_stack
        parts[f"s{place}"] = {
            f"blocks.{i}.{name}": tensor
            for i in range(shape.blocks_per_stack)
            for name, tensor in block_from(theirs, shape, first + i).items()
        }
    head = {} if shape.tied else {"weight": theirs[HEAD]}
    return {**parts, "head": {"norm.weight": theirs[NORM], **head}}


def llama_from(
    parts: Mapping[str, Lazy], path: Sequence[str], shape: RackShape, vocab: int
) -> dict[str, LazyTensor]:
    """The tensors of a Llama, of a rack's parts, in the order they run.

    Args:
        parts: Embedding, head and the stacks of the path.
        path: Its stacks, in the order they run.
        shape: The rack's.
        vocab: Entries of the head; the rows after them stay behind.
    """
    found = {TABLE: cut(parts["embedding"]["table"], 0, vocab)}
    for place, stack in enumerate(path):
        for i in range(shape.blocks_per_stack):
            start = f"blocks.{i}."
            block = {
                k.removeprefix(start): v for k, v in parts[stack].items() if k.startswith(start)
            }
            found |= block_to(block, shape, place * shape.blocks_per_stack + i)
    found[NORM] = parts["head"]["norm.weight"]
    if "weight" in parts["head"]:
        found[HEAD] = parts["head"]["weight"]
    return found


def special_rows(shape: RackShape, vocab: int, seed: int) -> Tensor:
    """[MASK] and [START] as a rack of this shape and seed starts with them, (2, D).

    They are the last of the table's draws, so that all are drawn, a few at a time: torch fills
    in blocks of 16, and pieces of whole blocks give the numbers of one draw. A test holds that.
    """
    generator, left = generator_for(seed, "embedding"), (vocab + 2) * shape.d_model
    wanted = 2 * shape.d_model
    piece = torch.empty(DRAWN)
    while left:
        count = DRAWN if left - DRAWN >= max(16, wanted) else left
        piece = piece if count == DRAWN else torch.empty(count)
        piece.normal_(0.0, shape.init_std, generator=generator)
        left -= count
    return piece[-wanted:].view(2, shape.d_model).clone()
