"""The grid: every cell has the state that the stage says, and what it takes adds up."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stackwise as sw
from stackwise.stage import roles
from stackwise_widgets.views import grid_html
from stackwise_widgets.views.cells import columns_of, held_before, spans_of
from stackwise_widgets.views.chosen import kind_of
from stackwise_widgets.views.stagerows import total_of

SVG = "{http://www.w3.org/2000/svg}"
TOY = sw.Experiment.preset("toy")
CASES = {
    "end_to_end": TOY,
    "left_to_right": TOY.replace(curriculum="left_to_right"),
    "left_to_right, all trains": TOY.replace(
        curriculum={"name": "left_to_right", "embedding": "always", "init": "zero_output"}
    ),
    "right_to_left": TOY.replace(curriculum="right_to_left"),
    "right_to_left, bands": TOY.replace(
        curriculum={"name": "right_to_left", "embedding": "first"}, masking={"bands": "equal_mass"}
    ),
    "grow": TOY.replace(curriculum="grow"),
    "grow by one": TOY.replace(curriculum={"name": "grow", "by": "one"}),
    "block_coordinate": TOY.replace(curriculum="block_coordinate"),
    "block_coordinate, never": TOY.replace(
        curriculum={"name": "block_coordinate", "embedding": "never", "head": "never"}
    ),
    "freeze_thaw": TOY.replace(curriculum={"name": "freeze_thaw", "init": "copy+noise"}),
    "grow, in the middle": TOY.replace(
        curriculum={"name": "grow", "place": "middle", "init": "interpolate", "start": 2}
    ),
    "one_hop": TOY.replace(curriculum={"name": "one_hop", "source": 0}),
    "diffusion_blocks": TOY.replace(curriculum="diffusion_blocks", masking={"bands": "equal_mass"}),
    "independent": TOY.replace(curriculum="independent"),
    "subnetwork": TOY.replace(curriculum={"name": "subnetwork", "lengths": (1, 3, 4)}),
    "gradual_unfreezing": TOY.replace(curriculum="gradual_unfreezing"),
    "fusion": TOY.replace(curriculum={"name": "fusion", "head_first": 0.2}, start="runs/another"),
    "clm": TOY.replace(objective="clm", curriculum="left_to_right"),
    "mlm": TOY.replace(objective="mlm", masking={"schedule": "ramp"}, curriculum="grow"),
    **{name: sw.Experiment.preset(name) for name in sw.presets()},
}


def drawn(html):
    """Of each stage that is shown, its cells by column."""
    found = {}
    for group in ElementTree.fromstring(html).iter(f"{SVG}g"):
        if group.get("class") == "sw-stage":
            cells = {}
            for rect in group.iter(f"{SVG}rect"):
                if rect.get("data-state"):
                    columns = range(int(rect.get("data-first")), int(rect.get("data-last")) + 1)
                    assert not cells.keys() & set(columns), "a column is drawn once"
                    cells |= dict.fromkeys(columns, rect)
            found[int(group.get("data-stage"))] = cells
    return found


def expected(stage, held, names):
    """What each part is, said once more."""
    states = {name: "held" if name in held else "absent" for name in names} | roles(stage)
    states["embedding"] = "active" if stage.embedding else "trunk"
    states["head"] = "active" if stage.head else "suffix"
    return states


def check(exp, made, html):
    names, held, found = columns_of(exp), set(), drawn(html)
    for number, stage in enumerate(made):
        held |= {entry.stack for entry in stage.new}
        if number in found:
            states = [found[number][column].get("data-state") for column in range(len(names))]
            assert states == list(expected(stage, held, names).values()), number
    return found


@pytest.mark.parametrize("case", CASES)
def test_every_cell_has_the_state_that_the_stage_says(case):
    exp = CASES[case]
    made = sw.stages(exp)
    found = check(exp, made, grid_html(exp, sw.Placement(), made))
    assert list(found) == list(range(len(made)))


@st.composite
def any_stages(draw):
    """Stages as a curriculum of one's own may make them: stacks may sit out, thaw, come late."""
    ids, held, made = sw.stack_ids(TOY.rack), [], []
    for _ in range(draw(st.integers(1, 6))):
        new = draw(st.lists(st.sampled_from(ids), unique=True))
        new = [stack for stack in new if stack not in held] or ([] if held else [ids[0]])
        held += new
        path = draw(st.permutations(held))[: draw(st.integers(max(1, len(new)), len(held)))]
        path = [*path, *(stack for stack in new if stack not in path)]
        active = draw(st.lists(st.sampled_from(path), unique=True))
        ends = draw(st.tuples(st.booleans(), st.booleans())) if active else (False, True)
        made.append(
            sw.Stage(
                path=tuple(path),
                active=tuple(active),
                new=tuple(sw.NewStack(stack=stack) for stack in new),
                embedding=ends[0],
                head=ends[1],
            )
        )
    return made


