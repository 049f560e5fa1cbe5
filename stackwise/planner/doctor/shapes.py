"""Six small runs, as large as memory and time allow: what they take, beside what the plan says.

They differ in what decides memory: which stacks are there and in what form, where the others lie,
what an optimizer keeps, how long sequences are, what is recomputed. Each is trained in a process of
its own, whose own meter says its peak.
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Mapping
from typing import Any

from stackwise.planner.doctor.checks import Visit
from stackwise.report import bytes_text

LOW = {"weights": "bfloat16", "compute": "bfloat16"}
IN_BACKWARD = {"grads": "in_backward", "clip": None, "ema": None}
# Experiment and placement of each; nf4 gives way to bf16 where bitsandbytes is missing.
SHAPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "all at once": ({"curriculum": "end_to_end", "rack": {"stacks": 2}}, {}),
    "a rack that grows": (
        {"curriculum": "grow", "optim": {"batch": 4}},
        {"micro_batch": 2},
    ),
    "a trunk in nf4": (
        {"precision": {**LOW, "frozen": "nf4"}, "data": {"seq_len": 256}, "optim": {"batch": 1}},
        {},
    ),
    "lent from disk, stepped in backward": (
        {
            "rack": {"blocks_per_stack": 2},
            "precision": {**LOW, "rounding": "stochastic", "frozen": "nf4"},
            "optim": IN_BACKWARD,
        },
        {"trunk": "streamed"},
    ),
    "cached, many words": (
        {"rack": {"vocab": 8192}, "precision": {"frozen": "bf16"}, "data": {"restart": True}},
        {"trunk": "cached"},
    ),
    "a suffix from host memory, recomputed": (
        {
            "curriculum": "right_to_left",
            "rack": {"blocks_per_stack": 2},
            "masking": {"bands": "equal_mass"},
            "data": {"seq_len": 256},
            "optim": {"batch": 1},
        },
        {"trunk": "streamed", "stream_from": "host", "checkpointing": True},
    ),
}
WIDTHS = (128, 256, 384, 512, 640, 768, 1024, 1280, 1536, 2048, 2560, 3072, 4096, 5120)
STEPS = 4  # of a stage; its first is measured in bytes, the others in seconds
SECONDS, UTILISED = 20.0, 0.3  # that one shape may take, at this part of the rate of a product
# What one run may take if nothing else is said: it is about minutes.
SHARE, MOST_BYTES, LEAST_BYTES = 8, {"cpu": 1 << 30, "cuda": 4 << 30}, 64 << 20
SECONDS_IN_ALL = 200.0  # after which no further run is begun: a machine may be busy
USUAL_GFLOPS = 50.0  # of a processor, where the environment could not be looked at


def measure(visit: Visit) -> dict[str, dict[str, Any]]:
    """Train the shapes that time lasts for; of each what it was, and its `stages`."""
    environment = visit.results.get("environment", {})
    gflops = environment.get("gflops", {})
    most = visit.memory_bytes or usual_bytes(visit.device, environment.get("free_memory_bytes"))
    made, begun = dict[str, dict[str, Any]](), time.monotonic()
    for name in SHAPES:
        if made and time.monotonic() - begun > SECONDS_IN_ALL:
            break
        exp, place = sized(name, visit, most, gflops)
        asked = {"experiment": exp.to_yaml(), "placement": place.model_dump(mode="json")}
        stages = run(visit, asked)
        made[name] = {**asked, "width": exp.rack.d_model, "stages": stages}
        visit.tell(f"{name}, {exp.rack.d_model} wide: {_most(stages)}")
    return made


def run(visit: Visit, asked: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One of them, in a process of its own; its files are gone afterwards."""
    found: list[dict[str, Any]] = visit.call(trained, **asked)
    shutil.rmtree(asked["placement"]["runs_dir"], ignore_errors=True)
    return found


def _most(stages: list[dict[str, Any]]) -> str:
    stage = max(stages, key=lambda stage: stage["planned"])
    return f"{bytes_text(stage['planned'])} planned, {bytes_text(stage['peak'])} measured"


def usual_bytes(device: str, free: int | None) -> int:
    """What one run may take if nothing else is said: a share of what is free."""
    most = MOST_BYTES[device]
    return most if free is None else max(LEAST_BYTES, min(most, free // SHARE))


def sized(name: str, visit: Visit, most: int, gflops: Mapping[str, float]) -> tuple[Any, Any]:
    """A shape in the largest width whose memory and FLOPs are within what it may take."""
    from stackwise.config import Placement
    from stackwise.curriculum import stages
    from stackwise.memory.bytes import plan_rows

    keys = {"device": visit.device, "runs_dir": str(visit.folder / "shapes")}
    place = Placement.model_validate({**keys, **SHAPES[name][1]})
    fits = shaped(name, WIDTHS[0])
    for width in WIDTHS[1:]:
        exp = shaped(name, width)
        plan = plan_rows(exp, place, stages(exp))
        flops = sum(row["flops"] for row in plan)
        rate = UTILISED * 1e9 * gflops.get(exp.precision.compute, USUAL_GFLOPS)
        if max(row["peak_bytes"] for row in plan) > most or flops > SECONDS * rate:
            break
        fits = exp
    return fits, place


def shaped(name: str, width: int) -> Any:
    """A shape in a width, trained for `STEPS` steps a stage."""
    from stackwise.config import Experiment
    from stackwise.curriculum import stages
    from stackwise.model.formats import missing_package

    exp = Experiment(
        title="shape",
        rack={"stacks": 3, "blocks_per_stack": 1, "d_model": width, "heads": width // 64},
        curriculum={"name": "left_to_right"},
        data={"corpus": {"kind": "markov", "size_bytes": 50_000}, "seq_len": 64},
        optim={"batch": 2, "lr": 1e-4},
        eval={"points": 1, "windows": 1, "final": 1},
        budget={"tokens": 10**9},
    ).replace(**SHAPES[name][0])
    if exp.precision.frozen and missing_package(exp.precision.frozen):
        exp = exp.replace(precision={"frozen": "bf16"})
    if exp.curriculum.choice != "end_to_end":
        exp = exp.replace(curriculum={"split": "tokens"})
    each = STEPS * exp.optim.batch * exp.data.seq_len
    return exp.replace(budget={"tokens": each * len(stages(exp))})


def trained(experiment: str, placement: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Train, and say of each stage what was planned and measured; in a process of its own."""
    from stackwise.config import Experiment, Placement
    from stackwise.training.run import train

    exp, place = Experiment.from_yaml(experiment), Placement.model_validate(dict(placement))
    run = train(exp, place)
    peaks = {event["stage"]: event["peak"] for event in run.events("memory")}
    rows = run.metrics()
    each = rows["seconds"].diff().groupby(rows["stage"]).apply(list)
    return [
        {
            "name": row["name"],
            "planned": row["peak_bytes"],
            "peak": peaks.get(row["stage"]),
            "seconds": statistics.median(each[row["stage"]][1:]),
        }
        for row in run.plan()
    ]
