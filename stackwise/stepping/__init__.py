"""One training step at a time, phase by phase, for those who want to see it happen.

    with Stepper("toy", stage=0) as stepper:
        for phase in stepper.next_step():
            print(phase.name, phase.words)

It is the project's own step, taken in pieces: the same functions in the same order, so that the
weights after it are those of `sw.train` to the last bit. What a phase tells is in `phase.py`, how
a step is carried out in `phases.py`, what is measured meanwhile in `measures.py`, the words in
`words.py` and `why.py`, where the weights at the start of a stage come from in `beginning.py`.
"""

from stackwise.stepping.phase import KeptTensor, Phase, TokenBatch
from stackwise.stepping.phases import phase_names
from stackwise.stepping.stepper import Stepper, steps_of
from stackwise.stepping.why import Why, why_of

__all__ = [
    "KeptTensor",
    "Phase",
    "Stepper",
    "TokenBatch",
    "Why",
    "phase_names",
    "steps_of",
    "why_of",
]
