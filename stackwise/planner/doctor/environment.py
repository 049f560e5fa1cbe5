"""The environment: versions, device, which dtype is faster, memory, disk, limits of the host."""

from __future__ import annotations

import importlib.metadata
import os
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stackwise.memory import limits
from stackwise.planner.doctor.checks import Finding, Visit, joined
from stackwise.report import bytes_text

OLDEST_TORCH = (2, 13)
NEEDED_MEMORY, NEEDED_DISK = 1 << 30, 2 << 30  # of the whole examination
CARDS = Path("/proc/driver/nvidia/version")
SIZES = {"cpu": 768, "cuda": 4096}  # of square matrices, large enough that calling costs nothing
ROUNDS, WARM = 5, 2
BUSY = 0.7  # programs that run, for each processor, in the minute before


def environment(visit: Visit) -> Finding:
    """Whether versions, device and room are such that the rest can be looked at."""
    found = visit.call(seen, device=visit.device, folder=str(visit.folder))
    visit.results["environment"] = found
    return judged(found)


def judged(found: Mapping[str, Any]) -> Finding:
    """What `seen` found, judged."""
    problems = dict(_problems(found))
    rates = found["gflops"]
    quick = max(rates, key=lambda dtype: rates[dtype])
    memory = bytes_text(found["free_memory_bytes"])
    words = [
        f"torch {found['torch']} on {found['device_name']}",
        *([f"driver {found['driver']}"] if found["driver"] else []),
        f"{found['threads']} of {found['processors']} processors",
        f"bitsandbytes {found['bitsandbytes'] or 'not installed'}",
        joined([f"{dtype} {rate:.0f} GFLOP/s" for dtype, rate in rates.items()]),
        f"{memory} of {'card' if found['device'] == 'cuda' else 'memory'} free",
        f"{bytes_text(found['free_disk_bytes'])} of disk free",
    ]
    if found["memory_limit_bytes"] is not None:
        words.append(f"memory limited to {bytes_text(found['memory_limit_bytes'])}")
    if found["cpu_limit"] is not None:
        words.append(f"limited to {found['cpu_limit']:g} processors' time")
    if problems:
        return Finding(
            "failed", joined([*problems]), "; ".join(words), joined([*problems.values()]), found
        )
    other = min(rates.values())
    means = f"precision.compute={quick} is the faster here, {rates[quick] / other:.1f} times"
    if found["load"] is not None and found["load"] > BUSY * found["processors"]:
        means += (
            f"; other programs use the machine (load {found['load']:.1f}), so times will be off"
        )
    if found["bitsandbytes"] is None:
        means += "; nf4, fp4, int8 and 8-bit optimizers need bitsandbytes and are not looked at"
    return Finding("ok", ", ".join(words), means, figures=found)


def _problems(found: Mapping[str, Any]) -> Any:
    """What is wrong, with what to do about each."""
    if tuple(int(n) for n in found["torch"].split("+")[0].split(".")[:2]) < OLDEST_TORCH:
        oldest = ".".join(map(str, OLDEST_TORCH))
        yield f"torch {found['torch']} is older than {oldest}", f"pip install 'torch>={oldest}'"
    if found["bitsandbytes_problem"]:
        yield found["bitsandbytes_problem"], 'pip install -U "stackwise[quant]", or take it out'
    for dtype, error in found["errors"].items():
        if not error <= found["allowed"][dtype]:  # no number, too
            yield (
                f"a product in {dtype} is off by {error:.1e} of its size, over "
                f"{found['allowed'][dtype]:.1e}",
                f"do not compute in {dtype} on this device; update the driver, or reinstall torch",
            )
    if found["hidden_card"]:
        yield (
            "the system has an NVIDIA card that torch does not see",
            "install a torch that is built for CUDA, or go on with --device cpu",
        )
    for what, free, needed in (
        ("memory", found["free_memory_bytes"], NEEDED_MEMORY),
        ("disk", found["free_disk_bytes"], NEEDED_DISK),
    ):
        if free is not None and free < needed:
            yield (
                f"{bytes_text(free)} of {what} are free, and the doctor takes up to "
                f"{bytes_text(needed)}",
                "close other programs"
                if what == "memory"
                else "make room, or name another folder with --folder",
            )


