"""One run as one HTML page: no script, no file beside it, nothing that is fetched.

What stands in the run's folder is told in the order in which a reader asks: how it ended, what was
asked, what its stages were, its curves, its memory, its samples, where its numbers come from. A
part that cannot be read says so in its place. All text is escaped; the page follows the reader's
light or dark setting.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import stackwise as sw
from stackwise.atomic import write_text
from stackwise.bounded import read_bytes
from stackwise.determinism import promise_text
from stackwise.objective import is_causal
from stackwise.report import duration
from stackwise.sampling.asked import block_in, method_for
from stackwise.training.start import stages_of
from stackwise_widgets.charts.series import view_of
from stackwise_widgets.charts.still import run_still
from stackwise_widgets.inspection.one_rack import RACK, room_for
from stackwise_widgets.views import CSS as VIEWS
from stackwise_widgets.views import grid_html, rack_html, rack_parts
from stackwise_widgets.views.markup import bytes_said, count_said, escaped, flops_said, said
from stackwise_widgets.views.tables import behind, table_html

if TYPE_CHECKING:
    from stackwise import Run

LOG_LINES, LONGEST = 60, 20_000
SAMPLES, STEPS, HEAT, SMALL_BYTES = 3, 32, 0.7, 64 << 20
TROUBLE = ("failed", "died", "stale", "stopped", "damaged")
LIGHT = {
    "--jp-layout-color0": "#ffffff", "--jp-layout-color1": "#ffffff",
    "--jp-layout-color2": "#f0f0f0", "--jp-ui-font-color1": "#1f1f1f",
    "--jp-ui-font-color2": "#5c5c5c", "--jp-border-color1": "#bdbdbd",
    "--jp-border-color2": "#dcdcdc",
}  # fmt: skip
DARK = {
    "--jp-layout-color0": "#161616", "--jp-layout-color1": "#161616",
    "--jp-layout-color2": "#2b2b2b", "--jp-ui-font-color1": "#e6e6e6",
    "--jp-ui-font-color2": "#a8a8a8", "--jp-border-color1": "#5a5a5a",
    "--jp-border-color2": "#3d3d3d",
}  # fmt: skip


def _variables(values: dict[str, str]) -> str:
    return " ".join(f"{name}: {value};" for name, value in values.items())


CSS = f"""
:root {{ color-scheme: light dark; {_variables(LIGHT)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_variables(DARK)} }} }}
body {{ margin: 0; background: var(--jp-layout-color0); color: var(--jp-ui-font-color1);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; }}
main {{ max-width: 1040px; margin: 0 auto; padding: 24px 20px 60px; }}
h1 {{ font-size: 24px; margin: 0 0 4px; overflow-wrap: anywhere; }}
h2 {{ font-size: 17px; margin: 34px 0 8px; }}
pre {{ background: var(--jp-layout-color2); padding: 10px 12px; overflow: auto; max-height: 480px;
  font: 12.5px/1.5 ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; }}
