"""Training: `run.py` executes stages, `step.py` is one training step, `optim.py` moves weights."""
