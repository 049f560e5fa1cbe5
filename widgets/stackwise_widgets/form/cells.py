"""Call something after each cell of the notebook that runs, as long as somebody holds it.

So a curriculum that a cell has just added is in the list, and no timer looks for it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

AFTER = "post_run_cell"


def after_each_cell(method: Callable[[], Any], shell: Any = None) -> Callable[[], None]:
    """Call a bound method after each cell. It is forgotten with the object that it is of.

    Args:
        method: Of the object.
        shell: IPython's; None for the one of this process. Outside of IPython nothing is called.

    Returns:
        What ends it.
    """
    shell = shell or _shell()
    if shell is None:
        return lambda: None
    held = weakref.WeakMethod(method)
    ended = False

    def call(result: Any = None) -> None:
        alive = held()
        if alive is None:
            end()
        else:
            alive()

    def end() -> None:
        nonlocal ended
        if not ended:
            shell.events.unregister(AFTER, call)
        ended = True

    shell.events.register(AFTER, call)
    return end


def _shell() -> Any:
    try:
        from IPython import get_ipython
    except ImportError:
        return None
    return get_ipython()
