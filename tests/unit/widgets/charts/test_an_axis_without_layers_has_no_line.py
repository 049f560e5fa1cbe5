"""Before the first look there are no layers; plotly would draw their axis from NaN to NaN."""

from __future__ import annotations

import stackwise as sw
from stackwise_widgets.charts import run_figure, view_of


def test_before_the_first_look_the_axis_has_no_line(tmp_path) -> None:
    exp = sw.Experiment(
        title="tiny",
        rack={"stacks": 2, "blocks_per_stack": 1, "d_model": 16, "heads": 2},
        data={"corpus": {"kind": "markov", "size_bytes": 40_000}, "seq_len": 16},
        optim={"batch": 4},
        budget={"tokens": 64_000},
        eval={"points": 1, "windows": 8},
    )

    def stop(work, numbers) -> None:
        work.stop_requested = work.at.total_steps == 3

    run = sw.train(exp, sw.Placement(runs_dir=str(tmp_path), device="cpu"), on_step=stop)
    view = view_of(run)
    assert view.step == 3 and view.exits is None
    assert run_figure(view).layout.yaxis3.showline is False
    assert run_figure(view, heat="grad_norm").layout.yaxis3.showline is True
