"""The model: `rack.py` holds stacks of `block.py`, whose attention kinds are in `attention/`."""
