"""The run folder, which tells the whole truth about a run.

`folder.py` makes and reads one, `writer.py` is held by the process that trains, `metrics.py` and
`events.py` are its two streams, `provenance.py` says where numbers came from.
"""

from stackwise.runs.folder import Run, RunError, attach, make_run, runs_in
from stackwise.runs.writer import RunBusy, RunWriter

__all__ = ["Run", "RunBusy", "RunError", "RunWriter", "attach", "make_run", "runs_in"]
