"""Text of strangers, as a terminal can be given it.

A run's folder may come from anybody, and a terminal obeys some characters: escapes clear it, rename
its window, or write into its input.
"""

from __future__ import annotations

import sys
import unicodedata

JOINERS = "\u200c\u200d"  # they hold an emoji together, and letters of some scripts
STAND_IN = "\N{REPLACEMENT CHARACTER}"


def prints(letter: str) -> bool:
    """Whether a character is seen in a line, or holds together what is."""
    return letter.isprintable() or letter in JOINERS or unicodedata.category(letter) == "Zs"


def printable(text: str) -> str:
    """A text as one line that a terminal only shows; another character stands for any other."""
    return "".join(letter if prints(letter) else STAND_IN for letter in text)


def say(text: object, *, error: bool = False) -> None:
    """Print a text of several lines, of which a terminal obeys nothing."""
    lines = str(text).split("\n")
    print("\n".join(map(printable, lines)), file=sys.stderr if error else sys.stdout, flush=True)


def is_prose(text: str) -> bool:
    """Whether a text of several lines holds nothing that a terminal obeys, and is Unicode."""
    return not any(
        unicodedata.category(letter) in ("Cc", "Cs") and letter not in "\n\t" for letter in text
    )