def seen(device: str, folder: str) -> dict[str, Any]:
    """What is there; in a process of its own, since it computes."""
    import torch

    from stackwise.planner.doctor.record import device_name

    card, driver = device == "cuda", CARDS.is_file()
    free = torch.cuda.mem_get_info()[0] if card else limits.free_memory()
    rates, errors, allowed = {}, {}, {}
    for name in ("float32", "bfloat16"):
        rates[name] = product_gflops(device, name)
        errors[name] = product_error(device, name)
        # A product sums 256 terms; bfloat16 rounds its operands and its result.
        allowed[name] = {"float32": 2e-6, "bfloat16": 2**-7}[name]
    if card and torch.backends.cuda.matmul.allow_tf32:
        allowed["float32"] = 2**-9  # what a user has asked for by that switch
    return {
        "torch": torch.__version__,
        "device": device,
        "device_name": device_name(device),
        "driver": _driver(),
        "cuda": torch.version.cuda,
        "capability": list(torch.cuda.get_device_capability()) if card else None,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "processors": limits.processors(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        **_bitsandbytes(),
        "gflops": rates,
        "errors": errors,
        "allowed": allowed,
        "hidden_card": driver and not torch.cuda.is_available() and not card_is_hidden(),
        "free_memory_bytes": free,
        "host_free_bytes": limits.free_memory(),
        "memory_limit_bytes": limits.memory_limit(),
        "cpu_limit": limits.cpu_limit(),
        "free_disk_bytes": limits.free_disk(Path(folder)),
    }


def card_is_hidden() -> bool:
    """Whether the user hides cards from this process, by the variable that does so."""
    return os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")


def product_gflops(device: str, dtype: str) -> float:
    """The rate of a matrix product, 10^9 FLOPs a second: the median of some rounds."""
    import torch

    size = SIZES[device]
    a, b = (torch.randn(size, size, device=device).to(getattr(torch, dtype)) for _ in range(2))
    seconds = []
    for _ in range(WARM + ROUNDS):
        _finish(device)
        began = time.perf_counter()
        a @ b
        _finish(device)
        seconds.append(time.perf_counter() - began)
    return 2 * size**3 / statistics.median(seconds[WARM:]) / 1e9


def product_error(device: str, dtype: str) -> float:
    """How far a product is from the same in float64 on the CPU, relative to its norm."""
    import torch

    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(256, 256, generator=generator, dtype=torch.float64) for _ in range(2))
    exact = a @ b
    made = a.to(device, getattr(torch, dtype)) @ b.to(device, getattr(torch, dtype))
    return float((made.double().cpu() - exact).norm() / exact.norm())


def _finish(device: str) -> None:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def _driver() -> str | None:
    """The version of NVIDIA's driver, as its kernel module says it."""
    try:
        words = CARDS.read_text("utf-8", errors="replace").split()
    except OSError:
        return None
    return next((word for word in words if word.replace(".", "").isdecimal() and "." in word), None)


def _bitsandbytes() -> dict[str, Any]:
    """Its version, and what is wrong with it where it is installed."""
    from stackwise.model.formats import FORMATS, PACKAGE, lacking

    try:
        version = importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return {"bitsandbytes": None, "bitsandbytes_problem": None}
    problem = lacking()
    if problem is None:
        try:
            FORMATS["nf4"].load()
        except (ImportError, OSError, RuntimeError) as error:
            problem = f"bitsandbytes {version} cannot be imported: {error}"
    return {"bitsandbytes": version, "bitsandbytes_problem": problem}
