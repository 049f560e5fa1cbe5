"""What the panel `Inspect` adds to the style sheet."""

CSS = """
.sw-inspect .sw-side > .sw-map-large { flex: 0 1 620px; }
.sw-inspect .sw-map-blank { fill: var(--jp-layout-color2, #ededed); }
.sw-inspect .sw-map-row { fill: transparent; }
.sw-inspect .sw-map-row:hover { fill: none; stroke: #d55e00; stroke-width: 1.6; }
.sw-inspect .sw-svg text.sw-map-token { font: 9.5px var(--jp-code-font-family, monospace); }
.sw-map-all { display: flex; flex-wrap: wrap; gap: 10px; }
.sw-map-small { width: 104px; font-size: 11px; color: var(--jp-ui-font-color2, #5c5c5c);
  line-height: 1.3; padding: 2px; border: 2px solid transparent; }
.sw-map-small img { display: block; width: 100px; height: 100px; image-rendering: pixelated;
  background: var(--jp-layout-color2, #ededed); margin-bottom: 2px; }
.sw-map-chosen { border-color: #d55e00; }
.sw-fresh { background: rgba(230, 159, 0, 0.45); border-bottom: 2px solid #e69f00; }
.sw-given { color: var(--jp-ui-font-color2, #5c5c5c); border-bottom: 1px dotted
  var(--jp-ui-font-color2, #5c5c5c); }
.sw-table.sw-depths td, .sw-table.sw-depths thead th { padding: 1px 4px; text-align: center;
  font-family: var(--jp-code-font-family, monospace); border-right: 1px solid
  var(--jp-border-color2, #dcdcdc); min-width: 1ch; }
.sw-table.sw-depths tbody th, .sw-table.sw-drift tbody th { font-weight: 400; padding-right: 12px;
  position: sticky; left: 0; background: var(--jp-layout-color1, #fff); }
.sw-table .sw-same { text-decoration: underline; text-underline-offset: 2px; }
.sw-table.sw-drift td { text-align: right; padding: 2px 10px; min-width: 64px; }
.sw-table.sw-drift .sw-still { color: var(--jp-ui-font-color2, #5c5c5c); }
.sw-table.sw-drift thead th { text-align: right; padding: 2px 10px; }
.sw-table.sw-drift thead th:first-child { text-align: left; padding-left: 0; }
.sw-table.sw-drift caption { white-space: normal; max-width: 46ch; }
.sw-inspect .sw-cost { margin-left: 8px; color: var(--jp-ui-font-color2, #5c5c5c); font-size: 12px;
  line-height: 1.45; }
.sw-inspect .sw-probe { padding: 8px 2px; }
"""
