"""Studies: experiments x seeds, compared at equal compute, with what makes a comparison fair.

`study.py` is where to begin; `arms.py`, `controls.py`, `budgets.py` and `grid.py` say what is
trained, `sharing.py`, `jobs.py` and `pool.py` how, `result.py` and `summary.py` what it says.
"""

from stackwise.study.arms import Arm as Arm
from stackwise.study.arms import names_of as names_of
from stackwise.study.budgets import spent as spent
from stackwise.study.controls import shrunk_to as shrunk_to
from stackwise.study.plan import StudyPlan as StudyPlan
from stackwise.study.result import StudyResult as StudyResult
from stackwise.study.statistics import seeds_needed as seeds_needed
from stackwise.study.study import Study as Study
