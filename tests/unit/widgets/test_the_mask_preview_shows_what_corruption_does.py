"""The mask preview: the user's own text, as the project's own corruption makes it."""

from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stackwise as sw
from stackwise.data.tokenizer import ByteTokenizer
from stackwise_widgets.views import mask_preview_html
from stackwise_widgets.views.levels import corrupted_at, ratio_at

TOY = sw.Experiment.preset("toy")
BYTES = ByteTokenizer()
TEXT = "In the beginning God created the heaven and the earth. " * 3
IDS_T = BYTES.encode(TEXT)
DIFFUSION = {
    "linear": TOY,
    "cosine": TOY.replace(masking="cosine"),
    "polynomial": TOY.replace(masking="polynomial"),
    "geometric": TOY.replace(masking="geometric"),
    "iid": TOY.replace(masking={"sampling": "iid"}),
    "stratified_k": TOY.replace(masking={"sampling": "stratified_k"}),
    "bands": TOY.replace(
        curriculum="right_to_left", masking={"schedule": "cosine", "bands": "equal_mass"}
    ),
}
MLM = {
    "constant": TOY.replace(objective="mlm"),
    "ramp": TOY.replace(objective="mlm", masking="ramp", curriculum="grow"),
    "no other tokens": TOY.replace(
        objective={"kind": "mlm", "random_frac": 0, "keep_frac": 0}, masking="ramp"
    ),
}


def levels_in(html):
    """Each level's element, and how many of its tokens are hidden."""
    found = []
    for level in ElementTree.fromstring(html).iter("div"):
        if level.get("class") == "sw-level":
            masks = [span for span in level.iter("span") if span.get("class") == "sw-mask"]
            assert len(masks) == int(level.get("data-masked"))
            found.append((level, len(masks)))
    return found


def words_of(level):
    return level.find("p").text


