"""The style of the pictures of a step; the rest of the sheet is in `style.py`."""

from __future__ import annotations

from stackwise_widgets.views.style import FAINT, FONT, INK, LINE, MONO, PAGE, PALETTE, SHADE, THIN

FLOW = PALETTE["vermilion"]

STEP_CSS = f"""
.sw-step-box {{ stroke: {LINE}; stroke-width: 1; }}
.sw-step-given {{ fill: {PAGE}; }}
.sw-step-active {{ fill: {PALETTE["blue"]}; stroke: {PALETTE["blue"]}; }}
.sw-step-trunk {{ fill: {SHADE}; }}
.sw-step-suffix, .sw-step-passed {{ fill: {PALETTE["sky"]}; fill-opacity: 0.22; }}
.sw-svg text.sw-step-small {{ font-size: 10.5px; }}
.sw-svg text.sw-strong {{ font-size: 12px; }}
.sw-step-now {{ fill: none; stroke: {INK}; stroke-width: 2.5; }}
.sw-step-here {{ fill: {INK}; }}
.sw-step-w {{ fill: {PAGE}; stroke: {LINE}; stroke-dasharray: 2 2; }}
.sw-step-w-active {{ fill: {PAGE}; stroke: {PAGE}; }}
.sw-step-forward {{ stroke: {INK}; stroke-width: 2; fill: none; }}
.sw-step-forward-tip {{ fill: {INK}; }}
.sw-step-waits {{ stroke: {LINE}; stroke-width: 1; fill: none; }}
.sw-step-waits-tip {{ fill: {LINE}; }}
.sw-flow, .sw-flow-line {{ stroke: {FLOW}; stroke-width: 3; fill: none; }}
.sw-flow-tip {{ fill: {FLOW}; }}
.sw-flow-to-come {{ stroke-width: 1.5; stroke-dasharray: 3 4; }}
.sw-flow-tip.sw-flow-to-come {{ stroke: none; }}
.sw-flow-end {{ stroke: {FLOW}; stroke-width: 4; fill: none; }}
.sw-phases {{ display: flex; flex-wrap: wrap; gap: 4px; margin: 0 0 8px; padding: 0;
  list-style: none; font: 12px/1.4 {FONT}; }}
.sw-phases li {{ padding: 2px 8px; border: 1px solid {THIN}; border-radius: 10px; color: {FAINT}; }}
.sw-phases li.sw-past {{ color: {INK}; border-color: {LINE}; background: {SHADE}; }}
.sw-phases li[aria-current] {{ color: {PAGE}; background: {INK}; border-color: {INK};
  font-weight: 600; }}
.sw-told {{ font: 14px/1.5 {FONT}; color: {INK}; margin: 0 0 6px; min-height: 3em; }}
.sw-strip {{ display: flex; flex-wrap: wrap; gap: 3px 0; font: 13px/1.3 {MONO}; }}
.sw-cell-token {{ display: inline-flex; flex-direction: column; align-items: center;
  min-width: 1.15ch; }}
.sw-cell-token > b {{ font-weight: 400; white-space: pre; padding: 0 0.5px; }}
.sw-cell-token > small {{ font: 9px/1.1 {FONT}; color: {INK}; min-height: 10px;
  padding: 0 1.5px; }}
.sw-cell-token.sw-hidden > b {{ border: 1px solid {INK}; border-radius: 2px; min-width: 1.5ch;
  text-align: center; margin: 0 1.5px; background: {SHADE}; }}
.sw-cell-token.sw-counted > b {{ border-bottom: 2px solid {PALETTE["blue"]}; margin: 0 1.5px; }}
.sw-cell-token.sw-counted.sw-hidden > b {{ border: 1px solid {INK}; }}
.sw-cell-token.sw-right > b {{ border-width: 2.5px; border-color: {PALETTE["green"]};
  font-weight: 700; }}
.sw-loss-1 > b {{ background: rgba(213, 94, 0, 0.14) !important; }}
.sw-loss-2 > b {{ background: rgba(213, 94, 0, 0.32) !important; }}
.sw-loss-3 > b {{ background: rgba(213, 94, 0, 0.55) !important; }}
.sw-gradient-bar {{ fill: {FLOW}; }}
.sw-moved-bar {{ fill: {PALETTE["blue"]}; }}
.sw-memory-bar {{ fill: {PALETTE["purple"]}; }}
.sw-loss-line {{ fill: none; stroke: {PALETTE["blue"]}; stroke-width: 2; }}
.sw-loss-dot {{ fill: {PALETTE["blue"]}; }}
.sw-why {{ border-left: 3px solid {PALETTE["green"]}; padding: 0 0 0 10px; margin: 8px 0; }}
.sw-why h4 {{ margin: 0 0 2px; font: 600 13px/1.4 {FONT}; }}
.sw-why p {{ margin: 0; max-width: 80ch; }}
.sw-view h4 {{ margin: 0 0 4px; font: 600 12.5px/1.4 {FONT}; color: {INK}; }}
.sw-teach-controls {{ display: flex; flex-flow: row wrap; gap: 4px 6px; align-items: center; }}

.sw-teach .sw-view {{ background: transparent; }}
.sw-teach .sw-table :is(th, td, caption) {{ white-space: normal; }}
.sw-teach .sw-quiet {{ line-height: 1.4; margin: 2px 0; }}
.sw-teach-controls {{ padding: 0 0 8px; overflow: visible; }}
.sw-teach-numbers {{ display: flex; flex-flow: row wrap; gap: 6px 22px; align-items: flex-start; }}
.sw-teach-numbers > * {{ flex: 1 1 320px; max-width: 430px; min-width: 0; }}
"""