@settings(max_examples=60, deadline=None)
@given(any_stages())
def test_so_has_every_cell_of_any_stages_at_all(own):
    made = sw.stages(TOY, lambda exp: own)
    check(TOY, made, grid_html(TOY, sw.Placement(), made))


@pytest.mark.parametrize("case", CASES)
def test_the_cells_flops_add_up_to_the_stages(case):
    exp, placement = CASES[case], sw.Placement()
    made = sw.stages(exp)
    rows = sw.plan_rows(exp, placement, made)
    for stage, held, row in zip(made, held_before(made), rows, strict=True):
        spans = spans_of(exp, placement, stage, held, row)
        whole = sum(span.cell.flops * len(span.columns) for span in spans if span.cell.flops)
        assert whole == pytest.approx(row["flops"], rel=1e-12)
        parts = {k: sum(v.values()) for k, v in row["bytes_by_part"].items()}
        taken = sum((total_of(span.cell) or 0) * len(span.columns) for span in spans)
        assert taken == sum(parts.values()) - parts.get("slots", 0) - parts.get("scratch", 0)


def test_a_cells_tooltip_says_what_it_reads_and_takes():
    exp = CASES["left_to_right"]
    made = sw.stages(exp)
    rows = sw.plan(exp, hardware="h200").rows
    cell = drawn(grid_html(exp, sw.Placement(), made, rows))[2][1]
    said = cell.find(f"{SVG}title").text
    assert said.startswith("stage 2 (s2) · s0 to s1\ntrunk: frozen, and no gradient reaches it")
    assert "kept in float32" in said
    assert "reads 1.32 M tokens in 1,287 steps" in said
    assert f"{1_317_888 * rows[2]['block_flops_per_token']['s0.0']:.3g} FLOPs" in said
    assert "weights 208.5 KiB" in said


def test_a_new_stack_says_what_it_starts_from():
    made = sw.stages(CASES["grow"])
    cells = drawn(grid_html(CASES["grow"], sw.Placement(), made))
    assert "starts from: random" in cells[0][1].find(f"{SVG}title").text
    assert "starts from: copy of s1" in cells[2][4].find(f"{SVG}title").text
    zero = CASES["left_to_right, all trains"]
    html = grid_html(zero, sw.Placement(), sw.stages(zero))
    assert "starts from: zero output" in html
    assert ">zero output</text>" in html


@pytest.mark.parametrize(
    ("trunk", "source", "said"),
    [
        ("recompute", None, "kept in nf4"),
        ("streamed", "disk", "kept in nf4; read from disk block by block as it is needed"),
        ("streamed", "host", "kept in nf4; read from host memory block by block"),
        ("cached", "disk", "kept in nf4; its outputs are read from a cache on disk, made once"),
    ],
)
def test_the_legend_says_where_frozen_stacks_are_read_from(trunk, source, said):
    exp = CASES["left_to_right"].replace(precision={"frozen": "nf4"})
    placement = sw.Placement(trunk=trunk, **({"stream_from": source} if source else {}))
    html = grid_html(exp, placement, sw.stages(exp), ())
    assert said in html
    hatch = "trunk" if trunk == "recompute" else f"trunk-{trunk}"
    assert re.search(rf'id="k\w+-{hatch}"', html)


