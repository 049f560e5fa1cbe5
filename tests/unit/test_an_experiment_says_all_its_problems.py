"""Malformed experiments: every problem at once, one line each, in words that say what to do."""

import re
import time

import pytest

from stackwise import Experiment, ExperimentError, Placement, __version__
from stackwise.config import presets
from stackwise.data.corpora import CORPORA
from stackwise.errors import Problem
from stackwise.model.attention import ATTENTION
from stackwise.model.shape import RackShape
from stackwise.objective import OBJECTIVES
from stackwise.schedules import SCHEDULES

ATTENTIONS, KNOWN = ", ".join(ATTENTION), ", ".join(Experiment.model_fields)
SHAPE = ", ".join(RackShape.model_fields)
LITERALS = "'wsd', 'cosine', 'linear' or 'constant'"
LEFT_OUT = "is empty; give a value, or leave the key out"
PLACE = "placement.device: "

MALFORMED = {
    "a number out of range": ({"optim": {"lr": -1}}, "optim.lr: -1 must be over 0"),
    "too large": ({"optim": {"lr": 11}}, "optim.lr: 11 must be 10 or less"),
    "at the open end": ({"data": {"heldout_frac": 1}}, "data.heldout_frac: 1 must be under 1"),
    "huge": ({"seed": 10**5000}, "seed: a number of over 4300 digits must be under 2147483648"),
    "a fraction for a count": (
        {"rack": {"d_model": 2.5}},
        "rack.d_model: 2.5 is not a whole number",
    ),
    "text for a number": ({"optim": {"lr": "fast"}}, "optim.lr: 'fast' is not a number"),
    "more windows than any text has": (
        {"eval": {"windows": 99999999999}},
        "eval.windows: 99999999999 must be 1000000 or less",
    ),
    "more tokens than can be counted": (
        {"budget": {"tokens": 10**16}},
        "budget.tokens: 10000000000000000 must be 1000000000000000 or less",
    ),
    "more FLOPs than there are": (
        {"budget": {"flops": 1e31}},
        "budget.flops: 1e+31 must be 1e+30 or less",
    ),
    "not a number": ({"optim": {"lr": float("nan")}}, "optim.lr: nan is not a finite number"),
    "no end": ({"budget": {"flops": "inf"}}, "budget.flops: 'inf' is not a finite number"),
    "nan for a count": ({"seed": float("nan")}, "seed: nan is not a finite number"),
    "true for a number": ({"seed": True}, "seed: True is not a number"),
    "true for a fraction": ({"optim": {"lr": False}}, "optim.lr: False is not a number"),
    "true in a list": ({"rack": {"window": [1, True]}}, "rack.window: True is not a number"),
    "neither true nor false": (
        {"rack": {"tied": "maybe"}},
        "rack.tied: 'maybe' is neither true nor false",
    ),
    "a number for text": ({"title": 5}, "title: 5 is not text"),
    "a name with a space": (
        {"title": "my run"},
        "title: 'my run' must match ^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
    ),
    "another schema": (
        {"schema_version": 2},
        "schema_version: 2 is of another version of StackWise, a newer one; this one, "
        f"{__version__}, reads 1; upgrade it: pip install --upgrade stackwise",
    ),
    "an unknown section": ({"rak": {}}, "rak: unknown key; did you mean 'rack'?"),
    "a key of two lines": ({"a\nb": 1}, f"'a\\nb': unknown key; known: {KNOWN}"),
    "an empty key": ({"": 1}, f"'': unknown key; known: {KNOWN}"),
    "an unknown key": (
        {"rack": {"headz": 4}},
        "rack.headz: unknown key; did you mean 'heads'?",
    ),
    "two unknown keys": (
        {"rack": {"zzz": 4, "yyy": 4}},
        f"rack.zzz: unknown key; known: {SHAPE}\nrack.yyy: unknown key; known: see above",
    ),
    "a key of another section": (
        {"attention": {"kind": "mha", "heads": 2}, "batch": 8, "rack": {"threads": 1}},
        "rack.threads: unknown key; it is placement.threads\n"
        "attention.heads: unknown key of mha; it is rack.heads\n"
        "batch: unknown key; it is optim.batch",
    ),
    "a key of another kind": (
        {"attention": {"kind": "mha", "kv_rank": 2}, "data": {"path": "x"}},
        "attention.kv_rank: unknown key of mha; it is a key of attention=mla\n"
        "data.path: unknown key; it is a key of data.corpus=text, jsonl, parquet or a key of "
        "data.tokenizer=json",
    ),
    "a placement": (
        {"placement": {"device": "cpu"}},
        "placement: unknown key; it changes no number, and an experiment holds none; give "
        "sw.Placement(...) beside it",
    ),
    "a placement misspelt": (
        {"placemnt": {"device": "cpu"}},
        "placemnt: unknown key; it is placement",
    ),
    "a preset": (
        {"preset": "toy"},
        "preset: unknown key; a preset is named instead of a file (stackwise run toy seed=1, "
        "sw.Experiment.preset('toy').replace(...)), or under base of a study's",
    ),
    "a kind that no other is like": (
        {"attention": "flash"},
        f"attention: unknown kind 'flash'; known: {ATTENTIONS}",
    ),
    "a width that the heads do not divide": (
        {"rack": {"d_model": 33}},
        "rack.heads: 4 does not divide d_model=33; use d_model=32 or give head_dim",
    ),
    "a colon and nothing": (
        {"data": "text:"},
        "data.corpus: 'text:' ends with its colon; write text:PATH",
    ),
    "a key that is a number": ({"rack": {1: 2}}, "rack: 1 is not a key; keys are text"),
    "an unknown key of a choice": (
        {"objective": {"kind": "mlm", "keep": 0.1}},
        "objective.keep: unknown key of mlm; did you mean 'keep_frac'?",
    ),
    "an unknown key two sections down": (
        {"rack": {"rope_scaling": {"faktor": 2}}},
        "rack.rope_scaling.faktor: unknown key; did you mean 'factor'?",
    ),
    "an unknown kind": (
        {"attention": "mhaa"},
        f"attention: unknown kind 'mhaa'; did you mean 'mha'? known: {ATTENTIONS}",
    ),
    "an unknown schedule": (
        {"masking": {"schedule": "cosin"}},
        "masking.schedule: unknown name 'cosin'; did you mean 'cosine'? "
        f"known: {', '.join(SCHEDULES)}",
    ),
    "an unknown word": (
        {"optim": {"schedule": "cosin"}},
        f"optim.schedule: 'cosin' is not one of {LITERALS}; did you mean 'cosine'?",
    ),
    "no kind": ({"attention": {"rank": 3}}, f"attention: needs 'kind'; known: {ATTENTIONS}"),
    "a kind that is a number": (
        {"attention": {"kind": 3}},
        f"attention.kind: 3 is not a name; known: {ATTENTIONS}",
    ),
    "a list for a choice": (
        {"attention": ["mha"]},
        f"attention: ['mha'] is neither a name nor a mapping; known: {ATTENTIONS}",
    ),
    "nothing for a choice": ({"attention": None}, f"attention: is empty; known: {ATTENTIONS}"),
    "parameters of another section": (
        {"attention": OBJECTIVES["clm"].params()},
        f"attention: Clm(kind='clm') is of another registry; known: {ATTENTIONS}",
    ),
    "a value for a kind that takes none": (
        {"data": "kjv:x"},
        "data.corpus: 'kjv:x' gives a value, but kjv takes none",
    ),
    "an unknown corpus": (
        {"data": "txt:PATH"},
        "data.corpus: unknown kind 'txt'; did you mean 'text'? known: " + ", ".join(CORPORA),
    ),
    "a missing parameter": (
        {"data": {"corpus": "text"}},
        "data.corpus.path: is missing; give it",
    ),
    "a bad value after the colon": (
        {"data": {"tokenizer": "bpe:many"}},
        "data.tokenizer.entries: 'many' is not a whole number",
    ),
    "a list for a section": (
        {"rack": [1, 2]},
        "rack: [1, 2] is a list; give a mapping of keys, or stacks alone",
    ),
    "nothing for a section": ({"rack": None}, "rack: is empty; give its keys, or leave it out"),
    "nothing for a key": ({"optim": {"lr": None}}, f"optim.lr: {LEFT_OUT}"),
    "a mapping for a number": ({"seed": {"x": 3}}, "seed: {'x': 3} is not a whole number"),
    "a wrong bare value": ({"rack": "four"}, "rack.stacks: 'four' is not a whole number"),
    "both budgets": (
        {"budget": {"tokens": 1, "flops": 1}},
        "budget: both tokens and flops are given; give exactly one",
    ),
    "no budget": (
        {"budget": {}},
        "budget: neither tokens nor flops is given, and no days, hours or minutes; give exactly "
        "one",
    ),
    "three budgets": (
        {"budget": {"tokens": 5, "days": 1, "hours": 2}},
        "budget: tokens, days and hours are given; give exactly one",
    ),
    "one of several types": (
        {"rack": {"rope_base": "x"}},
        "rack.rope_base: 'x' is not a number, and is not a list",
    ),
    "inside a list": (
        {"rack": {"rope_base": [1e4, "x", None]}},
        "rack.rope_base[1]: 'x' is not a number\nrack.rope_base[2]: is empty; give a value",
    ),
    "an empty list": (
        {"rack": {"rope_base": []}},
        "rack.rope_base: () must be over 1; 10000 is usual",
    ),
    "a word or a list": (
        {"masking": {"bands": "lineer"}},
        "masking.bands: 'lineer' is not one of 'equal_mass', 'linear' or 'exponential', "
        "and is not a list; did you mean 'linear'?",
    ),
    "sizes that do not go together": (
        {"rack": {"heads": 7}},
        "rack.heads: 7 does not divide d_model=128; use 8 or give head_dim",
    ),
    "sections that do not go together": (
        {"curriculum": "grow", "masking": {"bands": "linear"}},
        "masking.bands: linear has no meaning with curriculum=grow, whose stacks see all noise; "
        "use left_to_right, right_to_left, diffusion_blocks, or leave bands empty",
    ),
    "blocks of diffusion without bands": (
        {"curriculum": "diffusion_blocks"},
        "masking.bands: is empty, and curriculum=diffusion_blocks gives each stack a band of its "
        "own; use equal_mass",
    ),
    "a noise that nothing reads": (
        {"curriculum": {"name": "grow", "noise": 0.5}},
        "curriculum.noise: 0.5 is not read with init=copy; leave it at 0.01",
    ),
    "a source as deep as the rack": (
        {"curriculum": {"name": "one_hop", "source": 2}, "rack": {"stacks": 2}},
        "curriculum.source: 2 leaves nothing to add with rack.stacks=2; lower it or add stacks",
    ),
    "a copy of nothing": (
        {"curriculum": {"name": "one_hop", "source": 0, "init": "copy"}},
        "curriculum.init: copy needs a stack to start from, and source=0 has none; use random or "
        "zero_output",
    ),
    "a place beside nothing": (
        {"curriculum": {"name": "one_hop", "source": 0, "place": "middle"}},
        "curriculum.place: 'middle' is not read with source=0; leave it at top",
    ),
    "paths longer than the rack": (
        {"curriculum": {"name": "subnetwork", "lengths": (2, 9)}},
        "curriculum.lengths: (2, 9) must be from 1 to rack.stacks=4; they are stacks",
    ),
    "a band that no number of masked tokens falls in": (
        {
            "curriculum": "right_to_left",
            "masking": {"bands": "equal_mass", "schedule": "geometric"},
            "data": {"seq_len": 64},
        },
        "masking.bands: equal_mass with schedule=geometric gives s3 (1 of 4 stacks) the band "
        "(0, 0.00201271], which holds no fraction k/64 of data.seq_len=64 tokens, so that it would "
        "train and never be used; use other bands, fewer stacks or longer samples",
    ),
    "bands without width": (
        {
            "curriculum": "right_to_left",
            "masking": {
                "bands": "equal_mass",
                "schedule": {"name": "geometric", "sigma_max": 100},
            },
            "data": {"seq_len": 1 << 20},
            "rack": 64,
        },
        "masking.bands: equal_mass with schedule=geometric gives s0 (8 of 64 stacks) the band "
        "(1, 1], which holds no fraction k/1048576 of data.seq_len=1048576 tokens, so that it "
        "would train and never be used; use other bands, fewer stacks or longer samples",
    ),
    "more bands than tokens": (
        {
            "curriculum": "left_to_right",
            "masking": {"bands": "linear"},
            "data": {"seq_len": 8},
            "rack": 32,
        },
        "masking.bands: linear gives s1 (24 of 32 stacks) the band (0.9375, 0.96875], which holds "
        "no fraction k/8 of data.seq_len=8 tokens, so that it would train and never be used; "
        "use other bands, fewer stacks or longer samples",
    ),
    "deeper than the rack": (
        {"curriculum": {"name": "grow", "start": 12}, "rack": 8},
        "curriculum.start: 12 > rack.stacks=8; lower it or add stacks",
    ),
    "a start that keeps nothing": (
        {"curriculum": {"name": "grow", "init": "zero_output"}, "rack": {"norm_place": "post"}},
        "curriculum.init: zero_output keeps what the rack computes only with rack.norm_place=pre, "
        "and it is post, where each block normalises its input; use random or copy",
    ),
    "weights for other stages": (
        {"curriculum": {"name": "left_to_right", "split": [1, -2]}},
        "curriculum.split: 2 weights for 4 stages; give one for each stage\n"
        "curriculum.split: (1.0, -2.0) must be over 0; they are weights",
    ),
    "a head too small": (
        {"rack": {"vocab": 100}},
        "rack.vocab: 100 < 256 entries of data.tokenizer=bytes; raise it or leave it empty",
    ),
    "samples too long": (
        {"rack": {"positions": "learned", "max_positions": 64}},
        "data.seq_len: 128 > rack.max_positions=64; shorten the samples or add positions",
    ),
    "no decay at all": (
        {"optim": {"decay_frac": 0}},
        "optim.decay_frac: 0 must be over 0",
    ),
    "a decay that is not read": (
        {"optim": {"schedule": "cosine", "decay_frac": 0.5}},
        "optim.decay_frac: 0.5 is not read with schedule=cosine; leave it at 0.3",
    ),
    "a base that is not read": (
        {"rack": {"positions": "none", "rope_base": 5e5}},
        "rack.rope_base: 500000.0 is not read with positions=none; leave it at 10000.0",
    ),
    "a stretch that is not read": (
        {"rack": {"positions": "learned", "max_positions": 128, "rope_scaling": 8}},
        "rack.rope_scaling: Llama3Scaling(factor=8.0, low=1.0, high=4.0, original=8192) is not "
        "read with positions=learned; leave it empty",
    ),
    "positions that are not read": (
        {"rack": {"max_positions": 128}},
        "rack.max_positions: 128 is not read with positions=rope; leave it empty",
    ),
    "one for true": ({"rack": {"tied": 1}}, "rack.tied: 1 is neither true nor false"),
    "true as text": ({"rack": {"tied": "true"}}, "rack.tied: 'true' is neither true nor false"),
    "masks that are not drawn": (
        {"objective": "clm", "eval": {"draws": 4}},
        "eval.draws: 4 is not read with objective=clm; leave it at 1",
    ),
    "an epsilon that is not read": (
        {"optim": {"name": "lion8bit", "eps": 1e-6}},
        "optim.eps: 1e-06 is not read with name=lion8bit; leave it at 1e-08",
    ),
    "moments that adafactor has not": (
        {"optim": {"name": "adafactor", "beta1": 0.8, "beta2": 0.9, "eps": 1e-6}},
        "optim.beta1: 0.8 is not read with name=adafactor; leave it at 0.9\n"
        "optim.beta2: 0.9 is not read with name=adafactor; leave it at 0.95\n"
        "optim.eps: 1e-06 is not read with name=adafactor; leave it at 1e-08",
    ),
    "a clip in backward": (
        {"optim": {"grads": "in_backward"}},
        "optim.clip: 1.0 needs the norm of the whole gradient, and with grads=in_backward it is "
        "never held whole; leave clip empty, or use grads=whole",
    ),
    "low weights in full products": (
        {"precision": {"weights": "bfloat16"}},
        "precision.weights: bfloat16 needs compute=bfloat16, not float32; give compute=bfloat16, "
        "or leave weights at float32",
    ),
    "a rounding that is not read": (
        {"precision": {"compute": "bfloat16", "rounding": "stochastic"}},
        "precision.rounding: 'stochastic' is not read with weights=float32; leave it at master",
    ),
    "a schedule over its end": (
        {"optim": {"warmup_frac": 0.5, "decay_frac": 0.75}},
        "optim.warmup_frac: 0.5 + decay_frac=0.75 is over 1; lower one of them",
    ),
}


