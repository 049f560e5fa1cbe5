"""Which blocks will be asked for next: those that followed here the last time.

Before there was a last time it is the next one in the direction of travel, and after the last one
the first, where a step begins again. Who reads them is in `stream.py`.
"""

from __future__ import annotations

from collections.abc import Sequence


class Travel:
    """Where a consumer of blocks is, and its way so far.

    Args:
        keys: Of the blocks, in the order of a forward pass.

    Attributes:
        here: The block last asked for; None: none yet.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self.keys = keys
        self.here: str | None = None
        self._before: str | None = None
        self._after: dict[tuple[str | None, str], str] = {}
        self._place = {key: place for place, key in enumerate(keys)}

    def move_to(self, key: str) -> None:
        """Another block is asked for."""
        if self.here is not None:
            self._after[self._before, self.here] = key
        self._before, self.here = self.here, key

    def wanted(self, count: int) -> Sequence[str]:
        """The present block and those to come, nearest first: `count` or fewer, none twice."""
        before, here = self._before, self.here
        if here is None:
            return self.keys[:count]
        wanted = [here]
        for _ in range(2 * count):  # steps: on the way back blocks come again
            if len(wanted) == count:
                break
            before, here = here, self._after.get((before, here)) or self._along(before, here)
            if here not in wanted:
                wanted.append(here)
        return wanted

    def _along(self, before: str | None, here: str) -> str:
        """The next block in the direction of travel."""
        place = self._place[here]
        back = before is not None and self._place[before] == place + 1
        return self.keys[place - 1 if back and place else (place + 1) % len(self.keys)]
