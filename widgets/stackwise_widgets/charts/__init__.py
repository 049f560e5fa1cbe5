"""Charts of runs: what a run folder holds (`series.py`), drawn live, finished, compared, on paper.

`series.py` reads a run into a `RunView` of few numbers (`view.py`, `decimate.py`); `panels.py`
turns that into traces. `live.py` holds the one FigureWidget, `finished.py` plain figures and the
numbers behind them, `still.py` the same for papers; `overlay.py` lays runs over each other.
"""

from stackwise_widgets.charts.comparing import comparable
from stackwise_widgets.charts.finished import run_figure, run_table
from stackwise_widgets.charts.listing import list_runs, runs_table
from stackwise_widgets.charts.live import LiveChart
from stackwise_widgets.charts.overlaid import overlay_data
from stackwise_widgets.charts.overlay import overlay
from stackwise_widgets.charts.series import Reader, view_of
from stackwise_widgets.charts.still import run_still
from stackwise_widgets.charts.view import RunView

__all__ = [
    "LiveChart",
    "Reader",
    "RunView",
    "comparable",
    "list_runs",
    "overlay",
    "overlay_data",
    "run_figure",
    "run_still",
    "run_table",
    "runs_table",
    "view_of",
]
