"""One schema: YAML, key=value, Python and `replace` give equal experiments."""

import pytest

import stackwise as sw
from stackwise import Experiment, ExperimentError, Placement
from stackwise.choice import Params
from stackwise.cli.settings import settings
from stackwise.config import Data, Optim, presets
from stackwise.data.corpora import CORPORA
from stackwise.data.tokenizer import TOKENIZERS
from stackwise.model.attention import ATTENTION
from stackwise.model.shape import RackShape
from stackwise.objective import OBJECTIVES
from stackwise.schedules import SCHEDULES

BASE = Experiment(title="base", rack={"d_model": 64}, data="markov", optim={"lr": "3e-4"})


@pytest.mark.parametrize("name", presets())
def test_every_preset_is_the_same_after_yaml(name):
    exp = Experiment.preset(name)
    again = Experiment.from_yaml(exp.to_yaml())
    assert again == exp
    assert (again.hash, hash(again)) == (exp.hash, hash(exp))
    assert again.to_yaml() == exp.to_yaml()


@pytest.mark.parametrize(
    ("arguments", "changes"),
    [
        (["seed=3"], {"seed": 3}),
        (["optim.lr=1e-3"], {"optim.lr": 1e-3}),
        (["budget.tokens=2e6"], {"budget": {"tokens": 2_000_000}}),
        (["budget=5000"], {"budget": {"tokens": 5000}}),
        (["budget.flops=1e12"], {"budget": {"flops": 1e12}}),
        (["rack=6", "rack.d_ff=96"], {"rack": {"stacks": 6, "d_ff": 96}}),
        (["rack.kv_heads=2", "attention=gqa"], {"rack.kv_heads": 2, "attention": "gqa"}),
        (["optim.clip="], {"optim": {"clip": None}}),
        (["rack.window=[8, null]"], {"rack.window": (8, None)}),
        (["data=text:a.txt"], {"data": {"corpus": {"kind": "text", "path": "a.txt"}}}),
        (["data.tokenizer=bpe:300"], {"data.tokenizer": {"kind": "bpe", "entries": 300}}),
        (["curriculum=grow", "curriculum.by=one"], {"curriculum": {"name": "grow", "by": "one"}}),
        (["curriculum.by=one", "curriculum=grow"], {"curriculum": {"name": "grow", "by": "one"}}),
        (["curriculum={name: grow, start: 2}"], {"curriculum": {"name": "grow", "start": 2}}),
        (["masking=polynomial:2"], {"masking.schedule": "polynomial:2"}),
    ],
)
def test_key_value_is_python(tmp_path, arguments, changes):
    path = tmp_path / "exp.yaml"
    path.write_text(BASE.to_yaml())
    exp, placement = settings(str(path), arguments)
    assert exp == BASE.replace(**changes)
    assert exp != BASE
    assert placement == Placement()


def test_placement_is_changed_beside_the_experiment(tmp_path):
    path = tmp_path / "exp.yaml"
    path.write_text(BASE.to_yaml())
    exp, placement = settings(str(path), ["placement=cpu", "placement.threads=2", "seed=1"])
    assert (exp, placement) == (BASE.replace(seed=1), Placement(device="cpu", threads=2))
    exp, placement = settings(str(path), ["placement.micro_batch=4"])
    assert (exp, placement) == (BASE, Placement(micro_batch=4))


def test_a_file_may_hold_both_and_key_value_counts_over_it(tmp_path):
    path = tmp_path / "both.yaml"
    path.write_text(BASE.to_yaml() + "placement: {device: cpu, threads: 2, micro_batch: 8}\n")
    exp, placement = settings(str(path), ["placement.threads=1", "placement.micro_batch="])
    assert (exp, placement) == (BASE, Placement(device="cpu", threads=1))
    assert settings(str(path), ["placement=auto"])[1] == Placement(threads=2, micro_batch=8)
    path.write_text(BASE.to_yaml() + "placement: cpu\n")
    assert settings(str(path), ["seed=1"]) == (BASE.replace(seed=1), Placement(device="cpu"))


