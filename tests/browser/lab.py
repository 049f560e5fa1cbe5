"""A notebook in JupyterLab, driven as a person drives it, with waits instead of pauses.

What is pressed and read goes through the page. What a person sees in an icon (is the kernel busy?),
and where a person would look for a cell, is asked of JupyterLab's own application object, which the
server of these tests shows as `window.jupyterapp`. Every wait has a limit in seconds, and says what
was there instead. A cell is named by its place, counted from 0.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page, WebSocket
from playwright.sync_api import TimeoutError as TooLate

from .console import Console
from .notebooks import write_notebook
from .servers import Served

WIDGET = "window.jupyterapp?.shell?.currentWidget"
IDLE = f"{WIDGET}?.sessionContext?.kernelDisplayStatus === 'idle'"
# A tab of the whole lab that is behind another stays in the page.
PANEL = ".jp-NotebookPanel:not(.lm-mod-hidden)"
SPLASH = "#jupyterlab-splash"  # covers the page while it loads, and while a theme does
OUTPUTS = f"{PANEL} .jp-Cell-outputArea"
GO_TO = """(cell) => {
  const notebook = jupyterapp.shell.currentWidget.content;
  notebook.activeCellIndex = cell;
  return notebook.scrollToItem(cell, 'smart');
}"""
RUN = "() => jupyterapp.commands.execute('notebook:run-cell')"
RUN_ALL = "() => jupyterapp.commands.execute('notebook:run-all-cells')"
EVALUATE = """async (expression) => {
  const kernel = jupyterapp.shell.currentWidget.sessionContext.session.kernel;
  const asked = kernel.requestExecute(
    {code: '', silent: true, store_history: false, user_expressions: {value: expression}});
  const value = (await asked.done).content.user_expressions.value;
  return value.status === 'ok' ? value.data['text/plain'] : `${value.ename}: ${value.evalue}`;
}"""


class Lab:
    """One page of JupyterLab; `picture` keeps a screenshot under the name of the test."""

    def __init__(
        self, page: Page, server: Served, console: Console, picture: Callable[[str], None]
    ) -> None:
        self.page = page
        self.server = server
        self.console = console
        self.picture = picture
        self.received_bytes = 0
        page.on("websocket", self._listen)

    # Files

    def write(self, name: str, *cells: str) -> str:
        """A new notebook of these code cells in the server's folder; its name again."""
        write_notebook(self.server.root / name, *cells)
        return name

    def bring(self, path: Path) -> str:
        """A copy of a file or a folder of the project in the server's folder; its name there."""
        copy = shutil.copytree if path.is_dir() else shutil.copy2
        copy(path, self.server.root / path.name)
        return path.name

    # Opening

    def open(self, notebook: str, *, whole: bool = False, within: float = 60) -> None:
        """Alone in the page, or in the whole lab with its file list; until the kernel is idle."""
        mode = "lab" if whole else "doc"
        self.page.goto(f"{self.server.url}/{mode}/tree/{notebook}?reset&token={self.server.token}")
        self.wait_until_idle(within)
        self.page.locator(SPLASH).wait_for(state="detached")

    def reload(self, within: float = 60) -> None:
        """As the browser's own button does, with what was not saved thrown away."""
        self.page.reload()
        self.page.wait_for_function(f"{WIDGET}?.context?.isReady", timeout=within * 1000)
        self.page.locator(f"{PANEL} .jp-Cell").first.wait_for(timeout=within * 1000)

    def save(self) -> None:
        self.await_("() => jupyterapp.commands.execute('docmanager:save')")
        self.page.wait_for_function(f"{WIDGET}.context.model.dirty === false")

    # The kernel

    @property
    def busy(self) -> bool:
        """Whether the server knows the kernel to be at work; a page just loaded does not know."""
        (kernel,) = json.loads(self.server.request("GET", "api/kernels"))
        return bool(kernel["execution_state"] == "busy")

    def wait_until_busy(self, within: float = 10) -> None:
        """The page shows a cell as running before the kernel has it."""
        until = time.monotonic() + within
        while not self.busy:
            assert time.monotonic() < until, "the kernel has nothing to do"
            self.page.wait_for_timeout(20)

    def wait_until_idle(self, within: float = 60) -> None:
        self.page.wait_for_function(IDLE, timeout=within * 1000)

    def restart(self, within: float = 60) -> None:
        """By the menu's command and its question; until a new kernel is idle."""
        command = "jupyterapp.commands.execute('notebook:restart-kernel')"
        self.page.evaluate(f"() => {{ window.restarted = {command}; }}")
        dialog = self.page.get_by_role("dialog")
        dialog.get_by_role("button", name="Confirm Kernel Restart").click()
        self.await_("() => window.restarted", within=within)
        self.wait_until_idle(within)

    def release(self) -> None:
        """Let a cell of `HELD` come to its end."""
        (self.server.root / "released").touch()

    def value(self, expression: str, within: float = 15) -> str:
        """What an expression is in the kernel, as its repr: read beside the page, in no cell."""
        return str(self.await_(EVALUATE, expression, within=within))

    def wait_for_value(self, expression: str, wanted: str, within: float = 15) -> None:
        """Until an expression has this repr: a widget sends a change only after the one before."""
        until = time.monotonic() + within
        while (found := self.value(expression)) != wanted:
            assert time.monotonic() < until, f"{expression} is {found}, and not {wanted}"

    # Cells

    def run(self, cell: int, *, wait: bool = True, within: float = 60) -> None:
        """Run one cell; with `wait`, until it has ended, and it may not raise."""
        self.go_to(cell)
        if not wait:
            self.page.evaluate(f"() => {{ ({RUN})(); }}")
        elif self.await_(RUN, within=within) is False:
            raise AssertionError(f"cell {cell} raised:\n{self.text(cell)}")

    def run_all(self, *, wait: bool = True, within: float = 120) -> None:
        """Run every cell; with `wait`, until the last has ended, and none may raise."""
        if not wait:
            self.page.evaluate(f"() => {{ ({RUN_ALL})(); }}")
        elif self.await_(RUN_ALL, within=within) is False:
            raise AssertionError(f"a cell raised:\n{self.everything()}")

    def go_to(self, cell: int) -> None:
        self.await_(GO_TO, cell)

    def output(self, cell: int) -> Locator:
        """Where the output of a cell is shown, its widgets too."""
        return self.page.locator(f"{PANEL} .jp-Cell").nth(cell).locator(".jp-Cell-outputArea")

    def text(self, cell: int) -> str:
        """What the output of a cell says; empty where there is none."""
        return "\n".join(self.output(cell).all_inner_texts())

    def everything(self) -> str:
        """What all outputs say."""
        return "\n".join(self.page.locator(OUTPUTS).all_inner_texts())

    def _listen(self, socket: WebSocket) -> None:
        """Count what kernels send to the page."""
        socket.on("framereceived", self._count)

    def _count(self, frame: str | bytes) -> None:
        self.received_bytes += len(frame)

    # What is seen and done in an output

    def wait_for(
        self, text: str | re.Pattern[str], *, cell: int | None = None, within: float = 15
    ) -> Locator:
        """The element that says this in any output, or in that of one cell, once it is seen."""
        outputs = self.page.locator(OUTPUTS) if cell is None else self.output(cell)
        found = outputs.get_by_text(text).first
        try:
            found.wait_for(timeout=within * 1000)
        except TooLate:
            said = self.everything() if cell is None else self.text(cell)
            raise AssertionError(f"{text!r} was not seen in {within} s, but:\n{said}") from None
        return found

    def wait_for_change(self, place: Locator, *, times: int = 1, within: float = 15) -> None:
        """Until what an element holds, a text or a drawing, is no longer what it is now."""
        for _ in range(times):
            self.page.wait_for_function(
                "([place, before]) => place.innerHTML !== before",
                arg=[place.element_handle(), place.inner_html()],
                timeout=within * 1000,
            )

    def button(self, name: str) -> Locator:
        """A button in an output, by its whole accessible name."""
        return self.page.locator(OUTPUTS).get_by_role("button", name=name, exact=True)

    def click(self, name: str) -> None:
        self.button(name).click()

    def field(self, label: str) -> Locator:
        """A field of an output, by its whole label."""
        return self.page.locator(OUTPUTS).get_by_label(label, exact=True)

    def fill(self, label: str, value: str) -> None:
        """Type a value and leave the field, which is when a number is sent."""
        self.field(label).fill(value)
        self.field(label).blur()

    def choose(self, label: str, option: str) -> None:
        """Take an entry of a dropdown."""
        self.field(label).select_option(label=option)

    def press(self, *keys: str) -> None:
        """Keys as Playwright names them, one after the other: "Tab", "Shift+Tab", "Enter"."""
        for key in keys:
            self.page.keyboard.press(key)

    def tab_to(self, name: str, at_most: int = 40) -> None:
        """Press Tab until the keyboard is at what has this name."""
        passed: list[str] = []
        while len(passed) < at_most:
            self.press("Tab")
            passed.append(self.focused)
            if passed[-1] == name:
                return
        raise AssertionError(f"{name!r} was not reached by Tab, but {passed}")

    @property
    def focused(self) -> str:
        """What a screen reader would say of where the keyboard is: its label, or its text."""
        return str(
            self.page.evaluate(
                """() => {
                  const it = document.activeElement;
                  return it.ariaLabel || it.labels?.[0]?.innerText || it.innerText || it.title;
                }"""
            )
        )

    # How it looks

    def theme(self, name: str) -> None:
        """JupyterLab's "light" or "dark" theme, until the end of the test."""
        change = "(theme) => jupyterapp.commands.execute('apputils:change-theme', {theme})"
        self.await_(change, f"JupyterLab {name.capitalize()}")
        light = "true" if name == "light" else "false"
        self.page.locator(f"body[data-jp-theme-light={light}]").wait_for(state="attached")
        self.page.locator(SPLASH).wait_for(state="detached")

    def size(self, width: int, height: int) -> None:
        """Make the window this large; until the notebook is as far from its edge as it was."""
        gap = "(panel) => innerWidth - document.querySelector(panel)?.getBoundingClientRect().right"
        before = self.page.evaluate(gap, PANEL)
        self.page.set_viewport_size({"width": width, "height": height})
        self.page.wait_for_function(
            f"([panel, before]) => Object.is(({gap})(panel), before)", arg=[PANEL, before]
        )

    @property
    def scrolls_sideways(self) -> list[str]:
        """What of the outputs is wider than its place, so that a part is seen only by scrolling."""
        found: list[str] = self.page.evaluate(
            """(outputs) => [...document.querySelectorAll(`${outputs} *`)]
              .filter((it) => ['auto', 'scroll'].includes(getComputedStyle(it).overflowX))
              .filter((it) => it.scrollWidth > it.clientWidth + 1)
              .map((it) => `${it.className}: ${it.scrollWidth} px in ${it.clientWidth}`)""",
            OUTPUTS,
        )
        return found

    def await_(self, script: str, argument: object = None, *, within: float = 15) -> Any:
        """What an asynchronous function of the page gives back, or an error after its limit."""
        late = "reject(new Error('no answer in time'))"
        limit = f"new Promise((_, reject) => setTimeout(() => {late}, {within * 1000}))"
        return self.page.evaluate(
            f"(argument) => Promise.race([({script})(argument), {limit}])", argument
        )
