"""Where a stage's input comes from when its trunk is not simply held in memory.

`stream.py` lends the packed weights of frozen blocks from disk or host memory: `blocks.py` says
where they lie, `filling.py` fetches them, `travel.py` tells which come next, `shelf.py` puts them
on a rack. `cache.py` reads trunk outputs from disk and `writer.py` writes them: `shards.py` is
their folder, `shardfile.py` one file of it, `room.py` what it takes, `rounding.py` what rows are
rounded to and `border.py` where. All read into `pages.py`.
"""
