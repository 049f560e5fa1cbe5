"""Hugging Face data sets as text, through the `datasets` library.

A name is looked up as a folder in the data folder first: one that `save_to_disk` wrote, or one
with files that `datasets` can read. Anything else is a name on the hub.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from stackwise.choice import Params
from stackwise.data.errors import DataError, known, missing_package
from stackwise.data.files import as_text, first_line

SAVED = ("dataset_dict.json", "state.json")


class HubParams(Params):
    """A Hugging Face data set, from the hub or from a local folder."""

    kind: Literal["hf"] = "hf"
    dataset: str = Field(
        min_length=1, description="name on the hub, or a folder in the data folder"
    )
    config: str | None = Field(None, description="which of its configurations; empty: its only one")
    split: str = Field("train", min_length=1, description="which of its splits; slices are allowed")
    column: str = Field("text", min_length=1, description="the column that holds the text")
    revision: str | None = Field(
        None, description="commit on the hub; pinned to 40 hex digits, the text is read only once"
    )
    streaming: bool = Field(
        False, description="read over the network as needed, without downloading the whole first"
    )
    documents: int | None = Field(None, ge=1, description="only the first so many; empty: all")


def hub_texts(params: HubParams, data_dir: Path) -> Iterator[str]:
    """The strings of the column, in the data set's order.

    Raises:
        DataError: If `datasets` is missing, or the data set, configuration, split or column is.
    """
    rows: Any = _opened(params, data_dir)
    names = rows.column_names
    if names is not None and params.column not in names:
        raise DataError(
            f"data set {params.dataset}: has no column {params.column!r}; "
            f"its columns: {known(names)}"
        )
    if names is not None:
        rows = rows.select_columns([params.column])
    for number, row in enumerate(_guarded(islice(rows, params.documents), params.dataset), 1):
        place = f"data set {params.dataset}: row {number}"
        if params.column not in row:
            raise DataError(f"{place} has no {params.column!r}; it has: {known(row)}")
        yield as_text(row[params.column], f"{place}, column {params.column!r}")


def _opened(params: HubParams, data_dir: Path) -> Any:
    try:
        import datasets
    except ImportError:
        raise missing_package("data.corpus=hf", "datasets") from None
    folder = data_dir / Path(params.dataset).expanduser()
    if Path(params.dataset).is_absolute() and not folder.is_dir():
        raise DataError(f"data set {params.dataset}: no such folder; correct data.corpus.dataset")
    try:
        if any((folder / name).is_file() for name in SAVED):
            return _split(datasets.load_from_disk(str(folder)), params)
        return datasets.load_dataset(
            str(folder) if folder.is_dir() else params.dataset,
            params.config,
            split=params.split,
            revision=params.revision,
            streaming=params.streaming,
        )
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise _unavailable(params, error) from None


def _split(saved: Any, params: HubParams) -> Any:
    """One split of what `save_to_disk` wrote: a dict of splits, or a single nameless one."""
    if not isinstance(saved, Mapping):
        return saved
    if params.split not in saved:
        raise ValueError(f'Unknown split "{params.split}". Should be one of {list(saved)}')
    return saved[params.split]


def _guarded(rows: Iterable[Any], name: str) -> Iterator[Any]:
    """The rows, with what goes wrong on the way as one clear error."""
    from datasets.exceptions import DatasetsError

    try:
        yield from rows
    except (OSError, DatasetsError) as error:
        raise DataError(f"data set {name}: reading stopped: {first_line(error)}") from None


def _unavailable(params: HubParams, error: Exception) -> DataError:
    cause = error.__cause__ or error.__context__
    why = f" ({first_line(cause)})" if cause is not None else ""
    return DataError(
        f"data set {params.dataset}: {first_line(error)}{why}; check data.corpus.dataset (a name "
        "on the hub or a folder in placement.data_dir), config, split and revision, and that the "
        "network answers"
    )
