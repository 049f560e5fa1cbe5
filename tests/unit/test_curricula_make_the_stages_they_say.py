"""The stages of every curriculum, written out as a table."""

from itertools import pairwise

import pytest

from stackwise import Experiment, ExperimentError, stages

BASE = Experiment(rack={"stacks": 3, "d_model": 16, "heads": 2}, budget={"tokens": 10_000_000})


def row(stage):
    """`path; active; new; what trains outside the stacks`, with s left out: `012; 2; 2; eh`."""
    new = [
        entry.stack
        + {"random": "", "zero_output": "=0"}.get(entry.init, f"={'&'.join(entry.sources)}")
        + ("~" if entry.noise else "")
        for entry in stage.new
    ]
    flags = "e" * stage.embedding + "h" * stage.head
    cells = ["".join(stage.path), "".join(stage.active), " ".join(new), flags]
    return "; ".join(cells).replace("s", "")


def rows(**changes):
    return [row(stage) for stage in stages(BASE.replace(**changes))]


TABLE = {
    ("end_to_end", ""): ["012; 012; 0 1 2; eh"],
    ("left_to_right", ""): ["0; 0; 0; eh", "01; 1; 1; h", "012; 2; 2; h"],
    ("left_to_right", "embedding=always"): ["0; 0; 0; eh", "01; 1; 1; eh", "012; 2; 2; eh"],
    ("left_to_right", "head=first init=copy"): ["0; 0; 0; eh", "01; 1; 1=0; ", "012; 2; 2=1; "],
    ("left_to_right", "init=zero_output"): ["0; 0; 0; eh", "01; 1; 1=0; h", "012; 2; 2=0; h"],
    ("right_to_left", ""): ["2; 2; 2; eh", "12; 1; 1; e", "012; 0; 0; e"],
    ("right_to_left", "embedding=first init=copy"): [
        "2; 2; 2; eh",
        "12; 1; 1=2; ",
        "012; 0; 0=1; ",
    ],
    ("right_to_left", "head=always"): ["2; 2; 2; eh", "12; 1; 1; eh", "012; 0; 0; eh"],
    ("grow", ""): ["0; 0; 0; eh", "01; 01; 1=0; eh", "012; 012; 2=1; eh"],
    ("grow", "start=2"): ["01; 01; 0 1; eh", "012; 012; 2=1; eh"],
    ("grow", "start=3"): ["012; 012; 0 1 2; eh"],
    ("grow", "by=one init=random"): ["0; 0; 0; eh", "01; 01; 1; eh", "012; 012; 2; eh"],
    ("block_coordinate", ""): [
        "012; 0; 0 1 2; eh",
        "012; 1; ; h",
        "012; 2; ; h",
        "012; 0; ; eh",
        "012; 1; ; h",
        "012; 2; ; h",
    ],
    ("block_coordinate", "cycles=1 order=right_to_left head=with_last embedding=never"): [
        "012; 2; 0 1 2; h",
        "012; 1; ; ",
        "012; 0; ; ",
    ],
    ("block_coordinate", "cycles=1 embedding=always head=never"): [
        "012; 0; 0 1 2; e",
        "012; 1; ; e",
        "012; 2; ; e",
    ],
    ("left_to_right", "fuse=0.2 init=copy+noise"): [
        "0; 0; 0; eh",
        "01; 1; 1=0~; h",
        "012; 2; 2=1~; h",
        "012; 012; ; eh",
    ],
    ("grow", "place=between"): ["0; 0; 0; eh", "01; 01; 1=0; eh", "012; 012; 2=1; eh"],
    ("grow", "place=between by=one start=2 init=interpolate"): [
        "01; 01; 0 1; eh",
        "012; 012; 2=1; eh",
    ],
    ("grow", "place=middle by=one init=interpolate"): [
        "0; 0; 0; eh",
        "02; 02; 2=0; eh",
        "012; 012; 1=0&2; eh",
    ],
    ("freeze_thaw", ""): [
        "0; 0; 0; eh",
        "01; 1; 1; h",
        "01; 01; ; eh",
        "012; 2; 2; h",
        "012; 012; ; eh",
    ],
    ("one_hop", ""): ["0; 0; 0; eh", "012; 012; 1 2; eh"],
    ("one_hop", "source=0"): ["; ; ; eh", "012; 012; 0 1 2; eh"],
    ("one_hop", "source=2 init=copy"): ["01; 01; 0 1; eh", "012; 012; 2=0; eh"],
    ("one_hop", "source=2 place=middle init=interpolate"): [
        "02; 02; 0 2; eh",
        "012; 012; 1=0&2; eh",
    ],
    ("one_hop", "place=between init=copy"): ["0; 0; 0; eh", "012; 012; 1=0 2=0; eh"],
    ("one_hop", "source=0 init=zero_output"): ["; ; ; eh", "012; 012; 0=0 1=0 2=0; eh"],
    ("independent", ""): ["0; 0; 0; eh", "1; 1; 1; eh", "2; 2; 2; eh", "012; ; ; h"],
    ("independent", "join=all"): ["0; 0; 0; eh", "1; 1; 1; eh", "2; 2; 2; eh", "012; 012; ; eh"],
    ("subnetwork", ""): ["012; 012; 0 1 2; eh"],
    ("gradual_unfreezing", ""): ["012; 2; 0 1 2; h", "012; 12; ; h", "012; 012; ; eh"],
    ("gradual_unfreezing", "order=left_to_right embedding=never"): [
        "012; 0; 0 1 2; h",
        "012; 01; ; h",
        "012; 012; ; h",
    ],
}


