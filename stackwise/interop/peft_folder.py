"""Adapters of a rack in peft's own format: adapter_config.json and adapter_model.safetensors.

    sw.save_adapters(run.rack(), "my-adapters")
    sw.load_adapters(other.rack(), "my-adapters")

Layers are named from the rack, `stacks.s1.blocks.0.attention.qkv`, so that peft puts them on a
`Rack` too: `peft.PeftModel.from_pretrained(rack, folder)`. How layers carry them is in
`model/adapters.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from stackwise.adapters import Adapter, Targets
from stackwise.atomic import write_text
from stackwise.bounded import read_text
from stackwise.interop.errors import ModelError
from stackwise.jsontext import dumps, parsed
from stackwise.model.adapters import (
    adapter_parameters,
    config_of,
    layers_of,
    pairs_of,
    put_on,
    take_off,
)
from stackwise.model.rack import Rack
from stackwise.training.tensorfile import save_file

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
LARGEST_CONFIG = 1 << 20
PREFIX = "base_model.model."


def save_adapters(rack: Rack, folder: str | Path) -> Path:
    """Write the adapters that a rack carries as peft does.

    Args:
        rack: Such as `run.rack()`.
        folder: Made if it is not there; files of the same names are replaced.

    Returns:
        The folder.

    Raises:
        ModelError: If no stack carries one.
        ExperimentError: If peft is not here.
    """
    folder = Path(folder)
    found = {
        f"stacks.{stack}.{name}": layer
        for stack, module in rack.stacks.items()
        for name, layer in layers_of(module)
    }
    if not found:
        raise ModelError("adapters: no stack of this rack carries one; give a rack that does")
    ranks = {name: next(iter(layer.r.values())) for name, layer in found.items()}
    alphas = {name: next(iter(layer.lora_alpha.values())) for name, layer in found.items()}
    most = max(ranks.values())
    usual = Adapter(stack="any", rank=most, alpha=next(iter(alphas.values())))
    config = config_of(
        usual,
        target_modules=sorted(found),
        rank_pattern={name: rank for name, rank in ranks.items() if rank != most},
        alpha_pattern={name: alpha for name, alpha in alphas.items() if alpha != usual.alpha},
        inference_mode=True,
    ).to_dict()
    tensors = {
        f"{PREFIX}stacks.{stack}.{name}": parameter.detach()
        for stack, module in rack.stacks.items()
        for name, parameter in adapter_parameters(module)
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / WEIGHTS)
    plain = {k: sorted(v) if isinstance(v, set) else v for k, v in config.items()}
    write_text(folder / CONFIG, dumps({**plain, "peft_type": "LORA"}, indent=1))
    return folder


def load_adapters(rack: Rack, folder: str | Path) -> list[str]:
    """Put the adapters of a peft folder on a rack; those that its stacks carry are taken off.

    Args:
        rack: Of the sizes of the one that they were saved of.
        folder: Holds adapter_config.json and adapter_model.safetensors.

    Returns:
        The stacks that carry one now.

    Raises:
        ModelError: If the folder holds none, or they do not fit this rack.
        ExperimentError: If peft is not here.
    """
    folder = Path(folder)
    config, tensors = read_folder(folder)
    parts: dict[str, dict[str, Any]] = {}
    for key, tensor in tensors.items():
        _, found, inside = key.partition(f"{PREFIX}stacks.")
        stack, _, name = inside.partition(".")
        if not found or stack not in rack.stacks:
            raise ModelError(f"{folder}: {key} is of no stack of this rack; load what was saved")
        parts.setdefault(stack, {})[name] = tensor
    adapters = {stack: adapter_in(folder, config, stack, held) for stack, held in parts.items()}
    for stack, adapter in adapters.items():
        take_off(rack.stacks[stack])
        try:
            put_on(rack.stacks[stack], adapter, tensors=parts[stack])
        except ValueError as error:
            take_off(rack.stacks[stack])
            raise ModelError(
                f"{folder}: {stack}: {error}; load it into a rack of the sizes it was saved of"
            ) from None
    return sorted(adapters)


def read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a folder's two files hold.

    Raises:
        ModelError: If one is missing or damaged, or they are not of LoRA.
    """
    try:
        config = parsed(read_text((folder / CONFIG).resolve(), LARGEST_CONFIG))
        tensors = load_file(folder / WEIGHTS)
    except FileNotFoundError as error:
        name = Path(str(error.filename or WEIGHTS)).name
        raise ModelError(f"{folder}: holds no {name}; name a folder of save_adapters") from None
    except (ValueError, SafetensorError, OSError) as error:
        raise ModelError(f"{folder}: is damaged: {error}; save it again") from None
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise ModelError(f"{folder}/{CONFIG}: is not of LoRA, the one kind that is read here")
    if not isinstance(config.get("alpha_pattern") or {}, dict):
        raise ModelError(f"{folder}/{CONFIG}: alpha_pattern: is not a mapping of names to alphas")
    odd = [k for k in ("use_dora", "use_rslora", "lora_bias", "modules_to_save") if config.get(k)]
    if odd:
        raise ModelError(f"{folder}/{CONFIG}: {', '.join(odd)}: not read here; leave it out")
    return config, tensors


def adapter_in(
    folder: Path, config: dict[str, Any], stack: str, tensors: dict[str, Any]
) -> Adapter:
    """Rank, alpha and targets of one stack's tensors.

    Raises:
        ModelError: If its layers differ in them, which a stack's do not.
    """
    try:
        pairs = [(owner, a_RI) for owner, a_RI, _ in pairs_of(tensors)]
    except KeyError as error:
        raise ModelError(
            f"{folder}: holds no stacks.{stack}.{error.args[0]}; save it again"
        ) from None
    flat = [name for name, tensor in tensors.items() if tensor.ndim != 2]
    if flat:
        raise ModelError(f"{folder}: stacks.{stack}.{flat[0]} is no matrix; save it again")
    owners, ranks = [owner for owner, _ in pairs], {a_RI.shape[0] for _, a_RI in pairs}
    named = config.get("alpha_pattern") or {}
    said = [named.get(f"stacks.{stack}.{owner}", config.get("lora_alpha")) for owner in owners]
    alphas = {alpha if isinstance(alpha, int | float) else None for alpha in said}
    kinds = {owner.split(".")[2] for owner in owners if owner.count(".") > 2}
    if (
        len(ranks) != 1
        or len(alphas) != 1
        or None in alphas
        or not kinds <= {"attention", "ffn"}
        or not kinds
    ):
        raise ModelError(
            f"{folder}: the layers of {stack} have ranks {sorted(ranks)} and alphas "
            f"{sorted(map(str, alphas))} in {sorted(kinds)}; a stack has one of each, in attention "
            "or ffn"
        )
    targets: Targets = "all" if len(kinds) == 2 else "ffn" if "ffn" in kinds else "attention"
    return Adapter(stack=stack, rank=ranks.pop(), alpha=alphas.pop(), targets=targets)
