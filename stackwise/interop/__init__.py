"""Models of others, in and out: Hugging Face's Llama folders.

`importing.py` and `exporting.py` do it, a block at most in memory; names and tensors are paired in
`llama.py`, configurations in `llama_config.py`; what is read from is in `source.py` and
`stored.py`, what an import leaves in `model_folder.py`. No package of theirs is used.
"""