@pytest.mark.parametrize(("name", "options"), TABLE)
def test_the_stages_are_those_of_the_table(name, options):
    given = dict(pair.split("=") for pair in options.split())
    assert rows(curriculum={"name": name, **given}) == TABLE[name, options]


def adapted(**options):
    fusion = {"name": "fusion", "train": "adapters", **options}
    knobs = {"on": "both", "rank": 6, "over": "rising", "alpha": 4}
    made = stages(BASE.replace(start="model", curriculum=fusion, adapters=knobs))
    ranks = [{a.stack: a.rank for a in stage.adapters or ()} for stage in made]
    return [row(stage) for stage in made], ranks


def test_fusion_may_train_adapters_on_every_stack_with_the_head():
    rising = {"s0": 2, "s1": 4, "s2": 6}
    assert adapted() == (["012; ; 0 1 2; h"], [rising])
    assert adapted(head_first=0.2) == (["012; ; 0 1 2; h", "012; ; ; h"], [{}, rising])


@pytest.mark.parametrize("on", ["none", "trunk", "suffix"])
def test_fusion_with_adapters_asks_for_them_on_both_sides(on):
    with pytest.raises(ExperimentError) as error:
        BASE.replace(
            start="model", curriculum={"name": "fusion", "train": "adapters"}, adapters={"on": on}
        )
    assert str(error.value) == (
        "curriculum.train: adapters puts one on every stack, and "
        f"adapters.on={on}; set adapters.on=both"
    )


def test_every_cycle_of_random_visits_has_each_stack_once_in_an_order_of_its_own():
    options = {"name": "block_coordinate", "order": "random", "cycles": 20}
    made = stages(BASE.replace(curriculum=options))
    cycles = [tuple(made[i + j].active[0] for j in range(3)) for i in range(0, 60, 3)]
    assert {tuple(sorted(cycle)) for cycle in cycles} == {("s0", "s1", "s2")}
    assert len(set(cycles)) == 6  # every order there is; 20 draws miss one of six in 2 in 100 seeds
    assert made == stages(BASE.replace(curriculum=options))
    other = stages(BASE.replace(curriculum=options, seed=1))
    assert [s.active for s in made] != [s.active for s in other]


def test_growing_doubles_until_the_rack_is_whole():
    made = rows(rack={"stacks": 6}, curriculum="grow")
    assert made == [
        "0; 0; 0; eh",
        "01; 01; 1=0; eh",
        "0123; 0123; 2=0 3=1; eh",
        "012345; 012345; 4=2 5=3; eh",
    ]


def test_growing_from_two_stacks_copies_both_in_order():
    made = rows(rack={"stacks": 4}, curriculum={"name": "grow", "start": 2})
    assert made == ["01; 01; 0 1; eh", "0123; 0123; 2=0 3=1; eh"]


def test_every_stack_is_added_once_and_the_last_path_is_the_whole_rack():
    for name, _ in TABLE:
        made = stages(BASE.replace(curriculum=name))
        added = [entry.stack for stage in made for entry in stage.new]
        assert sorted(added) == ["s0", "s1", "s2"]
        assert made[-1].path == ("s0", "s1", "s2")


@pytest.mark.parametrize("name", ["left_to_right", "right_to_left"])
@pytest.mark.parametrize("bands", ["equal_mass", "linear", "exponential", [0.2, 0.7]])
def test_bands_tile_the_noise_with_the_heaviest_at_the_left(name, bands):
    made = stages(BASE.replace(curriculum=name, masking={"bands": bands}))
    band_of = {stage.active[0]: stage.band for stage in made}
    heaviest_first = [band_of[stack] for stack in ("s0", "s1", "s2")]
    assert heaviest_first[0][1] == 1
    assert heaviest_first[-1][0] == 0
    assert all(left[0] == right[1] for left, right in pairwise(heaviest_first))