@pytest.mark.parametrize("case", DIFFUSION)
@pytest.mark.parametrize("at", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_as_much_is_masked_as_the_schedule_says(case, at):
    """The mean over draws is within five of its standard errors."""
    exp = DIFFUSION[case]
    asked = ratio_at(exp, at)
    schedule = sw.time_schedule(exp.masking.schedule or sw.SCHEDULES["linear"].params())
    assert asked == pytest.approx(1 - schedule.alpha(np.float64(at)), abs=1e-12)
    draws = [corrupted_at(exp, IDS_T, at, vocab=256, seed=n).hidden_T.mean() for n in range(60)]
    error = (asked * (1 - asked) / (60 * len(IDS_T))) ** 0.5
    one = 1 / len(IDS_T) if case == "stratified_k" else 1e-5
    assert abs(np.mean(draws) - asked) <= 5 * error + one
    if case == "stratified_k":
        assert len(set(draws)) == 1, "the number itself is drawn"


@pytest.mark.parametrize("case", [*DIFFUSION, *MLM])
def test_what_is_shown_is_what_corrupt_gives(case):
    exp = (DIFFUSION | MLM)[case]
    html = mask_preview_html(exp, TEXT, tokenizer=BYTES, seed=3)
    found = levels_in(html)
    assert [level.get("data-level") for level, _ in found] == ["0.1", "0.5", "0.9"]
    for (level, masked), at in zip(found, (0.1, 0.5, 0.9), strict=True):
        there = corrupted_at(exp, IDS_T, at, vocab=256, seed=3)
        assert masked == there.hidden_T.sum()
        assert int(level.get("data-tokens")) == len(IDS_T)
        hidden = [s.get("title") for s in level.iter("span") if s.get("class") == "sw-mask"]
        true = [chr(i) if i != 32 else "·" for i in IDS_T[there.hidden_T]]
        assert hidden == [f"masked; hides “{letter}”" for letter in true]


@pytest.mark.parametrize("case", MLM)
def test_over_training_the_draws_are_those_of_corrupt_at_that_progress(case):
    exp = MLM[case]
    one_B = np.zeros(1, dtype=np.int64)
    rule = sw.Corruption(exp.objective, 256, 1, 5, schedule=exp.masking.schedule)
    for level, _ in levels_in(mask_preview_html(exp, TEXT, tokenizer=BYTES, seed=5)):
        batch = sw.Batch(IDS_T[None], one_B, one_B, one_B)
        there = sw.corrupt(rule, batch, progress=float(level.get("data-level")))
        spans = [span for span in level.iter("span")]
        random = sum("sw-random" in span.get("class") for span in spans)
        kept = sum("sw-kept" in span.get("class") for span in spans)
        hidden_T = there.input_BT[0].numpy() == 256
        other_T = there.input_BT[0].numpy() != IDS_T
        assert random == (other_T & ~hidden_T).sum()
        assert random + kept + hidden_T.sum() == there.counted_BT.sum()
        assert f"{int(there.counted_BT.sum())} of {len(IDS_T)} tokens are" in words_of(level)


def test_the_masked_part_is_said_in_words_beside_what_was_asked_for():
    level, masked = levels_in(mask_preview_html(TOY, TEXT, tokenizer=BYTES))[1]
    part = round(100 * masked / len(IDS_T), 1)
    said = f"t = 0.5: {masked} of 165 tokens are masked ({part:g} %; the schedule asks for 50 %)."
    assert words_of(level) == said


def test_other_seeds_give_other_masks_and_the_same_seed_the_same():
    first, again, other = (
        mask_preview_html(TOY, TEXT, tokenizer=BYTES, seed=seed) for seed in (0, 0, 1)
    )
    assert first == again != other


def test_time_is_depth_where_there_are_bands():
    exp = DIFFUSION["bands"]
    html = mask_preview_html(exp, TEXT, tokenizer=BYTES)
    bands = sw.stack_bands(exp.masking, 4, exp.objective)
    for level, _ in levels_in(html):
        asked = ratio_at(exp, float(level.get("data-level")))
        (stack,) = [i for i, (low, high) in enumerate(bands) if low < asked <= high]
        path = "s3" if stack == 3 else f"s{stack} to s3"
        assert f"Here s{stack} works: its band is " in words_of(level)
        assert words_of(level).endswith(f"the path is {path}.")
    assert html.count('class="sw-edge"') == 3, "inner edges in the curve"


def test_bands_that_no_stage_carries_are_for_the_grid_to_refuse(monkeypatch):
    monkeypatch.setitem(sw.CURRICULA, "own", lambda exp: [sw.Stage(path=sw.stack_ids(exp.rack))])
    exp = TOY.replace(curriculum="own", masking={"bands": "linear"})
    with pytest.raises(sw.ExperimentError):
        sw.stages(exp)
    assert "Here s3 works" in mask_preview_html(exp, TEXT, tokenizer=BYTES)


@pytest.mark.parametrize("case", [*DIFFUSION, *MLM])
def test_the_curve_is_the_schedule(case):
    exp = (DIFFUSION | MLM)[case]
    html = mask_preview_html(exp, TEXT, tokenizer=BYTES)
    (line,) = re.findall(r'<path class="sw-curve" d="M([^"]+)"', html)
    points = [tuple(map(float, point.split())) for point in line.split("L")]
    (left, bottom), (right, top) = (38.0, 152.0), (232.0, 22.0)
    for x, y in points[:: len(points) // 8]:
        at, ratio = (x - left) / (right - left), (bottom - y) / (bottom - top)
        assert ratio == pytest.approx(ratio_at(exp, min(1, at)), abs=3e-3)
    assert all(a[0] < b[0] for a, b in pairwise(points))
    borders = html.count('class="sw-edge"')
    assert borders == {"ramp": 2, "bands": 3}.get(case, 0)


def test_clm_masks_nothing_and_says_what_is_predicted():
    html = mask_preview_html(TOY.replace(objective="clm"), "Héllo", tokenizer=BYTES)
    ((level, masked),) = levels_in(html)
    assert masked == 0
    assert "0 of 6 tokens are masked" in words_of(level)
    assert "and at the end o, which is never read" in words_of(level)
    assert "".join(level.itertext()).endswith("START→Héllo")


def test_a_character_of_several_bytes_is_shown_whole_or_byte_by_byte():
    exp = TOY.replace(masking={"sampling": "stratified_k"})
    html = mask_preview_html(exp, "日本語", tokenizer=BYTES, levels=(0.0, 0.2, 0.5))
    light, some, _ = (level for level, _ in levels_in(html))
    assert any("日" in t or "本" in t or "語" in t for t in light.find("p[@class]").itertext())
    parts = [span.get("title") for span in some.iter("span") if "part" in span.get("title", "")]
    assert all(re.search(r"[0-9a-f]{2}, part [123] of 3 of “[日本語]”", part) for part in parts)
    assert parts


def test_a_tokenizer_of_ones_own_is_shown_by_its_own_tokens():
    from stackwise.data.library_tokenizer import trained_bpe

    tokenizer = trained_bpe(iter([TEXT + " naïve café 日本"]), 300)
    html = mask_preview_html(TOY, TEXT + "日", tokenizer=tokenizer)
    for level, _ in levels_in(html):
        assert int(level.get("data-tokens")) == len(tokenizer.encode(TEXT + "日"))


def test_long_text_is_cut_and_it_is_said():
    html = mask_preview_html(TOY, "é" * 100_000, tokenizer=BYTES)
    assert "Only the first 200 tokens of 100,000 characters are shown." in html
    assert "In training a sample has 64 tokens; this is longer." in html
    assert all(level.get("data-tokens") == "200" for level, _ in levels_in(html))
    assert len(html) < 120_000
    assert "Only the first" not in mask_preview_html(TOY, "a" * 200, tokenizer=BYTES)


def test_without_text_there_is_a_hint():
    html = mask_preview_html(TOY, "", tokenizer=BYTES)
    assert "Type some text to see what masking makes of it." in html
    assert not levels_in(html)


@pytest.mark.parametrize("level", [-0.1, 1.5, float("nan")])
def test_a_level_outside_is_refused(level):
    with pytest.raises(ValueError, match="must be within 0 and 1"):
        mask_preview_html(TOY, TEXT, tokenizer=BYTES, levels=(level,))


TAGS = {"figure", "figcaption", "div", "p", "span", "wbr", "details", "summary", "table"}
TAGS |= {"caption", "thead", "tbody", "tr", "th", "td", "svg", "path", "circle", "title", "text"}
HOSTILE = st.text(
    st.characters(codec=None)
    | st.sampled_from(list("<>&\"'\x00\x0b\x1f\x7f\u202e\u200b\ufffd\ufffe\ud800\udfff😀é")),
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(HOSTILE, st.sampled_from([TOY, MLM["ramp"], TOY.replace(objective="clm")]))
def test_any_text_at_all_is_escaped(text, exp):
    html = mask_preview_html(exp, text, tokenizer=BYTES)
    root = ElementTree.fromstring(html)
    assert {element.tag.rpartition("}")[2] for element in root.iter()} <= TAGS
    clean = re.sub("[\ud800-\udfff]", "\ufffd", text)
    for level, _ in levels_in(html):
        assert int(level.get("data-tokens")) == min(200, len(clean.encode()))


def test_a_script_stays_text():
    text = "<script>alert('x')</script> & \"quotes\""
    html = mask_preview_html(TOY, text, tokenizer=BYTES, levels=(0.0,))
    assert "<script" not in html
    root = ElementTree.fromstring(html)
    shown = "".join(root.find(".//p[@class='sw-text']").itertext())
    assert shown == text.replace(" ", "·")