.sw-sample {{ white-space: pre-wrap; overflow-wrap: anywhere; max-height: none; }}
.sw-chart {{ background: #fff; width: 100%; max-width: 900px; height: auto; border-radius: 3px; }}
.sw-trouble {{ border-left: 6px solid #d55e00; padding: 4px 14px; margin: 14px 0; }}
.sw-facts {{ display: flex; flex-wrap: wrap; gap: 10px 36px; margin: 16px 0; padding: 0; }}
.sw-facts div {{ min-width: 110px; }}
.sw-facts dt {{ color: var(--jp-ui-font-color2); font-size: 13px; }}
.sw-facts dd {{ margin: 0; font-size: 19px; font-variant-numeric: tabular-nums; }}
.sw-lacks {{ color: var(--jp-ui-font-color2); border-left: 3px solid #d55e00; padding-left: 10px; }}
footer {{ margin-top: 40px; color: var(--jp-ui-font-color2); font-size: 13px; }}
"""


def write_page(run: Run, path: str | Path) -> Path:
    """Write one run as one HTML page that stands alone.

    Args:
        run: Of `sw.attach`; finished, going on, or damaged.
        path: The file; one that is there is replaced.

    Returns:
        The file.

    Raises:
        OSError: If it cannot be written.
    """
    target = Path(path)
    write_text(target, page_html(run))
    return target


def page_html(run: Run) -> str:
    """The page as text."""
    name = run.labels.name or run.id
    parts = [
        ("", lambda: _head(run, name)),
        ("Stages", lambda: _grid(run)),
        ("Curves", lambda: _chart(run)),
        ("Memory", lambda: _memory(run)),
        ("Rack", lambda: rack_html(rack_parts(run))),
        ("Samples", lambda: _samples(run)),
        ("What was asked", lambda: _yaml(run)),
        ("Where the numbers come from", lambda: _provenance(run)),
    ]
    body = "".join(_part(title, make) for title, make in parts)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'; img-src data:\"/>"
        f"<title>{escaped(name)}</title><style>{VIEWS}{CSS}</style></head>"
        f"<body><main>{body}<footer>Made by StackWise from the run's folder; the whole of it "
        f"can be had as a zip.</footer></main></body></html>\n"
    )


def _part(title: str, make: Callable[[], str]) -> str:
    """One part of the page; what cannot be read is said in its place."""
    head = f"<h2>{escaped(title)}</h2>" if title else ""
    try:
        inside = make()
    except Exception as error:  # of a damaged folder the rest is shown all the same
        text = f"{type(error).__name__}: {error}"
        return f'<section>{head}<p class="sw-lacks">{escaped(text)}</p></section>'
    return f"<section>{head}{inside}</section>" if inside else ""


def _head(run: Run, name: str) -> str:
    """Name, state, what it came to, what went wrong, and the note."""
    labels, state = run.labels, run.state
    tags = "".join(f" · {escaped(tag)}" for tag in labels.tags)
    facts = "".join(
        f"<div><dt>{escaped(word)}</dt><dd>{escaped(value)}</dd></div>"
        for word, value in _facts(run)
    )
    note = f"<p>{escaped(labels.note)}</p>" if labels.note else ""
    return (
        f'<h1>{escaped(name)}</h1><p class="sw-note">{escaped(run.id)} · {escaped(state)}{tags}</p>'
        f'{note}{_trouble(run, state)}<dl class="sw-facts">{facts}</dl>'
    )


def _facts(run: Run) -> Iterator[tuple[str, str]]:
    """What the run came to, as far as it is known."""
    found = run.summary()
    stages, done = found["stages"], None
    if found["state"] == "finished":
        done = stages
    elif found["stage"] is not None:
        done = found["stage"]
    yield "bits per byte", said(found["bits_per_byte"], lambda value: f"{value:.4f}")
    if found["bits_per_byte"] is None and found["loss"] is not None:
        yield "last training loss", f"{found['loss']:.4f}"
    yield "FLOPs", flops_said(found["flops"])
    yield "parameters", count_said(found["parameters"])
    yield "peak memory", bytes_said(found["peak_bytes"])
    yield "time in steps", said(found["seconds"], duration)
    yield "disk", disk_said(found)
    if done is not None:
        yield "stages done", f"{done} of {stages}"


def disk_said(found: Mapping[str, Any]) -> str:
    """What a run's folder takes, beside the most that was predicted."""
    most = found["disk_predicted_bytes"]
    predicted = "" if most is None else f", {bytes_said(most)} at most predicted"
    return f"{bytes_said(found['disk_bytes'])} now{predicted}"


def _trouble(run: Run, state: str) -> str:
    """Of a run that did not end well: why, its last lines, what to do."""
    why = run.error()
    if state not in TROUBLE and why is None:
        return ""
    now, lines = run.what_now(), run.log(LOG_LINES)
    log = f"<pre>{escaped(chr(10).join(lines))}</pre>" if lines else ""
    out = f"<p><strong>{escaped(why or state)}</strong></p>"
    out += f"<p>{escaped(now)}</p>" if now else ""
    return f'<div class="sw-trouble" role="alert">{out}{log}</div>'


def _grid(run: Run) -> str:
    """Stages by stacks, as they are executed."""
    placement = sw.Placement.load(run.path / "placement.yaml")
    return grid_html(run.experiment, placement, stages_of(run), run.plan())


def _chart(run: Run) -> str:
    """The run's four panels as a picture, and its looks as a table."""
    view = view_of(run)
    data = base64.b64encode(run_still(view)._repr_png_()).decode()
    words = f"masked fraction, loss, layers by steps and memory of run {view.id}"
    image = f'<img class="sw-chart" alt="{escaped(words)}" src="data:image/png;base64,{data}"/>'
    rows = [
        [stage, f"{step:g}", f"{loss:.4f}"]
        for step, stage, loss in _looks(run)
        if math.isfinite(loss)
    ]
    table = table_html(["stage", "step", "nats per token"], rows, "Held-out loss at every look")
    return image + behind("Held-out loss as a table", table)


def _looks(run: Run) -> Iterator[tuple[float, int, float]]:
    frame = run.evals()
    for row in frame.itertuples():
        yield float(row.step), int(row.stage), float(row.loss)


def _memory(run: Run) -> str:
    """Predicted and measured bytes of each stage, by category."""
    frame = run.memory()
    if frame.empty:
        return ""
    kinds = list(dict.fromkeys(frame["category"]))
    rows = []
    for (stage, name), part in frame.groupby(["stage", "name"], sort=False):
        for which in ("predicted", "measured"):
            found = dict(zip(part["category"], part[which], strict=True))
            rows.append([f"{stage}, {name}", which, *(_bytes(found.get(kind)) for kind in kinds)])
    table = table_html(["stage", "", *kinds], rows, "Bytes by category; a dash: not known")
    return f'<div class="sw-scroll">{table}</div>'


def _bytes(count: float | None) -> str:
    return "-" if count is None or not math.isfinite(count) else bytes_said(count)


def _samples(run: Run) -> str:
    """Texts that the rack writes now, always the same; of a large rack none, as that is slow."""
    if not run.has_weights() or room_for(run).bytes > SMALL_BYTES:
        return ""
    causal, length = is_causal(run.experiment.objective), min(run.experiment.data.seq_len, 128)
    tokenizer = run.tokenizer()
    with RACK.open(run) as rack:
        each = causal or block_in(rack.objective, length) is not None  # a step for each token
        method = method_for(rack, None, block_in(rack.objective, length))
        found_BT = sw.sample_ids(rack, np.empty((SAMPLES, 0), np.int64), length=length,
                                 method=method, steps=None if each else STEPS,
                                 temperature=HEAT)  # fmt: skip
    texts = [tokenizer.decode(ids_T) for ids_T in found_BT.numpy()]
    how = f"{length} tokens each, {method.choice}, temperature {HEAT:g}"
    how += "" if each else f", {STEPS} steps"
    shown = "".join(f'<pre class="sw-sample">{escaped(text)}</pre>' for text in texts)
    return f'<p class="sw-note">{escaped(how)}</p>{shown}'


def _yaml(run: Run) -> str:
    """The experiment and its placement, as they were written down."""
    out = []
    for file in ("experiment.yaml", "placement.yaml"):
        text = read_bytes(run.path / file).decode("utf-8", errors="replace")
        cut = text if len(text) <= LONGEST else f"{text[:LONGEST]}\n…"
        out.append(f'<p class="sw-note">{file}</p><pre>{escaped(cut)}</pre>')
    return "".join(out)


def _provenance(run: Run) -> str:
    """Whether its bits come again; versions, machine, seeds, data as provenance.json says."""
    rows = [[key, value] for key, value in _flat(run.provenance())]
    table = table_html(["what", "value"], rows, "provenance.json")
    promise = promise_text(run.determinism())
    note = escaped(f"{promise[:1].upper()}{promise[1:]}.")
    return f'<p class="sw-note">{note}</p><div class="sw-scroll">{table}</div>'


def _flat(values: dict[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        name = f"{before}{key}"
        if isinstance(value, dict):
            yield from _flat(value, f"{name}.")
        else:
            text = "none" if value is None else str(value)
            yield name, text if len(text) <= 400 else f"{text[:400]}…"
