"""The parts of the panel `Compare`: its table of runs, what may be done with a run, its picture."""
