"""What provenance says of determinism: a pure function of experiment, placement and machine."""

from __future__ import annotations

import pytest
import torch

import stackwise as sw
from stackwise.determinism import (
    CARD,
    COMPILED,
    UNSAID,
    differences,
    machine_now,
    promise_of,
    promise_text,
    promised_by,
    same_for,
)

EXP = sw.Experiment()
CPU = {"device": "cpu", "processor": "P", "instructions": "AVX2", "threads": 4, "torch": "2.13"}
CARD_HERE = {"device": "H", "cuda": "12.8", "torch": "2.13"}


def promise(exp: sw.Experiment, placement: sw.Placement, machine: dict) -> dict:
    return promise_of(exp, placement, same_for(placement, machine))


def test_the_cpu_promises_for_the_same_machine() -> None:
    found = promise(EXP, sw.Placement(), CPU)
    assert found["promised"] is True and found["why_not"] == []
    assert found["same"] == {**CPU, "micro_batch": None, "compile": False}
    assert promise_text(found) == (
        "trained again it comes out the same to the last bit, given device cpu, processor P, "
        "instructions AVX2, threads 4, torch 2.13"
    )


@pytest.mark.parametrize("kind", ["adamw8bit", "lion8bit"])
def test_the_cpu_promises_for_bytes_of_state_too(kind) -> None:
    assert promise(EXP.replace(optim=kind), sw.Placement(), CPU)["promised"] is True


def test_a_card_promises_only_what_it_is_asked_for() -> None:
    found = promise(EXP, sw.Placement(), CARD_HERE)
    assert (found["promised"], found["why_not"]) == (False, [CARD])
    asked = promise(EXP, sw.Placement(deterministic=True), CARD_HERE)
    assert (asked["promised"], asked["why_not"]) == (True, [])
    assert asked["same"]["deterministic"] is True
    assert promise_text(found).startswith("the same bits are not promised: a CUDA card adds up")


def test_what_else_is_in_the_way_is_said() -> None:
    compiled = promise(EXP, sw.Placement(compile=True), CPU)
    assert (compiled["promised"], compiled["why_not"]) == (False, [COMPILED])
    exp = EXP.replace(optim="adamw8bit", precision={"frozen": "nf4"}, curriculum="left_to_right")
    found = promise(exp, sw.Placement(deterministic=True), CARD_HERE)
    assert [line.partition(":")[0] for line in found["why_not"]] == [
        "optim.name=adamw8bit", "precision.frozen=nf4",
    ]  # fmt: skip


def test_this_machine_says_what_decides_its_bits() -> None:
    now = machine_now("cpu")
    assert now["device"] == "cpu" and now["threads"] == torch.get_num_threads()
    assert now["torch"] == torch.__version__ and now["instructions"]


def test_a_change_ends_the_promise_from_there() -> None:
    first = promise(EXP, sw.Placement(), CPU)
    second = promise(EXP, sw.Placement(micro_batch=4), {**CPU, "threads": 2})
    changed = differences(first["same"], second["same"])
    assert changed == {"threads": [4, 2], "micro_batch": [None, 4]}
    event = {"after_step": 7, "changed": changed, "now": second}
    found = promised_by({"determinism": first}, [event])
    assert found["promised"] is False
    assert found["why_not"] == ["after step 7 threads is 2, was 4; micro_batch is 4, was none"]
    back = {"after_step": 9, "changed": {"threads": [2, 4]}, "now": first}
    assert len(promised_by({"determinism": first}, [event, back])["why_not"]) == 2


def test_a_change_before_the_first_step_is_none() -> None:
    first, second = (promise(EXP, sw.Placement(), {**CPU, "threads": n}) for n in (4, 2))
    event = {"after_step": 0, "changed": {"threads": [4, 2]}, "now": second}
    assert promised_by({"determinism": first}, [event]) == second


@pytest.mark.parametrize("said", [{}, {"determinism": None}, {"determinism": {"same": 3}}])
def test_a_run_that_does_not_say_promises_nothing(said) -> None:
    found = promised_by(said, [])
    assert found["promised"] is None and found["why_not"] == [UNSAID]
    assert UNSAID in promise_text(found)


def test_anything_may_stand_in_a_folder() -> None:
    found = {"promised": "yes", "why_not": [None, {}], "same": {}}
    events = [{"now": 1}, {"now": found, "after_step": 2, "changed": [1]}]
    promise = promised_by({"determinism": found}, events)
    assert promise["promised"] is False
    assert promise_text(promise).endswith("None; {}; after step 2 it is carried out otherwise")
