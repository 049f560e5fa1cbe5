"""Writes docs/results.md: `python docs/results.py`, from the result.csv of every study.

`tests/integration/studies/test_the_results_page_is_current.py` makes the page again and compares.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from stackwise.report import bytes_text, count_text, figure, number
from stackwise.study.grid import edge_of_grid

sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))

from common import figure_of, folders, planned_flops, read, studies_of, title_of

PAGE = """\
# Results of the studies

Written by `python docs/results.py` from `studies/*/result.csv`; a test makes it again and compares.

Each study was predicted before it ran: `prediction.md` is older than `result.csv`, as the history
of the repository shows, and what came out stands here whichever way. All arms of a study spend the
same, head included, on the same text in the same order, tuned over the same rates, beside an
end-to-end control whose learning rate has decayed to zero. What that means and what it does not is
told in [studies.md](studies.md).

{contents}

A study runs by itself and goes on where it stopped; its figure is made again from its runs, or from
`result.csv` where they are not:

```
stackwise study studies/02_growth/study.yaml --workers 2 --threads 1
python studies/figures.py 2
make figures                # all figures;  RUN=1 trains what is missing first
make figures CHECK=1        # works every number out again and compares it, writing nothing
```

Bits per byte are means over seeds ± their standard deviation. *From the control* is the mean paired
difference with Student's 95 % interval. A *hash* is that of the first seed's experiment. FLOPs of
the grid are no part of an arm's own. *Undecided* predictions are those whose interval holds the
bound.
{studies}
## text8: the figures of the field

The preset `text8` is the setting in which the field compares masked diffusion: 12 blocks of width
768, samples of 256 characters, batches of 512, a million steps. Nothing of it was trained here: it
needs the file and a card, about two days of one H200 by `stackwise plan text8 --hardware h200`.

| model | bits per character, test | source |
| --- | ---: | --- |
| autoregressive transformer | 1.23 | as listed for comparison in MD4's table 2 |
| MDLM | ≤ 1.40 | for arXiv 2406.07524, in RDLM's table 1 (arXiv 2502.11564) |
| MD4 | ≤ 1.37 | arXiv 2406.04329, table 2 |

The figures are quoted. In a shorter setting of its own, not to be compared with these,
DiffusionBlocks reports 1.45 for three blocks on bands of noise beside 1.56 end to end (arXiv
2506.14202, table 3). What differs from the papers: StackWise's block (RMSNorm, SwiGLU, RoPE) and
its AdamW at a rate of 3e-4 under warmup-stable-decay; no dropout; ids are bytes, of which 27 occur.
The field splits 90, 5 and 5 million characters. A run holds out the last 10 million; what it
reports is on both parts, and this is the test part alone:

<!-- example: skip, needs the file and a card -->
```python
import stackwise as sw

run = sw.train("text8")  # for the autoregressive figure: stackwise run text8 objective=clm
text = sw.open_dataset("text:text8", seq_len=256, heldout_frac=0.05)  # the last 5 million
windows, size = text.heldout_windows(), text.heldout_bytes()
print(sw.evaluate(run.rack(), windows, size, objective="diffusion"))
```
"""

STUDY = """
## {title}

[what is trained](../studies/{name}/study.yaml) · [prediction](../studies/{name}/prediction.md) ·
{rows}

{body}
"""
DONE = """\
{what}

{tables}

{verdict}

| | prediction | came out |
| ---: | --- | --- |
{claims}