@pytest.mark.parametrize(
    ("section", "changes", "expected"),
    [
        ("gpu", [], "placement.device: 'gpu' is not one of 'auto', 'cpu' or 'cuda'"),
        ("{threads: 0}", [], "placement.threads: 0 must be 1 or more"),
        ("{thread: 2}", [], "placement.thread: unknown key; did you mean 'threads'?"),
        ("", [], "placement: is empty; give its keys, or leave it out"),
        ("cpu", ["placement.threads=0"], "placement.threads: 0 must be 1 or more"),
        ("cpu", ["placement.thread=2"], "placement.thread: unknown key; did you mean 'threads'?"),
    ],
)
def test_a_placement_in_a_file_says_its_problems_as_elsewhere(tmp_path, section, changes, expected):
    path = tmp_path / "both.yaml"
    path.write_text(f"seed: 1\nplacement: {section}\n")
    with pytest.raises(ExperimentError) as error:
        settings(str(path), changes)
    where = "" if changes else f"{path}: "
    assert str(error.value).startswith(where + expected)


def test_a_preset_has_other_defaults_and_says_nothing(tmp_path):
    """So a run that has been moved is not moved back by the command that made it."""
    exp, placement = settings("llama-2-70b", [])
    assert (exp, placement) == (Experiment.preset("llama-2-70b"), Placement.preset("llama-2-70b"))
    assert placement.micro_batch == 1 and placement.checkpointing
    assert placement.model_fields_set == set()
    _, placement = settings("llama-2-70b", ["placement.trunk=streamed"])
    assert placement == Placement(
        micro_batch=1, checkpointing=True, trunk="streamed", keep_stages=False
    )
    assert placement.model_fields_set == {"trunk"}
    assert Placement.preset("toy") == Placement()


def test_an_experiment_alone_holds_no_placement(tmp_path):
    path = tmp_path / "both.yaml"
    path.write_text("seed: 1\nplacement: cpu\n")
    with pytest.raises(ExperimentError) as error:
        Experiment.load(path)
    assert str(error.value) == (
        f"{path}: placement: changes no number, so that an experiment holds none; take it out and "
        "give sw.Placement(...) beside it, or use the file as it is: stackwise run FILE"
    )


def test_a_placement_is_the_same_after_yaml(tmp_path):
    placement = Placement(device="cpu", threads=2, checkpointing=True, runs_dir="elsewhere")
    path = tmp_path / "placement.yaml"
    path.write_text(placement.to_yaml())
    assert Placement.load(path) == placement
    assert placement.replace(threads=None) == Placement(
        device="cpu", checkpointing=True, runs_dir="elsewhere"
    )
    assert len({placement, Placement.load(path)}) == 1


def test_a_mapping_changes_only_the_keys_it_names():
    exp = BASE.replace(optim={"batch": 4}, data={"seq_len": 16})
    assert (exp.optim.lr, exp.optim.batch) == (3e-4, 4)
    assert (exp.data.corpus, exp.data.seq_len) == (BASE.data.corpus, 16)


def test_parameters_of_another_kind_are_dropped():
    mlm = BASE.replace(objective={"kind": "mlm", "keep_frac": 0.2})
    assert mlm.replace(objective={"random_frac": 0.3}).objective.keep_frac == 0.2
    assert mlm.replace(objective="mlm").objective.keep_frac == 0.1
    assert mlm.replace(objective={"kind": "clm"}).objective == OBJECTIVES["clm"].params()
    with pytest.raises(ExperimentError, match=r"^objective\.keep_frac: unknown key of clm; it is"):
        mlm.replace(objective="clm", **{"objective.keep_frac": 0.2})


def test_a_budget_is_replaced_whole():
    assert BASE.replace(budget={"flops": 1e9}).budget.tokens is None
    assert BASE.replace(**{"budget.tokens": 7}).budget.tokens == 7


