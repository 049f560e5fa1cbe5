"""`stackwise doctor`: whether to trust StackWise on this machine, in at most ten minutes.

    examination.py     goes through the checks, says what comes of each, and writes the record
    checks.py          what a check is: a function from a visit to a finding
    environment.py     versions, device, dtypes, memory, disk; of a host: `memory/limits.py`
    layers.py          frozen layers against plain ones, and a fault that the gate has to find
    sources.py         trunks in memory, lent and cached, in real runs; what is compared: `arms.py`
    shapes.py          six small runs; `planned.py` compares them with the plan of `predicted.py`
    disk.py, link.py   rates of the disk, and of the link to a card
    killing.py         one run that is killed and goes on
    record.py          the file that stays, and the plan's error bars in it; `words.py` fills it
    scratch.py         the folder that does not stay

Whatever computes does so in a process of its own (`alone.py`): what crashes there, or is killed for
its memory, is a finding and not the end of the doctor.
"""

from stackwise.planner.doctor.examination import Report, doctor
from stackwise.planner.doctor.record import Bar, Bars, DoctorError, device_name, error_bars

__all__ = ["Bar", "Bars", "DoctorError", "Report", "device_name", "doctor", "error_bars"]
