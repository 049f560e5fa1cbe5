"""One run that is killed in the middle of a stage, and goes on to the weights of another."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stackwise.planner.doctor.alone import Child, tell
from stackwise.planner.doctor.checks import WHERE_TO_TELL, Finding, Visit, variables

STEPS = 16  # of each of its three stages
STAGE, STEP = 1, 9  # the kill comes after this step of the middle stage
CHECKPOINT_SECONDS = 0.1
PAUSE_SECONDS = 0.05  # after each step, so that the kill finds the run in the stage
CLOSE, OF_ITSELF = 1e-3, 10.0  # as in `sources.py`, where a card repeats no bits


def killed_and_resumed(visit: Visit) -> Finding:
    """Whether a run that is killed goes on to the weights of one that was not."""
    text = experiment().to_yaml()
    place = {"device": visit.device, "threads": 1, "trunk": "streamed"}  # as in `sources.py`
    place["runs_dir"] = str(visit.folder / "kill")
    whole = visit.call(trained, experiment=text, placement=place)
    path = kill_one(visit, text, {**place, "checkpoint_seconds": CHECKPOINT_SECONDS})
    found = visit.call(resumed, path=path)
    found |= {"hash_of_the_whole": whole["hash"], "away": 0.0, "allowed": 0.0}
    if found["hash"] != whole["hash"]:
        found["away"] = visit.call(apart, path=path, other=whole["path"])
        if visit.device == "cuda":
            again = visit.call(trained, experiment=text, placement=place)
            if again["hash"] != whole["hash"]:
                itself = visit.call(apart, path=again["path"], other=whole["path"])
                found["allowed"] = max(CLOSE, OF_ITSELF * itself)
    return judged(found)


def judged(found: Mapping[str, Any]) -> Finding:
    """What came of the run that was killed, judged."""
    if (found["killed_in"], found["went_on_in"]) != (STAGE, STAGE) or not found["went_on_from"]:
        return Finding(
            "failed",
            f"the run was killed in stage {found['killed_in']} and went on from step "
            f"{found['went_on_from']} of stage {found['went_on_in']}, not in the middle of stage "
            f"{STAGE}",
            "what a kill does was not seen",
            "close what else is running and try again",
            found,
        )
    same = found["hash"] == found["hash_of_the_whole"]
    if not same and not found["away"] <= found["allowed"]:
        return Finding(
            "failed",
            f"after a kill the weights end elsewhere: off by {found['away']:.1e} of their norm",
            "a run that is stopped or killed here is another run",
            f"do not resume runs on this machine; look for errors of its disk and {WHERE_TO_TELL}",
            found,
        )
    how = "to the same weights, bit for bit"
    if not same:
        how = (
            f"to weights off by {found['away']:.0e}, within {found['allowed']:.0e}: this card "
            "gives other last bits to a run that is not killed, too"
        )
    measured = f"killed in stage {STAGE}, it went on from step {found['went_on_from']} {how}"
    return Finding("ok", measured, "a crash costs what came since the last checkpoint", "", found)


def kill_one(visit: Visit, text: str, place: Mapping[str, Any]) -> str:
    """Begin a run in a process of its own and kill that in the middle; gives the run's folder."""
    given = {"experiment": text, "placement": dict(place), "pause": PAUSE_SECONDS}
    path = ""
    with Child(
        trained, given, seconds=visit.seconds_left, variables=variables(visit.folder)
    ) as child:
        for line in child.lines():
            if "result" in line:
                return str(line["result"]["path"])
            path = line["told"]["path"]
            if (line["told"]["stage"], line["told"]["step"]) == (STAGE, STEP):
                child.kill()
                break
    return path


def experiment() -> Any:
    """A narrow rack of three stacks, each with a stage of `STEPS` steps."""
    from stackwise.config import Experiment

    return Experiment(
        title="kill",
        rack={"stacks": 3, "blocks_per_stack": 1, "d_model": 64, "heads": 2},
        curriculum={"name": "left_to_right", "split": "tokens"},
        data={"corpus": {"kind": "markov", "size_bytes": 50_000}, "seq_len": 32},
        optim={"batch": 4, "lr": 0.01},
        budget={"tokens": 3 * STEPS * 4 * 32},
        eval={"points": 1, "windows": 1, "final": 1},
    )


def trained(experiment: str, placement: Mapping[str, Any], pause: float = 0.0) -> dict[str, Any]:
    """Train a run of its own, telling each step; in a process of its own."""
    from stackwise.config import Experiment, Placement
    from stackwise.training.run import train

    def on_step(work: Any, numbers: Any) -> None:
        tell({"path": str(work.run.path), "stage": work.at.stage, "step": work.at.step})
        time.sleep(pause)

    exp = Experiment.from_yaml(experiment)
    run = train(exp, Placement.model_validate(dict(placement)), rerun=True, on_step=on_step)
    return {"path": str(run.path), "hash": run.weights_hash()}


def resumed(path: str) -> dict[str, Any]:
    """Go on with a run that was killed, to its end; in a process of its own."""
    from stackwise.runs import attach
    from stackwise.training.run import resume

    run = attach(path)
    begun = [event["stage"] for event in run.events("stage_started")]
    state = run.state
    first: list[tuple[int, int]] = []

    def on_step(work: Any, numbers: Any) -> None:
        first.append((work.at.stage, work.at.step - 1))

    resume(run, on_step=on_step)
    return {
        "state": state,
        "killed_in": begun[-1] if begun and state == "died" else None,
        "went_on_in": first[0][0] if first else None,
        "went_on_from": first[0][1] if first else None,
        "hash": run.weights_hash(),
    }


def apart(path: str, other: str) -> float:
    """The largest distance of a weight of one run from its twin in another, relative."""
    from stackwise.planner.doctor.arms import farthest
    from stackwise.runs import Run

    racks = (Run(Path(each)).rack().state_dict() for each in (path, other))
    found, wanted = racks
    return farthest(found, wanted)
