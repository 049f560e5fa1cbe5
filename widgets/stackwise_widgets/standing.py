"""How a run stands, as HTML: its state in words, how far it is, and what to do if it is stuck."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from stackwise.report import duration
from stackwise.runs.control import orders
from stackwise.runs.standing import LIVE
from stackwise_widgets.views.markup import escaped

if TYPE_CHECKING:
    import stackwise as sw
    from stackwise_widgets.charts import RunView

ASKED = {
    "pause": "asked to pause after the step in hand",
    "stop": "asked to stop after the step in hand, and to save",
    "stop-now": "asked to stop now",
    "resume": "asked to go on",
}
PRESSED = {
    "stopped": "Go on continues it from where it was saved.",
    "died": "Go on continues it from its last checkpoint.",
    "failed": "Mend what it says, then Go on continues it from its last checkpoint.",
    "stale": "Wait, or Stop now ends it.",
    "paused": "Go on lets it train on.",
}
LOG_LINES = 40


def standing_html(run: sw.Run, view: RunView) -> str:
    """The state of a run, what it was asked for, and its progress, stage by stage."""
    labels = run.labels
    name = f"{labels.name} ({run.id})" if labels.name else run.id
    lines = [
        f'<div class="sw-said"><strong>{escaped(name)}</strong>: '
        f'<span class="sw-state" role="status">{escaped(state_text(run, view))}</span></div>',
        progress_html(view),
    ]
    if view.problem:
        lines.append(f'<p class="sw-error" role="alert">{escaped(view.problem)}</p>')
    return "".join(lines) + trouble_html(run, view.state)


def state_text(run: sw.Run, view: RunView) -> str:
    """One line: the state, how far it is, how long it will take."""
    said, status = [view.state], run.status() if view.state != "damaged" else {}
    if view.state == "queued":
        said.append(f"waits for {', '.join(map(str, status.get('waits_for', ())))}")
    if view.state in LIVE:
        taken = (status.get(key) or 0 for key in ("obeyed", "heard"))  # or of an earlier attempt
        pending = orders(run.path, max(map(int, taken)))
        said += [ASKED[order.command] for order in pending[-1:]]
    if view.total_steps:
        said.append(f"step {view.step} of {view.total_steps}")
    if view.state == "running" and view.seconds_left is not None:
        said.append(f"{duration(view.seconds_left)} left")
    bits = view.result.get("bits_per_byte")
    if isinstance(bits, float):
        said.append(f"{bits:.3f} bits per byte held-out")
    return ", ".join(said)


def progress_html(view: RunView) -> str:
    """A bar for each stage, as wide as the part of all steps that it is."""
    total = view.total_steps or 0
    parts = []
    for stage in view.stages:
        begin, end = stage.begin["steps"], stage.end["steps"]
        if not (total and math.isfinite(begin) and math.isfinite(end) and end > begin):
            continue
        done = min(1.0, max(0.0, (view.step - begin) / (end - begin)))
        left = "" if stage.seconds_left is None else f", {duration(stage.seconds_left)} left"
        said = f"stage {stage.number} {stage.name}: {done:.0%}{left}"
        parts.append(
            f'<div class="sw-stage-bar" style="flex:{(end - begin) / total:.4f} 1 0" '
            f'title="{escaped(said)}"><div style="width:{done:.1%}"></div></div>'
        )
    done = view.step / total if total else 0.0
    here = next((s for s in view.stages if s.state == "running"), None)
    said = f"{done:.0%} in all" + (
        f"; stage {here.number} {here.name}"
        + ("" if here.seconds_left is None else f", {duration(here.seconds_left)} left in it")
        if here
        else ""
    )
    return (
        f'<div class="sw-progress" role="progressbar" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{100 * done:.0f}" aria-label="steps of the run">{"".join(parts)}</div>'
        f'<div class="sw-quiet">{escaped(said)}</div>'
    )


def trouble_html(run: sw.Run, state: str) -> str:
    """Of a run that is stuck or ended badly: why, its last lines, and the way out."""
    why, way, pressed = run.error(), run.what_now(), PRESSED.get(state)
    if way is None and why is None:
        return ""
    parts = []
    if why is not None:
        parts.append(f"<p><strong>{escaped(state)}</strong>: {escaped(why)}</p>")
    if pressed is not None:
        parts.append(f"<p>{escaped(pressed)}</p>")
    if way is not None:
        parts.append(f'<p class="sw-quiet">In code or on a terminal: {escaped(way)}</p>')
    log = run.log(LOG_LINES)
    if log and state in ("failed", "died", "stale"):
        parts.append(
            f'<details><summary>its last lines</summary><pre class="sw-log">'
            f"{escaped(chr(10).join(log))}</pre></details>"
        )
    grave = state in ("failed", "died", "stale", "damaged")
    kind = 'class="sw-error" role="alert"' if grave else 'class="sw-said"'
    return f"<div {kind}>{''.join(parts)}</div>"
