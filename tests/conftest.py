"""What every test stands on: no network, one thread, a cache of its own, a marker by folder.

The network itself is closed by pytest-socket, whose options stand in pyproject.toml: only this
machine answers. The variables below are set before anything imports torch or datasets, and the
processes that a test starts inherit them.
"""

import gc
import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from stackwise.runs import provenance

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
# One thread in each worker: the workers fill the cores, and sums add in one order.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"

TESTS = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(TESTS):
            item.add_marker(item.path.relative_to(TESTS).parts[0])
    on_a_card = [item for item in items if item.get_closest_marker("card")]
    if on_a_card and not card_is_here():
        for item in on_a_card:
            item.add_marker(pytest.mark.skip(reason="no CUDA card here"))


def card_is_here() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture(scope="module", autouse=True)
def settled_heap() -> None:
    """What is imported by now is never garbage: each of the many collections leaves it out."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def unflushed() -> Iterator[None]:
    """Waiting for the disk would take a sixth of the time; only a power cut could tell."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def commit_asked_once() -> Iterator[None]:
    """Git is not asked three times for each of a thousand runs: the code stays as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(provenance, "_code", cache(provenance._code))
        yield


@pytest.fixture(autouse=True)
def recursion_limit() -> Iterator[None]:
    """What is too deep depends on it, and compiling raises it for good."""
    before = sys.getrecursionlimit()
    yield
    sys.setrecursionlimit(before)


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the data layer keeps prepared text: empty at first, gone afterwards."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STACKWISE_CACHE", str(folder))
        yield folder
