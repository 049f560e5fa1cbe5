"""The run folder, which tells the whole truth about a run.

`folder.py` is one, read by `records.py` and `measured.py`; `listing.py` makes and finds them,
`writer.py` is held by the process that trains, `metrics.py` and `events.py` are its two streams,
`lock.py` says whose it is, `provenance.py` where its numbers came from. Importing this loads
neither torch nor pandas.
"""

from stackwise.runs.damage import RunError
from stackwise.runs.folder import Run
from stackwise.runs.listing import attach, make_run, runs_in
from stackwise.runs.lock import RunBusy
from stackwise.runs.writer import RunWriter

__all__ = ["Run", "RunBusy", "RunError", "RunWriter", "attach", "make_run", "runs_in"]
