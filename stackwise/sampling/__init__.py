"""Generation: iterative denoising, and left to right.

A denoising sampler fills the [MASK]s of a batch over some steps and never touches anything else.
At each step a rack with noise bands runs the path whose band holds the sample's masked fraction.
One sampler per file; `registry.py` has them by name, `task.py` says what one is given, `stream.py`
what a caller gets. How good samples are is in `quality.py`; likelihoods are in `evaluation.py`.
"""

from stackwise.sampling.choosing import choose, cut, logits_at
from stackwise.sampling.registry import SAMPLERS, samplers_for, takes_steps
from stackwise.sampling.stream import Step, sample, sample_ids, stream, text_of, trajectory
from stackwise.sampling.task import Sampler, Task

__all__ = [
    "SAMPLERS",
    "Sampler",
    "Step",
    "Task",
    "choose",
    "cut",
    "logits_at",
    "sample",
    "sample_ids",
    "samplers_for",
    "stream",
    "takes_steps",
    "text_of",
    "trajectory",
]
