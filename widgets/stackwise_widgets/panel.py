"""What every panel has: one way in for everything that is clicked or changed, and where it errs.

JupyterLab shows no exception of a callback, so each handler goes through a `Guard`: what it raises
is shown in a card above the panel, with what to do, and kept in `errors`. Handlers run one at a
time, whichever thread calls them, and one that is called from within another waits for nothing.
"""

from __future__ import annotations

import functools
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import ipywidgets

from stackwise_widgets.views.markup import escaped

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class PanelError:
    """What went wrong in a panel.

    Attributes:
        doing: What it was about to do, for people.
        error: What was raised.
        trace: Where, for a report.
    """

    doing: str
    error: BaseException
    trace: str

    def __str__(self) -> str:
        return f"{self.doing}: {self.error}"


class Guard:
    """Runs the handlers of a panel, and shows what they raise.

    Attributes:
        errors: All that was raised so far, oldest first.
        card: The widget that shows the last of it; empty while all is well.
    """

    def __init__(self) -> None:
        self.errors: list[PanelError] = []
        self.card = ipywidgets.HTML()
        self._lock = threading.RLock()

    def __call__(self, doing: str, function: Callable[P, R]) -> Callable[P, R | None]:
        """A handler that may be registered.

        Args:
            doing: What it does, in words: "launching the run".
            function: The handler.
        """

        @functools.wraps(function)
        def handler(*args: P.args, **kwargs: P.kwargs) -> R | None:
            with self._lock:
                try:
                    return function(*args, **kwargs)
                except Exception as error:
                    self.take(doing, error)
                    return None

        return handler

    def take(self, doing: str, error: BaseException) -> None:
        """Show an error, and keep it."""
        trace = "".join(traceback.format_exception(error))
        self.errors.append(PanelError(doing, error, trace))
        self.card.value = error_card(self.errors[-1])

    def clear(self) -> None:
        """All is well again; what was raised stays in `errors`."""
        self.card.value = ""


def error_card(found: PanelError) -> str:
    """An error as people read it: its own words first, where it came from behind a fold."""
    said = str(found.error) or type(found.error).__name__
    expected = isinstance(found.error, ValueError | OSError | RuntimeError)
    kind = "" if expected else f" ({type(found.error).__name__})"
    lines = "".join(f"<li>{escaped(line)}</li>" for line in said.splitlines())
    return (
        f'<div class="sw-error" role="alert"><strong>{escaped(found.doing)}{escaped(kind)}</strong>'
        f"<ul>{lines}</ul><details><summary>where it came from</summary>"
        f"<pre>{escaped(found.trace)}</pre></details></div>"
    )