@pytest.mark.parametrize(("values", "expected"), MALFORMED.values(), ids=list(MALFORMED))
def test_a_malformed_experiment_has_one_clear_message(values, expected):
    for make in (lambda: Experiment(**values), lambda: Experiment.model_validate(values)):
        with pytest.raises(ExperimentError) as error:
            make()
        assert str(error.value) == expected


def test_no_message_shows_where_it_was_made_or_says_its_path_twice():
    for values, _ in MALFORMED.values():
        with pytest.raises(ExperimentError) as error:
            Experiment(**values)
        for line in str(error.value).splitlines():
            path = line.split(":")[0]
            assert not re.search(r"Value error|input_value|http|Input should|pydantic", line)
            assert line.count(f"{path}:") == 1


def test_all_problems_come_at_once():
    with pytest.raises(ExperimentError) as error:
        Experiment(
            rack={"heads": 7},
            optim={"lr": -1, "batch": 0, "betta1": 0.5},
            objective="clm",
            masking={"bands": "linear"},
            attention={"kind": "mha", "rank": 3},
            seed="x",
        )
    assert [problem.path for problem in error.value.problems] == [
        "rack.heads",
        "attention.rank",
        "optim.lr",
        "optim.batch",
        "optim.betta1",
        "seed",
        "masking.bands",
    ]


