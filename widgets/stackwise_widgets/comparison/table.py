"""The table of runs in the page: a tick for each run that is compared, sorted by any column.

A table of widgets would be four for each run; this is one, whose rows are built in the page from
plain values. All text goes in as text, so that no name of a stranger's is read as HTML. Ticks and
headings are native controls, which the keyboard reaches in their order.
"""

from __future__ import annotations

import anywidget
import traitlets

from stackwise_widgets.comparison.rows import Shown

ESM = """
const LAST = Symbol("last");

function made(tag, kind, text) {
  const it = document.createElement(tag);
  if (kind) it.className = kind;
  if (text !== undefined) it.textContent = text;
  return it;
}

function order(rows, [key, falling]) {
  const of = (row) => key === "name" || key === "state" ? row[key] : row.sort[key] ?? LAST;
  const sign = falling ? -1 : 1;
  return [...rows].sort((a, b) => {
    const [x, y] = [of(a), of(b)];
    if (x === LAST || y === LAST) return (x === LAST) - (y === LAST);
    if (typeof x === typeof y) return sign * (x < y ? -1 : x > y ? 1 : 0);
    return sign * (typeof x === "number" ? -1 : 1);
  });
}

function render({ model, el }) {
  el.classList.add("sw-runs");
  // What the reader ticks and sorts by comes back to the place that had the keyboard.
  let again = null;

  function keep(change) {
    const at = document.activeElement;
    again = el.contains(at) ? at.dataset.again : null;
    change();
    model.save_changes();
  }

  function heading(column, kind) {
    const [key, falling] = model.get("sort");
    const cell = made("th", kind);
    cell.scope = "col";
    const button = made("button", "sw-sorter", column.title);
    button.type = "button";
    button.title = column.tip;
    button.dataset.again = "sort " + column.key;
    if (key === column.key) {
      cell.setAttribute("aria-sort", falling ? "descending" : "ascending");
      button.append(made("span", "sw-arrow", falling ? " \\u25be" : " \\u25b4"));
    }
    button.onclick = () => keep(() => {
      const flip = key === column.key ? !falling : false;
      model.set("sort", [column.key, flip]);
    });
    cell.append(button);
    return cell;
  }

  function tick(row) {
    const box = made("input");
    box.type = "checkbox";
    box.checked = model.get("selected").includes(row.key);
    box.disabled = row.state === "damaged";
    box.setAttribute("aria-label", "compare " + row.name);
    box.dataset.again = "tick " + row.key;
    box.onchange = () => keep(() => {
      const others = model.get("selected").filter((key) => key !== row.key);
      model.set("selected", box.checked ? [...others, row.key] : others);
    });
    const cell = made("td", "sw-tick");
    cell.append(box);
    return cell;
  }

  function named(row) {
    const cell = made("th", "sw-name");
    cell.scope = "row";
    const button = made("button", "sw-run", row.name);
    button.type = "button";
    button.title = row.id + "\\nrename, note, tags, share, delete";
    button.dataset.again = "name " + row.key;
    button.setAttribute("aria-pressed", String(model.get("current") === row.key));
    button.onclick = () => keep(() => {
      model.set("current", model.get("current") === row.key ? "" : row.key);
    });
    cell.append(button);
    for (const tag of row.tags) cell.append(made("span", "sw-tag", tag));
    if (row.problem) cell.append(made("div", "sw-problem", row.problem));
    return cell;
  }

  function line(row, columns) {
    const it = made("tr", model.get("current") === row.key ? "sw-current" : "");
    it.dataset.run = row.key;
    it.append(tick(row), named(row), made("td", "sw-state sw-state-" + row.state, row.state));
    for (const column of columns) {
      const cell = made("td", column.number ? "sw-number" : "", row.cells[column.key] ?? "");
      it.append(cell);
    }
    return it;
  }

  function draw() {
    const columns = model.get("columns");
    const rows = order(model.get("rows"), model.get("sort"));
    const table = made("table", "sw-table");
    table.append(made("caption", "sw-hidden", model.get("caption")));
    const top = made("tr");
    const first = made("th", "sw-tick");
    first.append(made("span", "sw-hidden", "compare"));
    first.scope = "col";
    const fixed = [
      { key: "name", title: "name", tip: "what the run is called" },
      { key: "state", title: "state", tip: "how it stands" },
    ];
    top.append(first, ...fixed.map((column) => heading(column, "")),
      ...columns.map((column) => heading(column, column.number ? "sw-number" : "")));
    const head = made("thead");
    head.append(top);
    const body = made("tbody");
    body.append(...rows.map((row) => line(row, columns)));
    table.append(head, body);
    const box = made("div", "sw-scroll sw-tall");
    const before = el.querySelector(".sw-tall");
    const [x, y] = before ? [before.scrollLeft, before.scrollTop] : [0, 0];
    box.append(table);
    el.replaceChildren(box);
    [box.scrollLeft, box.scrollTop] = [x, y];
    if (again) el.querySelector(`[data-again="${CSS.escape(again)}"]`)?.focus();
    again = null;
  }

  const drawn = ["rows", "columns", "selected", "sort", "current", "caption"];
  let waiting = false;
  function soon() {
    if (waiting) return;
    waiting = true;
    queueMicrotask(() => { waiting = false; draw(); });
  }
  for (const name of drawn) model.on("change:" + name, soon);
  draw();
  return () => { for (const name of drawn) model.off("change:" + name, soon); };
}

export default { render };
"""