![{title}](../studies/{name}/figure.svg)"""
CAME_OUT = {True: "right", False: "**wrong**", None: "undecided"}
UNITS = {"flops": "FLOPs", "tokens": "tokens", "seconds": "seconds"}
JUDGED = {
    "better": "Better than the control",
    "worse": "Worse than the control",
    "undecided": "Not told apart from it",
    "too few seeds": "With too few seeds to say",
}


def page() -> str:
    """The whole text."""
    return PAGE.format(contents=contents(), studies="".join(map(study, folders())))


def contents() -> str:
    """One row per study: run or not, and what it takes."""
    rows = []
    for folder in folders():
        planned = figure(sum(map(planned_flops, studies_of(folder))))
        rows.append([f"[{title_of(folder)}](#{anchor(folder)})", state(folder), planned])
    return table(["study", "state", "FLOPs, at most"], rows)


def anchor(folder: Path) -> str:
    """Of its heading, as GitHub makes it."""
    kept = "".join(c for c in title_of(folder).lower() if c.isalnum() or c in " -")
    return kept.replace(" ", "-")


def state(folder: Path) -> str:
    """Whether it was run, and how many of its predictions held."""
    if not (folder / "result.csv").exists():
        return "not run"
    held = [claim.held for claim in figure_of(folder).claims(read(folder))]
    return f"run: {held.count(True)} right, {held.count(False)} wrong, {held.count(None)} undecided"


def study(folder: Path) -> str:
    """The section of one study."""
    ran = (folder / "result.csv").exists()
    rows = f"[rows](../studies/{folder.name}/result.csv)" if ran else "no result yet"
    number_ = int(folder.name[:2])
    body = came_out(folder) if ran else f"Not run: `python studies/figures.py {number_} --run`."
    return STUDY.format(title=title_of(folder), name=folder.name, rows=rows, body=body)


def came_out(folder: Path) -> str:
    """What a study that was run says."""
    module, frame = figure_of(folder), read(folder)
    tables = [arms(module.table(frame))]
    if edges := at_the_edge(frame):
        tables.append(
            "At an edge of the grid, so that a better rate may lie outside: "
            + ", ".join(edges)
            + "."
        )
    if hasattr(module, "more"):
        tables.append(anything(module.more(frame)))
    claims = [
        f"| {n} | {claim.text} | {CAME_OUT[claim.held]} |"
        for n, claim in enumerate(module.claims(frame), start=1)
    ]
    return DONE.format(
        what=what(frame),
        tables="\n\n".join(tables),
        verdict=verdict(module.table(frame)),
        claims="\n".join(claims),
        title=title_of(folder),
        name=folder.name,
    )


def what(frame: pd.DataFrame) -> str:
    """Which studies, seeds and FLOPs a result is of."""
    runs, grid = frame[frame["kind"] != "measured"], frame[frame["kind"] == "tuning"]
    own = runs[runs["kind"] != "tuning"]
    names = ", ".join(f"`{name}`" for name in runs["study"].unique())
    seeds = ", ".join(f"{seed:.0f}" for seed in sorted(own["seed"].unique()))
    equal = " and ".join(UNITS[kind] for kind in own["kind"].unique())
    spent = f"{figure(runs['flops'].sum())} FLOPs"
    if len(grid):
        spent += f", {figure(grid['flops'].sum())} of them for the grid of rates"
    return f"{names}; equal {equal}; seeds {seeds}; {len(runs)} runs, {spent}."


def at_the_edge(frame: pd.DataFrame) -> list[str]:
    """The arms whose best rate is the lowest or the highest of their grid."""
    found = []
    several = frame["study"].nunique() > 1
    for (name, arm), rows in frame[frame["kind"] == "tuning"].groupby(["study", "arm"], sort=False):
        best = rows.loc[rows["bits_per_byte"].idxmin(), "lr"]
        if (edge := edge_of_grid(best, [*rows["lr"]])) is not None:
            found.append(f"{arm}{f' of {name}' if several else ''} ({best:g}, the {edge})")
    return found


def arms(frame: pd.DataFrame) -> str:
    """One row per arm, and what else a study says of it."""
    head = ["arm", "bits per byte", "from the control", "judged", "rate", "parameters", "tokens"]
    head += ["FLOPs", "grid FLOPs", "epochs", "peak memory", "hash"]
    known = {"arm", "is_control", "n", "mean", "sd", "difference", "low", "high", "judged", "lr"}
    known |= {"parameters", "tokens", "flops", "grid_flops", "epochs", "peak_bytes", "hash"}
    others = [name for name in frame.columns if name not in known]
    rows = []
    for row in frame.to_dict("records"):
        apart = math.isfinite(row["difference"])
        between = f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
        rows.append(
            [
                str(row["arm"]),
                f"{number(row['mean'])} ± {number(row['sd'])}",
                between if apart else "-",
                str(row["judged"]),
                f"{row['lr']:g}",
                f"{row['parameters']:,.0f}",
                count_text(row["tokens"]),
                figure(row["flops"]),
                figure(row["grid_flops"]),
                number(row["epochs"], 2),
                bytes_text(row["peak_bytes"]),
                f"`{row['hash']}`",
                *(cell(row[name]) for name in others),
            ]
        )
    return table([*head, *(name.replace("_", " ") for name in others)], rows)


def anything(frame: pd.DataFrame) -> str:
    """Arms as above, or any other numbers as they are."""
    if "judged" in frame.columns:
        return "The same at equal tokens:\n\n" + arms(frame)
    rows = [[cell(value) for value in row] for row in frame.itertuples(index=False)]
    return table([name.replace("_", " ") for name in frame.columns], rows)


def cell(value: Any) -> str:
    """A number in four digits, a whole one in all of them, text as it is."""
    if isinstance(value, str):
        return value
    if not math.isfinite(value):
        return "-"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"


def verdict(frame: pd.DataFrame) -> str:
    """What may be said of each arm; losses are named like wins."""
    found, twice = [], frame["arm"].duplicated().any()

    def called(row: dict[Any, Any]) -> str:
        of = f" of {count_text(row['parameters'])} parameters" if twice else ""
        return f"{row['arm']}{of}"

    for judged, words in JUDGED.items():
        mine = frame[frame["judged"] == judged].to_dict("records")
        said = [f"{called(r)} ({r['low']:+.3f} to {r['high']:+.3f})" for r in mine]
        if said:
            found.append(f"{words}: {', '.join(said)}.")
    return "**Verdict.** " + (" ".join(found) or "One arm: there is no control to compare it with.")


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    Path(__file__).with_suffix(".md").write_text(page(), "utf-8")