def test_rules_between_sound_sections_are_told_beside_a_broken_one():
    with pytest.raises(ExperimentError) as error:
        Experiment(optim={"lr": -1}, masking={"bands": "linear"}, rack={"vocab": 9})
    paths = [problem.path for problem in error.value.problems]
    assert paths == ["optim.lr", "masking.bands", "rack.vocab"]


def test_rules_that_read_a_broken_section_are_not_guessed():
    with pytest.raises(ExperimentError) as error:
        Experiment(rack={"stacks": 0}, curriculum={"name": "grow", "start": 12})
    assert str(error.value) == "rack.stacks: 0 must be 1 or more"


def test_a_part_by_itself_says_its_problems_the_same_way():
    with pytest.raises(ExperimentError, match=r"^heads: 7 does not divide d_model=128"):
        RackShape(heads=7)
    with pytest.raises(ExperimentError, match=r"^random_frac: 2 must be 0\.5 or less$"):
        OBJECTIVES["mlm"].params(random_frac=2)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            {"device": "gpu"},
            PLACE + "'gpu' is not one of 'auto', 'cpu' or 'cuda'; did you mean 'cpu'?",
        ),
        ({"threads": 0}, "placement.threads: 0 must be 1 or more"),
        ({"micro_batch": True}, "placement.micro_batch: True is not a number"),
        ({"checkpointing": "x"}, "placement.checkpointing: 'x' is neither true nor false"),
    ],
)
def test_a_placement_says_its_problems(values, expected):
    with pytest.raises(ExperimentError) as error:
        Placement(**values)
    assert str(error.value) == expected


