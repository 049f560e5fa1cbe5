"""Training a run: `run.py` executes its stages, `step.py` is one step, `optim.py` moves weights.

`start.py` makes the folder and `opening.py` opens it; `borders.py` is what happens between stages,
`watch.py` what is measured, `saved.py` and `checkpoint.py` what is kept. A model of a user's own,
without a folder, is trained in `stackwise/own/`.
"""
