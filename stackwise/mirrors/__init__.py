"""Copies of a run elsewhere, made while it trains, and a run made from such a copy.

    store.py     a folder at an fsspec address: file://, s3://, sftp://, ...
    index.py     what stands in it: content-named files, and an index that commits them
    copying.py   one pass from a run's folder to a store
    mirror.py    passes in a thread of their own, after each checkpoint
    fetching.py  a run's folder from a store, every byte of it compared with its hash

An address comes from this user alone: an argument, an option, STACKWISE_MIRROR. Never from a run's
folder, which may be a stranger's.
"""