def test_a_problem_is_seen_from_further_out():
    problem = Problem("[1]", "x").under("bands").under("masking")
    assert str(problem) == "masking.bands[1]: x"
    assert str(Problem("", "x").under("rack")) == "rack: x"


LAUGHS = "l0: &l0 [x, x]\n" + "".join(
    f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]\n" for i in range(1, 30)
)
MERGES = "l0: &l0 {x: 1}\n" + "".join(
    f"l{i}: &l{i} {{<<: [{', '.join([f'*l{i - 1}'] * 9)}]}}\n" for i in range(1, 30)
)
ONE_ONE, TWICE = "exp.yaml: line 1, column 1: ", "is given twice"
YAML = {
    "nothing": ("", "exp.yaml: is empty; an experiment is a mapping of keys"),
    "a list": ("- a", "exp.yaml: ['a'] is not a mapping of keys"),
    "text": ("hello", "exp.yaml: 'hello' is not a mapping of keys"),
    "an open bracket": (
        "rack: [1,\n",
        "exp.yaml: line 2, column 1: expected the node content, but found '<stream end>'",
    ),
    "a tab": (
        "rack:\n\theads: 3",
        "exp.yaml: line 2, column 1: found character '\\t' that cannot start any token",
    ),
    "a colon too many": (
        "title: a: b",
        "exp.yaml: line 1, column 9: mapping values are not allowed here",
    ),
    "a key twice": ("seed: 1\nseed: 2", f"exp.yaml: line 2, column 1: the key 'seed' {TWICE}"),
    "a key twice inside": (
        "rack: {heads: 2, heads: 4}",
        f"exp.yaml: line 1, column 18: the key 'heads' {TWICE}",
    ),
    "a number as key": ("1: 2", ONE_ONE + "the key '1' is not text; put it in quotes"),
    "a word that YAML takes for true": (
        "on: 2",
        ONE_ONE + "the key 'on' is not text; put it in quotes",
    ),
    "a list as key": (
        "{[1]: 2}",
        "exp.yaml: line 1, column 2: the key 'a sequence' is not text; put it in quotes",
    ),
    "a number of too many digits": (
        "seed: " + "1" * 5000,
        "exp.yaml: is not YAML: a number of over 4300 digits",
    ),
    "a byte that is no text": (
        "a\0b",
        "exp.yaml: is not YAML: unacceptable character #x0000: special characters are not allowed",
    ),
    "code": (
        "seed: !!python/object/apply:os.system ['ls']",
        "exp.yaml: line 1, column 7: the tag 'tag:yaml.org,2002:python/object/apply:os.system' "
        "is not read; write plain values",
    ),
    "a date that is none": ("seed: 2024-99-99", "exp.yaml: is not YAML: month must be in 1..12"),
    "two documents": (
        "seed: 1\n---\nseed: 2",
        "exp.yaml: line 2, column 1: but found another document",
    ),
    "an unknown alias": ("seed: *x", "exp.yaml: line 1, column 7: found undefined alias 'x'"),
    "a value inside itself": (
        "rack: &a {stacks: *a}",
        "exp.yaml: line 1, column 7: found unconstructable recursive node",
    ),
    "nested without end": ("[" * 3000, "exp.yaml: is nested too deeply"),
    "laughs by merging": (
        MERGES,
        "exp.yaml: is not YAML: holds over 100000 values, those that aliases repeat counted each "
        "time",
    ),
    "a merge key": (
        "a: &a {seed: 1}\nb:\n  <<: *a\n",
        "exp.yaml: line 3, column 3: merge keys (<<) are not read; write the keys out",
    ),
}