def test_without_bands_every_stage_sees_all_noise():
    for name, _ in TABLE:
        assert {stage.band for stage in stages(BASE.replace(curriculum=name))} == {(0, 1)}


@pytest.mark.parametrize("name", ["grow", "block_coordinate"])
@pytest.mark.parametrize("lr", ["continue", "rewarm"])
def test_stages_that_continue_a_schedule_tile_it(lr, name):
    made = stages(BASE.replace(curriculum={"name": name, "lr": lr, "optimizer_state": "keep"}))
    spans = [stage.lr_span for stage in made]
    assert {(stage.lr, stage.optimizer_state) for stage in made} == {(lr, "keep")}
    assert (spans[0][0], spans[-1][1]) == (0, 1)
    assert all(left[1] == right[0] for left, right in pairwise(spans))
    total = sum(stage.tokens for stage in made)
    for (low, high), stage in zip(spans, made, strict=True):
        assert high - low == pytest.approx(stage.tokens / total)


def test_stages_with_a_schedule_each_cover_it_whole():
    for changes in ("left_to_right", "right_to_left", {"name": "grow", "lr": "per_stage"}):
        made = stages(BASE.replace(curriculum=changes))
        assert {(stage.lr, stage.lr_span) for stage in made} == {("per_stage", (0, 1))}


def test_making_stages_is_pure():
    for name, _ in TABLE:
        exp = BASE.replace(curriculum=name)
        assert stages(exp) == stages(Experiment.from_yaml(exp.to_yaml()))


def test_growing_between_and_in_the_middle_keeps_ids_in_the_order_of_the_rack():
    def shown(**options):
        return rows(rack={"stacks": 8}, curriculum={"name": "grow", "start": 2, **options})

    assert shown(place="between") == [
        "04; 04; 0 4; eh",
        "0246; 0246; 2=0 6=4; eh",
        "01234567; 01234567; 1=0 3=2 5=4 7=6; eh",
    ]
    # Those around the middle once more; with one at a time, the middle one (MIDAS).
    assert shown(place="middle") == [
        "07; 07; 0 7; eh",
        "0167; 0167; 1=0 6=7; eh",
        "01234567; 01234567; 2=0 3=1 4=6 5=7; eh",
    ]
    assert [line.split("; ")[2] for line in shown(place="middle", by="one")[1:]] == [
        "1=0",
        "6=1",
        "2=1",
        "5=2",
        "3=2",
        "4=3",
    ]
    assert shown(place="middle", by="one", init="interpolate")[:3] == [
        "07; 07; 0 7; eh",
        "017; 017; 1=0&7; eh",
        "0167; 0167; 6=1&7; eh",
    ]


def test_each_stack_of_diffusion_blocks_is_alone_on_its_band():
    exp = BASE.replace(curriculum="diffusion_blocks", masking={"bands": "linear"})
    made = stages(exp)
    assert [row(stage) for stage in made[:3]] == ["0; 0; 0; eh", "1; 1; 1; eh", "2; 2; 2; eh"]
    bands = [stage.band for stage in made[:3]]
    assert [low for low, _ in bands] == pytest.approx([2 / 3, 1 / 3, 0])
    assert [high for _, high in bands] == pytest.approx([1, 2 / 3, 1 / 3])
    assert {stage.path for stage in made[3:]} == {("s0",), ("s1",), ("s2",)}


def test_a_last_stage_gets_its_part_of_the_split():
    for name in ("left_to_right", "right_to_left", "block_coordinate"):
        made = stages(BASE.replace(curriculum={"name": name, "fuse": 0.25, "split": "tokens"}))
        assert made[-1].name == "fusion"
        total = sum(stage.tokens for stage in made)
        assert made[-1].tokens / total == pytest.approx(0.25, abs=1e-3)


def test_the_hop_comes_after_its_part_of_the_tokens():
    made = stages(BASE.replace(curriculum={"name": "one_hop", "hop": 0.8}))
    assert made[0].tokens / sum(stage.tokens for stage in made) == pytest.approx(0.8, abs=1e-3)


def test_stages_are_called_after_the_stacks_that_train():
    exp = BASE.replace(curriculum={"name": "grow", "place": "middle", "by": "one"})
    assert [stage.name for stage in stages(exp)] == ["s0", "s0+s2", "s0-s2"]


def test_paths_are_as_long_as_asked_and_the_last_ones_whole():
    exp = BASE.replace(rack={"stacks": 5}, curriculum={"name": "subnetwork", "lengths": (1, 3, 5)})
    assert [stage.pick for stage in stages(exp)] == [1, 3, None]
    for stacks, picks in ((4, [3, None]), (5, [3, None]), (12, [6, None])):
        usual = BASE.replace(rack={"stacks": stacks}, curriculum="subnetwork")
        assert [stage.pick for stage in stages(usual)] == picks
