"""A tick sends what changed, thinned out, never more than 200 kB, and twice a second at most."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from stackwise.runs import RunWriter, make_run
from stackwise_widgets.charts import LiveChart, Reader, run_figure, view_of
from stackwise_widgets.charts.live import unpacked

STACKS, EACH, STEPS = 16, 5, 2000
MOST_BYTES = 200_000


class Page:
    """What a browser would be sent."""

    comm_id = "page"

    def __init__(self) -> None:
        self.bytes, self.kinds = 0, []

    def send(self, data=None, metadata=None, buffers=None) -> None:
        # Jupyter's own encoder refuses NaN; so does this one.
        self.bytes += len(json.dumps(data, allow_nan=False))
        self.bytes += sum(memoryview(buffer).nbytes for buffer in buffers or ())
        self.kinds += [key for key in data.get("state", {}) if key.startswith("_py2js")]

    def on_msg(self, call) -> None:
        pass

    def close(self, *args, **more) -> None:
        pass

    def taken(self) -> int:
        was, self.bytes, self.kinds = self.bytes, 0, []
        return was


def opened(chart: LiveChart) -> Page:
    page = Page()
    chart.figure.comm = page
    return page


@pytest.fixture
def large(tmp_path, asked):
    """80 layers in 16 stages, 2000 steps, and a look after every one of them."""
    ids = [f"s{n}" for n in range(STACKS)]
    stages = [
        {"name": f"a stage called s{n}", "path": ids[: n + 1], "active": [ids[n]],
         "band": [n / STACKS, (n + 1) / STACKS], "tokens": STEPS // STACKS * 16}
        for n in range(STACKS)
    ]  # fmt: skip
    kinds = dict.fromkeys(("weights", "gradients", "optimizer", "average", "activations"), 1 << 33)
    plan = [{"stage": n, "name": "", "flops": 1e18, "bytes": {**kinds, "total": 5 << 33}}
            for n in range(STACKS)]  # fmt: skip
    exp = asked(rack={"stacks": STACKS, "blocks_per_stack": EACH}, eval={"points": STEPS})
    run = make_run(tmp_path, "large", experiment=exp.to_yaml(), placement="", stages=stages,
                   plan=plan, facts={})  # fmt: skip
    draw = np.random.default_rng(0)
    with RunWriter(run.path) as writer:
        for step in range(1, STEPS + 1):
            at = (step - 1) * STACKS // STEPS
            place = {"step": step, "stage": at, "tokens": step * 16, "flops": step * 1e17,
                     "seconds": step * 1.5}  # fmt: skip
            writer.metric({**place, "loss": draw.random(), "lr": draw.random(),
                           "masked_frac": draw.random(), "embedding_grad_norm": 1.0,
                           "block_grad_norms": draw.random(STACKS * EACH).tolist()})  # fmt: skip
            exits = draw.random(1 + EACH * (at + 1)).tolist()
            writer.event("eval", **place, loss=exits[-1], exit_losses=exits)
            if step % (STEPS // STACKS) == 0:
                writer.event("memory", stage=at, **kinds, peak=6 << 33)
        writer.event("result", bits_per_byte=1.0)
    return run


def test_no_tick_of_80_layers_and_2000_steps_sends_more_than_200_kb(large, made, asked) -> None:
    exp = asked(rack={"stacks": STACKS, "blocks_per_stack": EACH})
    chart = LiveChart(view_of(made(exp=exp)))
    page, view = opened(chart), view_of(large)
    assert view.exits is not None and view.exits.value.shape == (81, 192)
    assert len(view.loss.value) <= 2000
    assert chart.update(view)  # all of the run in one tick
    sizes = {"all": page.taken()}
    for unit in ("flops", "tokens", "seconds", "steps"):
        chart.x = unit
        sizes[unit] = page.taken()
    chart.heat = "grad_norm"
    sizes["grad_norm"] = page.taken()
    assert 60_000 < sizes["all"] < MOST_BYTES and max(sizes.values()) < MOST_BYTES, sizes


def test_a_tick_without_a_look_sends_no_matrix(made, attempt) -> None:
    run = made(steps=(6, 40))
    writer = attempt(run, 1, 8, close=None)
    writer.flush()
    reader = Reader(run)
    chart = LiveChart(reader.read())
    page = opened(chart)
    writer.metric({"step": 9, "stage": 1, "loss": 1.0, "tokens": 144, "flops": 9e9, "seconds": 4.5})
    writer.flush()
    before = chart.figure.data[chart.names.index("heat")].z
    assert chart.update(reader.read(), now=1e9)
    assert chart.figure.data[chart.names.index("heat")].z is before
    assert page.kinds.count("_py2js_update") == 2  # one message, and then nothing, so that it goes
    assert page.taken() < 3000
    writer.close("stopped")


def test_what_is_sent_is_what_a_plain_figure_draws(shipped) -> None:
    view = view_of(shipped["right_to_left"])
    chart = LiveChart(view_of(shipped["grow"]))
    opened(chart)
    assert chart.update(view)
    for heat in ("exit_loss", "grad_norm"):
        chart.heat = heat
        plain = run_figure(view, heat=heat)
        assert len(plain.data) == len(chart.figure.data)
        for mine, theirs in zip(chart.figure.data, plain.data, strict=True):
            assert mine.name == theirs.name
            for key in ("x", "y"):
                a, b = np.asarray(mine[key]), np.asarray(theirs[key])
                if b.dtype.kind == "f":
                    np.testing.assert_array_equal(a, b.astype(np.float32))
                else:
                    assert a.tolist() == b.tolist()
            if mine.type == "heatmap":
                np.testing.assert_array_equal(unpacked(mine.z), theirs.z.astype(np.float32))
        mine, theirs = chart.figure.layout.to_plotly_json(), plain.layout.to_plotly_json()
        mine.pop("template"), theirs.pop("template")
        assert mine == theirs


def test_it_draws_twice_a_second_at_most_and_the_end_at_once(shipped) -> None:
    view = replace(view_of(shipped["grow"]), state="running", version=1)
    chart = LiveChart(view)
    assert not chart.update(view, now=0.0)  # nothing is new
    assert chart.update(replace(view, step=2, version=2), now=10.0)
    assert not chart.update(replace(view, step=3, version=3), now=10.49)
    assert chart.view.step == 2
    assert chart.update(replace(view, step=3, version=3), now=10.5)
    assert chart.update(replace(view, state="finished", version=4), now=10.6)
    assert chart.view.state == "finished"


def test_the_axis_and_the_matrix_can_be_switched(shipped) -> None:
    view = view_of(shipped["grow"])
    chart = LiveChart(view)
    chart.x = "flops"
    assert chart.figure.layout.xaxis.title.text == "FLOPs spent on training, head included"
    held = chart.figure.data[chart.names.index("heldout")]
    np.testing.assert_array_equal(held.x, view.heldout.at.flops.astype(np.float32))
    low, high = chart.figure.layout.xaxis.range
    assert low == 0 and high == pytest.approx(1.004 * view.stages[-1].end["flops"])
    chart.heat = "grad_norm"
    bar = chart.figure.data[chart.names.index("heat")].colorbar
    assert (bar.title.text, bar.tickprefix) == ("norm", "10<sup>")
    assert (chart.x, chart.heat) == ("flops", "grad_norm")
    with pytest.raises(ValueError) as error:
        chart.x = "hours"
    assert str(error.value) == "x: 'hours' is not one of steps, tokens, flops, seconds"


def test_a_run_that_has_only_begun_can_be_drawn(made) -> None:
    view = view_of(made())
    chart = LiveChart(view)
    assert chart.figure.layout.xaxis.range == (0, 10.04)
    assert all(math.isnan(y) for y in chart.figure.data[chart.names.index("loss")].y)