@pytest.mark.parametrize(("text", "expected"), YAML.values(), ids=list(YAML))
def test_yaml_that_is_no_experiment_says_where(text, expected):
    with pytest.raises(ExperimentError) as error:
        Experiment.from_yaml(text, source="exp.yaml")
    assert str(error.value) == expected


def test_a_billion_laughs_are_answered_at_once():
    start = time.perf_counter()
    for text in (LAUGHS, LAUGHS + "rack: {rope_base: *l29, window: *l29}\nseed: *l29\n"):
        with pytest.raises(ExperimentError) as error:
            Experiment.from_yaml(text)
        assert max(map(len, str(error.value).splitlines())) < 1000
    assert time.perf_counter() - start < 5


def test_a_problem_in_a_file_names_the_file(tmp_path):
    for kind, text, expected in (
        (Experiment, "seed: -1", "seed: -1 must be 0 or more"),
        (Placement, "threads: 0", "placement.threads: 0 must be 1 or more"),
        (Placement, "", "is empty; a placement is a mapping of keys"),
    ):
        (tmp_path / "a.yaml").write_text(text)
        with pytest.raises(ExperimentError) as error:
            kind.load(tmp_path / "a.yaml")
        assert str(error.value) == f"{tmp_path / 'a.yaml'}: {expected}"


