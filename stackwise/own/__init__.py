"""`train_stack_wise`: a user's own model and batches, stage by stage, without a run folder.

`train.py` is the function, `loop.py` its loop, with the steps of `stackwise/training/`. `rack.py`
is how a rack takes part and `module.py` how any other module does; `ends.py` finds what of it lies
before and after its blocks, and `batches.py` reads a dataloader.
"""
