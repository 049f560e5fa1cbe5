"""A real browser and a real JupyterLab for all tests, and a fresh page for each of them.

The browser is the system's Chromium, driven by the playwright package; nothing downloads one.
Where there is none the tests are skipped, saying so, and in CI they fail. What was seen is kept in
`screenshots/`, beside what the page wrote in its console, under the name of the test.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from . import servers

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from .console import Console
    from .lab import Lab

SCREENSHOTS = Path(__file__).parent / "screenshots"
FAILED = pytest.StashKey[bool]()
ARGUMENTS = [
    "--no-sandbox",  # Chromium's own refuses to start as root, which CI is
    "--disable-gpu",
    "--no-first-run",
    # Nothing is asked of the network.
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

if importlib.util.find_spec("playwright") is None:
    collect_ignore_glob = ["test_*.py"]


def pytest_report_header() -> str | None:
    if importlib.util.find_spec("playwright") is None:
        return "tests/browser is left out: it needs playwright, pip install -e '.[browser]'"
    return None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.when == "call":
        item.stash[FAILED] = report.failed
    return report


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    executable = shutil.which("chromium")
    if executable is None:
        why = "no Chromium here: apt-get install chromium fonts-dejavu-core"
        pytest.fail(why) if os.environ.get("CI") else pytest.skip(why)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def screenshots() -> Path:
    """The folder, with nothing in it of the tests before."""
    shutil.rmtree(SCREENSHOTS, ignore_errors=True)
    SCREENSHOTS.mkdir(exist_ok=True)
    return SCREENSHOTS


@pytest.fixture
def viewport() -> tuple[int, int]:
    """Width and height of the page; a test that wants others parametrizes `viewport`."""
    return (1280, 800)


@pytest.fixture
def colour_scheme() -> str:
    """What the page is told that its user prefers, "light" or "dark"."""
    return "light"


@pytest.fixture
def page(
    chromium: Browser,
    screenshots: Path,
    request: pytest.FixtureRequest,
    viewport: tuple[int, int],
    colour_scheme: str,
) -> Iterator[Page]:
    """A page that remembers nothing; what it shows at the end of the test is kept as a picture."""
    width, height = viewport
    context = chromium.new_context(
        viewport={"width": width, "height": height}, color_scheme=colour_scheme
    )
    context.set_default_timeout(15_000)
    page = context.new_page()
    yield page
    failed = "-failed" if request.node.stash.get(FAILED, True) else ""
    with contextlib.suppress(Exception):  # a page that hangs is what the test has just told
        page.screenshot(path=screenshots / f"{name_of(request)}{failed}.png")
    context.close()


@pytest.fixture
def console(page: Page, screenshots: Path, request: pytest.FixtureRequest) -> Iterator[Console]:
    """What the page writes in its console is kept; a test whose page complained has failed."""
    from .console import Console

    console = Console(page)
    yield console
    (screenshots / f"{name_of(request)}.log").write_text("\n".join([*console.lines, ""]))
    assert not console.complaints, "the page complained:\n" + "\n".join(console.complaints)


@pytest.fixture
def picture(page: Page, screenshots: Path, request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Keep what is seen now, under the name of the test and a word of its own."""

    def keep(word: str) -> None:
        page.screenshot(path=screenshots / f"{name_of(request)}-{word}.png")

    return keep


def name_of(request: pytest.FixtureRequest) -> str:
    return re.sub(r"\W+", "_", request.node.name.removeprefix("test_")).strip("_")


@pytest.fixture(scope="session")
def lab_server(
    chromium: Browser, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[servers.Served]:
    with servers.jupyterlab(tmp_path_factory.mktemp("lab")) as served:
        yield served


@pytest.fixture
def empty_server(lab_server: servers.Served) -> Iterator[servers.Served]:
    """The server without files and kernels; so it is left behind, too."""
    yield lab_server
    lab_server.forget()


@pytest.fixture
def lab(
    empty_server: servers.Served, page: Page, console: Console, picture: Callable[[str], None]
) -> Lab:
    """A page on an empty JupyterLab; it is closed before the server is emptied again."""
    from .lab import Lab

    return Lab(page, empty_server, console, picture)


@pytest.fixture
def running() -> Iterator[contextlib.ExitStack]:
    """What ends with the test, after its page has been closed."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def voila(
    running: contextlib.ExitStack, page: Page, console: Console, tmp_path: Path
) -> Callable[[Path], servers.Served]:
    """Serve a notebook as an app, and open it in the page: `voila(path)`."""

    def serve(notebook: Path) -> servers.Served:
        served = running.enter_context(servers.voila(tmp_path / "voila", notebook))
        page.goto(f"{served.url}/?token={served.token}", timeout=90_000)  # it runs the cells first
        return served

    return serve