CSS = """
.sw-runs .sw-tall { max-height: 380px; overflow: auto; background: var(--jp-layout-color1, #fff); }
.sw-runs table.sw-table { margin: 0; width: 100%; }
.sw-runs thead th { position: sticky; top: 0; z-index: 1; vertical-align: bottom;
  background: var(--jp-layout-color1, #fff); }
.sw-runs .sw-table td, .sw-runs .sw-table th { padding: 4px 12px 4px 0; }
.sw-runs tbody tr:hover, .sw-runs tr.sw-current { background: var(--jp-layout-color2, #f0f0f0); }
.sw-runs tr.sw-current th { box-shadow: inset 3px 0 0 var(--jp-brand-color1, #0072b2); }
.sw-runs .sw-tick { width: 26px; padding-left: 6px; }
.sw-runs th.sw-name, .sw-runs thead th:nth-child(2) { padding-left: 8px; position: sticky;
  left: 0; background: var(--jp-layout-color1, #fff); }
.sw-runs thead th:nth-child(2) { z-index: 2; }
.sw-runs th.sw-name { font-weight: 400; white-space: normal; min-width: 180px; }
.sw-runs tbody tr:hover th.sw-name, .sw-runs tr.sw-current th.sw-name {
  background: var(--jp-layout-color2, #f0f0f0); }
.sw-runs button { all: unset; cursor: pointer; }
.sw-runs button:focus-visible { outline: 2px solid var(--jp-brand-color1, #0072b2);
  outline-offset: 2px; border-radius: 2px; }
.sw-runs .sw-sorter { font-weight: 600; }
.sw-runs .sw-sorter:hover, .sw-runs .sw-run:hover { text-decoration: underline; }
.sw-runs .sw-run { overflow-wrap: anywhere; }
.sw-runs .sw-run[aria-pressed="true"] { font-weight: 600; }
.sw-runs .sw-number { text-align: right; }
.sw-runs .sw-tag { display: inline-block; margin-left: 6px; padding: 0 5px; font-size: 11px;
  border: 1px solid var(--jp-border-color1, #bdbdbd); border-radius: 8px; }
.sw-runs .sw-problem { color: var(--jp-ui-font-color2, #555); font-size: 11px; max-width: 70ch;
  border-left: 3px solid #d55e00; padding-left: 6px; margin-top: 2px; overflow-wrap: anywhere; }
.sw-runs .sw-state::before { content: ""; display: inline-block; width: 8px; height: 8px;
  margin-right: 6px; border: 1px solid var(--jp-ui-font-color2, #555); box-sizing: border-box; }
.sw-runs .sw-state-finished::before { background: #009e73; border-color: #009e73; }
.sw-runs .sw-state-running::before, .sw-runs .sw-state-starting::before { background: #0072b2;
  border-color: #0072b2; border-radius: 50%; }
.sw-runs .sw-state-failed::before, .sw-runs .sw-state-died::before,
.sw-runs .sw-state-damaged::before { background: #d55e00; border-color: #d55e00;
  transform: rotate(45deg); }
.sw-runs .sw-hidden { position: absolute; width: 1px; height: 1px; overflow: hidden;
  clip-path: inset(50%); }
"""


class RunsTable(anywidget.AnyWidget):
    """Rows of runs, of which some are ticked.

    Attributes:
        selected: Keys of the rows that are ticked, in the order of the ticks.
        current: Key of the row whose name was pressed; empty for none.
        sort: A column's key, and whether it falls; an empty key leaves the order of the rows.
    """

    _esm = ESM
    _css = CSS
    columns = traitlets.List().tag(sync=True)
    rows = traitlets.List().tag(sync=True)
    selected = traitlets.List(traitlets.Unicode()).tag(sync=True)
    current = traitlets.Unicode().tag(sync=True)
    caption = traitlets.Unicode().tag(sync=True)
    sort = traitlets.List(["", False]).tag(sync=True)

    def show(self, found: Shown, caption: str) -> None:
        """Show other rows; ticks of those that are gone stay, as a filter may have hidden them."""
        with self.hold_sync():
            self.columns, self.rows, self.caption = found.columns, found.rows, caption