def test_a_file_that_cannot_be_read_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "latin.yaml").write_bytes("title: caf\xe9".encode("latin-1"))
    (tmp_path / "folder").mkdir()
    (tmp_path / "long.yaml").write_text("#" * (1 << 21))
    for path, expected in {
        "latin.yaml": "latin.yaml: byte 10 is not UTF-8 text; save the file as UTF-8",
        "folder": "folder: is a folder; name a YAML file",
        "none.yaml": "none.yaml: no such file",
        "long.yaml": "long.yaml: is over 1048576 bytes long; name a YAML file",
    }.items():
        for kind in (Experiment, Placement):
            with pytest.raises(ExperimentError) as error:
                kind.load(path)
            assert str(error.value) == expected


def test_an_unknown_preset_names_the_closest():
    with pytest.raises(ExperimentError) as error:
        Experiment.preset("toyy")
    known = ", ".join(presets())
    assert str(error.value) == f"unknown preset 'toyy'; did you mean 'toy'? known: {known}"


WRONG = {
    "unknown keys": ({f"k{n}": 1 for n in range(50_000)}, "49900 more unknown keys"),
    "entries": (
        {"data": {"seq_len_by_stage": ["x"] * 50_000}},
        "data.seq_len_by_stage: 49900 more of its entries are wrong",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_problems_without_end_are_counted_and_not_said_one_by_one(what) -> None:
    values, last = WRONG[what]
    with pytest.raises(ExperimentError) as error:
        Experiment(**values)
    assert len(error.value.problems) == 101 and str(error.value).splitlines()[-1] == last


def test_a_problem_without_end_is_cut() -> None:
    assert str(Problem("path", "s0, " * 100_000)) == "path: " + ("s0, " * 1000)[:3994] + "..."