def test_every_hatch_that_is_used_is_there_and_ids_are_used_once():
    for exp in CASES.values():
        html = grid_html(exp, sw.Placement(), sw.stages(exp), ())
        used, made = set(re.findall(r"url\(#([^)]+)\)", html)), re.findall(r' id="([^"]+)"', html)
        assert used <= set(made)
        assert len(made) == len(set(made))


def test_the_noise_of_each_stage_is_drawn_and_said():
    exp = CASES["right_to_left, bands"]
    made, html = sw.stages(exp), grid_html(exp, sw.Placement(), sw.stages(exp), ())
    bands = re.findall(r'data-low="([^"]+)" data-high="([^"]+)"', html)
    assert [(float(a), float(b)) for a, b in bands] == [stage.band for stage in made]
    assert html.count(">25 % to 50 %<") == 2, "in the picture and in its table"
    masked = grid_html(CASES["mlm"], sw.Placement(), sw.stages(CASES["mlm"]), ())
    ranges = re.findall(r'data-low="([^"]+)" data-high="([^"]+)"', masked)
    assert [float(a) for a, _ in ranges] == pytest.approx([0.15, 0.40, 0.65], abs=1e-3)
    assert "data-low" not in grid_html(CASES["clm"], sw.Placement(), sw.stages(CASES["clm"]), ())


def test_how_stages_stand_is_said_in_words():
    for exp in (CASES["left_to_right"], CASES["block_coordinate"], CASES["llama-2-70b"]):
        done = {0: "finished", 1: "running <now>"}
        html = grid_html(exp, sw.Placement(), sw.stages(exp), (), done=done)
        root = ElementTree.fromstring(html)
        texts = [text.text for text in root.iter(f"{SVG}text")]
        assert any("finished" in text for text in texts)
        lines = root.findall(".//table")[0].findall(".//tbody/tr")
        assert [line[2].text for line in lines[:3]] == [*done.values(), "not begun"]


def test_without_a_plan_nothing_is_said_of_bytes():
    exp = CASES["left_to_right"]
    html = grid_html(exp, sw.Placement(), sw.stages(exp), ())
    assert "peak memory" not in html.partition("<details")[0]
    assert "<td>not known</td>" in html


def test_the_table_behind_it_has_the_same_content():
    exp = CASES["left_to_right"]
    made, rows = sw.stages(exp), sw.plan(exp, hardware="h200").rows
    stages, cells = ElementTree.fromstring(grid_html(exp, sw.Placement(), made, rows)).findall(
        ".//details//table"
    )
    lines = [[cell.text for cell in line] for line in stages.findall(".//tbody/tr")]
    assert [line[1] for line in lines] == ["s0", "s1", "s2", "s3"]
    assert [line[6] for line in lines] == [
        "none",
        "embedding, s0",
        "embedding, s0 to s1",
        "embedding, s0 to s2",
    ]
    assert [line[-1] for line in lines] == [row["peak_at"] for row in rows]
    spans = [line[1].text for line in cells.findall(".//tbody/tr") if line[0].text == "2"]
    assert spans == ["embedding", "s0 to s1", "s2", "head"]


def test_stacks_with_an_adapter_are_told_from_other_frozen_ones():
    exp = TOY.replace(curriculum="right_to_left", adapters={"on": "suffix", "rank": [0, 2, 0, 3]})
    html = grid_html(exp, sw.Placement(), made := sw.stages(exp))
    columns = {name: at for at, name in enumerate(columns_of(exp))}
    for stage, cells in zip(made, drawn(html).values(), strict=True):
        carried = {columns[adapter.stack] for adapter in stage.adapters or ()}
        assert {at for at, rect in cells.items() if rect.get("data-state") == "adapter"} == carried
    assert "adapter: frozen, and a low-rank adapter on it trains" in html  # the legend
    assert "carries an adapter of rank 3" in html and "s1: rank 2; s3: rank 3" in html
    assert "low-rank" not in grid_html(
        CASES["right_to_left"], sw.Placement(), sw.stages(CASES["right_to_left"])
    )