def test_a_section_can_be_given_as_a_value():
    assert BASE.replace(optim=Optim(lr=1)).optim == Optim(lr=1)
    assert BASE.replace(rack=RackShape(stacks=2)).rack == RackShape(stacks=2)
    assert BASE.replace(data=Data()).data == Data()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"optim.lrr": 1}, "optim.lrr: unknown key; did you mean 'lr'?"),
        ({"optin.lr": 1}, "optin: unknown key; did you mean 'optim'?"),
        ({"optim.lr.peak": 1}, "optim.lr: {'peak': 1} is not a number"),
        ({"optim..lr": 1}, "optim.'': unknown key;"),
        ({".lr": 1}, "'': unknown key;"),
        ({"rack": None}, "rack: is empty; give its keys, or leave it out"),
        ({"rack": [4]}, "rack: [4] is a list; give a mapping of keys, or stacks alone"),
        ({"data.corpus.path": "x"}, "data.corpus.path: unknown key of markov;"),
    ],
)
def test_a_change_that_cannot_be_says_why(changes, expected):
    with pytest.raises(ExperimentError) as error:
        BASE.replace(**changes)
    assert str(error.value).startswith(expected)


@pytest.mark.parametrize(
    ("written", "read"),
    [("3e-4", 3e-4), (" 0.5 ", 0.5), (1, 1.0)],
)
def test_numbers_may_be_written_as_text(written, read):
    assert Experiment(optim={"lr": written}).optim.lr == read


@pytest.mark.parametrize(
    ("written", "read"),
    [("010", 10), ("0x10", 16), ("1_000", 1000), ("+7", 7), ("1.0", 1), ("1e3", 1000)],
)
def test_whole_numbers_in_yaml_are_decimal(written, read):
    assert Experiment.from_yaml(f"seed: {written}").seed == read
    assert settings("toy", [f"seed={written}"])[0].seed == read


@pytest.mark.parametrize(("written", "read"), [("1e-3", 1e-3), (".5", 0.5), ("1.5e-3", 1.5e-3)])
def test_fractions_in_yaml_are_decimal(written, read):
    assert Experiment.from_yaml(f"optim: {{lr: {written}}}").optim.lr == read


@pytest.mark.parametrize("written", ["1:30", "1:30.5", "0b11"])
def test_what_yaml_1_1_takes_for_a_number_is_none(written):
    with pytest.raises(ExperimentError, match=f"seed: '{written}' is not a whole number"):
        Experiment.from_yaml(f"seed: {written}")


@pytest.mark.parametrize("written", ["1e3", "1_000", "1000.0", 1e3])
def test_whole_numbers_may_be_written_as_floats(written):
    assert Experiment(seed=written).seed == 1000


def test_an_experiment_is_frozen_and_can_be_a_key():
    assert {BASE: 1}[Experiment.from_yaml(BASE.to_yaml())] == 1
    for value in (BASE, BASE.rack, BASE.attention):
        with pytest.raises(ExperimentError, match="cannot be set, since the value is frozen"):
            setattr(value, next(iter(type(value).model_fields)), 1)


def test_hashes_differ_where_experiments_do():
    others = [
        BASE.replace(seed=1),
        BASE.replace(optim={"lr": 1e-4}),
        BASE.replace(rack={"heads": 8}),
    ]
    assert len({exp.hash for exp in [BASE, *others]}) == 4


def sections(model):
    yield model
    for field in model.model_fields.values():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, sw.Experiment.__mro__[1]):
            yield from sections(inner) if inner is not Params else ()


REGISTRIES = [sw.CURRICULA, ATTENTION, SCHEDULES, OBJECTIVES, CORPORA, TOKENIZERS]


def test_every_key_says_what_it_means():
    kinds = [entry.params for registry in REGISTRIES for entry in registry.values()]
    for model in [*sections(Experiment), *sections(Placement), sw.Stage, sw.NewStack]:
        mute = [name for name, field in model.model_fields.items() if not field.description]
        assert (model, mute) == (model, [])
    for kind in kinds:
        names = kind.model_fields
        mute = [n for n in names if n != kind.selector() and not names[n].description]
        assert (kind, mute) == (kind, [])


def test_the_schema_lists_every_kind_with_its_own_keys():
    schema = Experiment.model_json_schema()
    assert set(schema["properties"]) == set(Experiment.model_fields)
    listed = schema["properties"]["attention"]["anyOf"]
    assert [kind["properties"]["kind"]["const"] for kind in listed] == list(ATTENTION)
    assert all(value.get("description") for value in schema["properties"].values())
