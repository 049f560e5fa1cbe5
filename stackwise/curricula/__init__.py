"""The curricula that ship, a file for each family; `curriculum.py` has their registry.

Each is a short pure function from an experiment to stages, beside the parameters that it takes.
"""
