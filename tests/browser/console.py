"""What a page complains of: errors in its console and uncaught ones, less what is harmless."""

from __future__ import annotations

from playwright.sync_api import ConsoleMessage, Error, Page

# A part of a message, and why it tells nothing about us.
HARMLESS = {
    "Could not restore the debugger state": "JupyterLab's debugger asked the kernel that a test has"
    " just restarted; we use no debugger",
    "cdn.jsdelivr.net/npm/@fortawesome": "Voila looks outside for its icons, where nothing answers;"
    " nothing of ours is said by an icon alone",
}


class Console:
    """Everything that a page wrote in its console, in order, and which of it a test fails on."""

    def __init__(self, page: Page) -> None:
        self.lines: list[str] = []
        self.complaints: list[str] = []
        page.on("console", self.written)
        page.on("pageerror", self.uncaught)

    def written(self, message: ConsoleMessage) -> None:
        source = message.location.get("url", "")
        self.note(f"{message.type}: {message.text} ({source})", message.type == "error")

    def uncaught(self, error: Error) -> None:
        self.note(f"uncaught: {error.stack or error.message}", True)

    def expect(self, part: str) -> None:
        """A complaint that a test has provoked: it has to be there, and then it is forgotten."""
        rest = [line for line in self.complaints if part not in line]
        assert len(rest) < len(self.complaints), (
            f"nothing complained of {part!r}: {self.complaints}"
        )
        self.complaints = rest

    def note(self, line: str, complains: bool) -> None:
        self.lines.append(line)
        if complains and not any(part in line for part in HARMLESS):
            self.complaints.append(line)
