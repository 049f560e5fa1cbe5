"""Where a stage's input comes from when its trunk is not simply held in memory.

`stream.py` lends the packed weights of frozen blocks from disk or host memory (`blocks.py`: where
they lie; `filling.py`: how they are fetched), `shelf.py` puts them on a rack. `cache.py` reads trunk outputs from disk, `writer.py`
writes them, `shards.py` is their folder, `rounding.py` what they are rounded to,
`border.py` where.
"""
