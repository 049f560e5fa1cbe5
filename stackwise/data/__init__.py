"""Data: from a corpus to batches of token ids in a fixed order.

    corpora.py    what can be read: names, parameters, and the readers behind them
    text.py       a corpus as one UTF-8 file in the cache, and where its held-out part begins
    tokenizer.py  from text to ids and back, with the true bytes that each id stands for
    dataset.py    memory-mapped ids, packed samples, held-out windows
    batches.py    which samples the batch at a given counter holds; reading ahead
    baselines.py  what simple models and compressors get on the held-out text

Nothing here knows what is done with the ids: corruption and losses are in `stackwise.objective`.
"""
