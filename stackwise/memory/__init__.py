"""What a stage costs before it runs: FLOPs (`flops.py`), bytes (`bytes.py`), and the meter."""