def text_in(group):
    return [text.text for text in group.iter(f"{SVG}text")]


def stage_in(html, number):
    groups = ElementTree.fromstring(html).iter(f"{SVG}g")
    return next(g for g in groups if g.get("data-stage") == str(number))


def picture(curriculum, **changes):
    exp = TOY.replace(curriculum=curriculum, **changes)
    return grid_html(exp, sw.Placement.preset("toy"), sw.stages(exp))


def test_every_curriculum_of_the_registry_is_drawn():
    assert {exp.curriculum.choice for exp in CASES.values()} == set(sw.CURRICULA)


def test_stacks_that_a_step_may_leave_out_are_told_apart():
    html = picture({"name": "subnetwork", "lengths": (3, 4)})
    first = stage_in(html, 0)
    assert text_in(first).count("in 50 %") == 2  # the two inside, one of which is drawn
    drawn = {r.get("data-first"): "".join(r.itertext()) for r in first.iter(f"{SVG}rect")}
    assert "runs in 50 % of the steps, drawn for each" in drawn["2"]
    assert "of the steps" not in drawn["1"] and "of the steps" not in drawn["4"]
    assert "each step draws 3 of 4 stacks" in "".join(first.itertext())
    assert "s0 to s3, 3 in each step" in html
    assert "active: it trains, but only in steps that draw it" in html
    assert not any("in 50" in text for text in text_in(stage_in(html, 1)))
    assert "draw" not in picture("end_to_end")


def test_each_start_is_named_in_the_cell_and_whole_in_the_tooltip():
    noisy = stage_in(picture({"name": "freeze_thaw", "init": "copy+noise"}), 1)
    assert "s0 + noise" in text_in(noisy)
    assert "starts from: copy of s0 + noise" in "".join(noisy.itertext())
    middle = {"name": "grow", "by": "one", "place": "middle", "init": "interpolate", "start": 2}
    mean = stage_in(picture(middle), 1)
    assert "\u00bds0 + \u00bds3" in text_in(mean)
    assert "starts from: mean of s0, s3" in "".join(mean.itertext())
    loaded = stage_in(picture("fusion", start="runs/another"), 0)
    assert "loaded" in text_in(loaded)
    assert "starts from: from runs/another" not in "".join(loaded.itertext())
    assert "starts from: runs/another" in "".join(loaded.itertext())


def test_a_stage_says_what_it_reads_that_others_do_not():
    html = picture("left_to_right", data={"seq_len_by_stage": (16, 32, 64, 64)})
    assert "samples of 16 tokens" in "".join(stage_in(html, 0).itertext())
    blocks = {"kind": "block_diffusion", "block_by_stage": (4, 8, 8, 16)}
    html = picture("left_to_right", objective=blocks)
    assert "blocks of 16 tokens" in "".join(stage_in(html, 3).itertext())
    mix = {"kind": "mix", "corpora": [{"kind": "kjv"}, {"kind": "markov"}]}
    weights = ((1, 0), (1, 1), (0, 1), (1, 3))
    html = picture("left_to_right", data={"corpus": mix, "weights_by_stage": weights})
    assert "corpora mixed 1 : 3" in "".join(stage_in(html, 3).itertext())


def test_a_stage_without_stacks_says_so():
    first = stage_in(picture({"name": "one_hop", "source": 0}), 0)
    assert "embedding and head alone" in "".join(first.itertext())
    states = [r.get("data-state") for r in first.iter(f"{SVG}rect") if r.get("data-state")]
    assert states == ["active", "absent", "active"]


def test_a_round_that_draws_other_stacks_is_no_repetition():
    ids = ("s0", "s1", "s2")
    stage = sw.Stage(path=ids, active=ids, new=())
    assert kind_of(stage) != kind_of(stage.model_copy(update={"pick": 2}))
