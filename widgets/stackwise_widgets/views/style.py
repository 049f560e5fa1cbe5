"""The style sheet of the pictures: light, dark and plain pages, and the palette of Okabe and Ito.

Surfaces and text take the page's own colours (`--jp-...`), with fallbacks for pages without them.
Colours that carry meaning are the palette's and never carry it alone: each state has a hatch, a
letter or a word too.
"""

from __future__ import annotations

PALETTE: dict[str, str] = {
    "blue": "#0072B2",
    "vermilion": "#D55E00",
    "green": "#009E73",
    "purple": "#CC79A7",
    "orange": "#E69F00",
    "sky": "#56B4E9",
    "yellow": "#F0E442",
    "grey": "#8C8C8C",
}

INK = "var(--jp-ui-font-color1, #1f1f1f)"
FAINT = "var(--jp-ui-font-color2, #5c5c5c)"
PAGE = "var(--jp-layout-color1, #ffffff)"
SHADE = "var(--jp-layout-color2, #ededed)"
LINE = "var(--jp-border-color1, #bdbdbd)"
THIN = "var(--jp-border-color2, #dcdcdc)"
FONT = (
    "var(--jp-ui-font-family, system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif)"
)
MONO = "var(--jp-code-font-family, ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace)"

CSS = f"""
.sw-view {{ margin: 0 0 12px; color: {INK}; background: {PAGE}; font: 13px/1.45 {FONT}; }}
.sw-view figcaption, .sw-lead {{ margin: 0 0 6px; }}
.sw-view p {{ margin: 4px 0; }}
.sw-view ul {{ margin: 4px 0; padding-left: 20px; }}
.sw-note {{ color: {FAINT}; }}
.sw-scroll {{ overflow-x: auto; }}
.sw-svg {{ display: block; width: 100%; min-width: 640px; height: auto; font-family: {FONT}; }}
.sw-svg.sw-small {{ min-width: 0; }}
.sw-svg text {{ fill: {INK}; font-size: 11px; }}
.sw-svg text.sw-faint {{ fill: {FAINT}; font-size: 10px; }}
.sw-svg text.sw-strong {{ font-weight: 600; }}
.sw-svg text.sw-on {{ fill: #ffffff; }}
.sw-svg text.sw-on.sw-faint {{ fill: #ffffff; }}
.sw-line-trunk {{ stroke: {FAINT}; stroke-width: 1; fill: none; }}
.sw-line-suffix {{ stroke: {PALETTE["sky"]}; stroke-width: 1.4; fill: none; }}
.sw-line-adapter {{ stroke: {PALETTE["purple"]}; stroke-width: 1.4; fill: none; }}
.sw-line-drawn {{ fill: #ffffff; }}
.sw-line-over {{ stroke: {PALETTE["vermilion"]}; stroke-width: 0.8; stroke-opacity: 0.4;
  fill: none; }}
.sw-cell {{ stroke: {PAGE}; stroke-width: 1; }}
.sw-dense .sw-cell {{ stroke-width: 0.4; }}
.sw-absent, .sw-held {{ fill: {PAGE}; }}
.sw-active {{ fill: {PALETTE["blue"]}; }}
.sw-trunk {{ fill: {SHADE}; }}
.sw-suffix {{ fill: {PALETTE["sky"]}; fill-opacity: 0.22; }}
.sw-adapter {{ fill: {PALETTE["purple"]}; fill-opacity: 0.22; }}
.sw-done {{ fill: #00664a; }}
.sw-new {{ fill: {PALETTE["orange"]}; stroke: {PAGE}; stroke-width: 0.6; }}
.sw-dense .sw-done {{ fill: #00664a; }}
.sw-new {{ stroke: none; }}
.sw-mark {{ pointer-events: none; }}
.sw-rule {{ stroke: {LINE}; stroke-width: 1; fill: none; }}
.sw-thin {{ stroke: {THIN}; stroke-width: 0.6; fill: none; pointer-events: none; }}
.sw-track {{ fill: {SHADE}; }}
.sw-amount {{ fill: {FAINT}; fill-opacity: 0.5; }}
.sw-noise {{ fill: {PALETTE["purple"]}; }}
.sw-bar {{ stroke: {PAGE}; stroke-width: 0.5; }}
.sw-svg text.sw-on-bar {{ fill: #1f1f1f; }}
.sw-svg text.sw-on-bar.sw-on {{ fill: #ffffff; }}
.sw-weights {{ fill: {PALETTE["blue"]}; }}
.sw-gradients {{ fill: {PALETTE["vermilion"]}; }}
.sw-optimizer {{ fill: {PALETTE["green"]}; }}
.sw-average {{ fill: {PALETTE["purple"]}; }}
.sw-activations {{ fill: {PALETTE["orange"]}; }}
.sw-temporaries {{ fill: {PALETTE["sky"]}; }}
.sw-other {{ fill: {PALETTE["grey"]}; }}
.sw-card {{ stroke: {PALETTE["vermilion"]}; stroke-width: 1.6; stroke-dasharray: 5 3; fill: none; }}
.sw-error {{ stroke: {INK}; stroke-width: 1; fill: none; }}
.sw-hit {{ fill: transparent; }}
.sw-legend {{ display: flex; flex-wrap: wrap; gap: 2px 16px; margin: 6px 0; padding: 0;
  list-style: none; font-size: 12px; }}
.sw-view ul.sw-legend {{ padding: 0; }}
.sw-legend li {{ display: flex; align-items: center; gap: 6px; }}
.sw-legend svg {{ flex: none; }}
.sw-legend text {{ font: 600 10px {FONT}; fill: {INK}; }}
.sw-legend text.sw-on {{ fill: #ffffff; }}
.sw-behind {{ margin: 6px 0; font-size: 12px; }}
.sw-behind summary {{ cursor: pointer; color: {FAINT}; }}
.sw-table {{ border-collapse: collapse; margin: 6px 0 12px; font-size: 12px; color: {INK};
  font-variant-numeric: tabular-nums; }}
.sw-table caption {{ text-align: left; color: {FAINT}; padding: 2px 0; white-space: nowrap; }}
.sw-table th, .sw-table td {{ padding: 2px 10px 2px 0; border-bottom: 1px solid {THIN};
  text-align: left; vertical-align: top; white-space: nowrap; }}
.sw-table th {{ font-weight: 600; }}
.sw-sums {{ display: grid; grid-template-columns: max-content 1fr; gap: 2px 14px; margin: 8px 0; }}
.sw-sums dt {{ color: {FAINT}; }}
.sw-sums dd {{ margin: 0; }}
.sw-verdict {{ font-weight: 600; }}
.sw-verdict::before {{ display: inline-block; width: 1.2em; }}
.sw-fits::before {{ content: "\\2713"; color: {PALETTE["green"]}; }}
.sw-not::before {{ content: "\\00d7"; color: {PALETTE["vermilion"]}; }}
.sw-level {{ margin: 8px 0; padding: 0 0 0 10px; border-left: 3px solid {PALETTE["purple"]}; }}
.sw-text {{ font: 13px/1.75 {MONO}; overflow-wrap: anywhere; }}
.sw-token {{ unicode-bidi: isolate; white-space: pre; }}
.sw-blank {{ color: {FAINT}; opacity: 0.7; }}
.sw-part {{ font-size: 10px; color: {FAINT}; border: 1px solid {THIN}; border-radius: 2px;
  padding: 0 1px; margin: 0 1px; }}
.sw-mask {{ display: inline-block; box-sizing: border-box; min-width: 1ch; height: 1.25em;
  vertical-align: -0.25em; margin: 0 0.5px; border: 1px solid {INK}; border-radius: 2px;
  background: {SHADE}; color: transparent; overflow: hidden; }}
.sw-random {{ border-bottom: 2px wavy {PALETTE["vermilion"]}; text-decoration:
  underline wavy {PALETTE["vermilion"]} 1px; }}
.sw-kept {{ text-decoration: underline dotted {PALETTE["blue"]} 2px; }}
.sw-curve {{ fill: none; stroke: {PALETTE["purple"]}; stroke-width: 2; }}
.sw-dot {{ fill: {PAGE}; stroke: {PALETTE["purple"]}; stroke-width: 2; }}
.sw-edge {{ stroke: {FAINT}; stroke-width: 0.8; stroke-dasharray: 2 3; fill: none; }}
.sw-seen {{ fill: {PALETTE["blue"]}; }}
.sw-unseen {{ fill: {SHADE}; }}
.sw-grid-lines {{ stroke: {PAGE}; stroke-width: 0.8; fill: none; pointer-events: none; }}
.sw-pattern {{ width: 238px; }}
.sw-side {{ display: flex; flex-wrap: wrap; gap: 8px 24px; align-items: flex-start; }}
.sw-side > div {{ flex: 1 1 280px; min-width: 0; }}
.sw-curve-box {{ width: 300px; }}
.sw-side > .sw-fixed {{ flex: 0 0 auto; }}
"""


def styled(picture: str) -> str:
    """A picture with its style sheet before it, for a page that has none."""
    return f"<style>{CSS}</style>{picture}"
