"""Each kind and way that there is can be chosen in the form: it is valid, or a problem is there.

Which widgets there are is in `test_the_form_has_a_widget_for_every_knob.py`.
"""

from __future__ import annotations

import pytest

import stackwise as sw
from stackwise_widgets.form import Form
from stackwise_widgets.form.schema import everything, specs_of

NAMED = ("optim.name", "optim.schedule", "masking.sampling", "rack.time", "rack.norm_place")
# What a choice needs beside it; without, the problem stands at that field.
NEEDS = {
    "curriculum=diffusion_blocks": ("masking.bands", "equal_mass"),
    "curriculum=fusion": ("start", "runs/another"),
    "data.corpus=text": ("data.corpus.path", "a.txt"),
    "data.corpus=jsonl": ("data.corpus.path", "a.jsonl"),
    "data.corpus=parquet": ("data.corpus.path", "a.parquet"),
    "data.corpus=hf": ("data.corpus.dataset", "a/b"),
    "data.corpus=mix": ("data.corpus.corpora", "kjv, markov"),
    "data.tokenizer=json": ("data.tokenizer.path", "a.json"),
    "masking.schedule=constant": ("objective", "mlm"),
    "masking.schedule=ramp": ("objective", "mlm"),
}
AT = {"masking.schedule=constant": "masking.schedule", "masking.schedule=ramp": "masking.schedule"}


def choices() -> list[tuple[str, str]]:
    specs = [*specs_of(sw.Experiment)]
    inside = [spec for each in specs if each.inside for spec in specs_of(each.inside, each.path)]
    found = [spec for spec in [*specs, *inside] if spec.control == "choice" or spec.path in NAMED]
    return [(spec.path, option) for spec in found for option in spec.options]


@pytest.mark.parametrize(("path", "option"), choices())
def test_every_choice_is_valid_or_says_at_the_field_what_it_needs(path: str, option: str) -> None:
    form = Form(sw.Experiment.preset("toy"))
    form.field(path).value = option
    key = f"{path}={option}"
    if key in NEEDS:
        field, value = NEEDS[key]
        assert [problem.path for problem in form.problems] == [AT.get(key, field)]
        form.field(field).value = value
    assert form.problems == ()
    if key == "data.tokenizer=json":  # its size stands in a file, which is not there
        form.field("rack.vocab").value = "300"
    assert sw.stages(form.experiment)


LISTS = [
    ({"curriculum": "subnetwork", "curriculum.lengths": "3, 4"}, 2, None),
    ({"curriculum": "subnetwork", "curriculum.lengths": "[3, 9]"}, 0,
     "curriculum.lengths: (3, 9) must be from 1 to rack.stacks=4"),
    ({"curriculum": "subnetwork", "curriculum.split": "1, 2, 3"}, 0,
     "curriculum.split: 3 weights for 2 stages"),
    ({"curriculum": "left_to_right", "curriculum.split": "1, 2, 3, 4"}, 4, None),
    ({"curriculum": "left_to_right", "curriculum.split": "flop"}, 0, "did you mean 'flops'?"),
    ({"curriculum": "left_to_right", "curriculum.noise": "0.1"}, 0,
     "curriculum.noise: 0.1 is not read with init=random"),
    ({"curriculum": "one_hop", "curriculum.source": "0", "curriculum.init": "copy"}, 0,
     "curriculum.init: copy needs a stack to start from"),
    ({"curriculum": "grow", "curriculum.start": "9"}, 0, "curriculum.start: 9 > rack.stacks=4"),
    ({"data.seq_len_by_stage": "16, 32"}, 2, None),
    ({"data.corpus": "mix", "data.corpus.corpora": '[{"kind": "kjvv"}, {"kind": "markov"}]'}, 0,
     "data.corpus.corpora[0]: unknown corpus 'kjvv'; did you mean 'kjv'?"),
    ({"rack.time": "learned", "objective": "clm"}, 0, "rack.time: learned reads how much"),
    ({"attention": "kernel", "attention.features": "0"}, 0, "attention.features: 0 must be"),
    ({"attention": "mla", "attention.kv_rank": "0"}, 0, "attention.kv_rank: 0 must be"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "count", "said"), LISTS)
def test_lists_and_options_that_hang_together(fields: dict[str, str], count, said) -> None:
    form = Form(sw.Experiment.preset("toy"))
    for path, value in fields.items():
        form.field(path).value = value
    assert [said in str(problem) for problem in form.problems] == ([True] if said else [])
    if not said:
        assert len(sw.stages(form.experiment)) == count


def test_every_knob_of_every_kind_says_what_it_is_for() -> None:
    specs = [*everything(specs_of(sw.Experiment)), *everything(specs_of(sw.Placement, "placement"))]
    silent = [spec.path for spec in specs if spec.has_field and not spec.description]
    assert silent == [] and len(specs) > 200
