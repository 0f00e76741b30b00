"""A data set of the hub, streamed through `datasets`: nothing but a batch of rows is held, and nothing is stored on disk.

hub:OWNER/NAME    hub:OWNER/NAME:CONFIG    hub:DIR, a data set in a directory, as `datasets.load_dataset` takes them
"""

from __future__ import annotations

from collections.abc import Iterator

from charstat.errors import CorpusError
from charstat.texts.formats import ROWS, document

PREFIX = "hub:"


def stream_rows(name: str, split: str, field: str) -> Iterator[str]:
    """The documents of a split, in the data set's order, a batch of rows at a time. CorpusError if it has no such column; what `datasets`
    raises otherwise."""
    import datasets

    path, _, config = name.removeprefix(PREFIX).partition(":")
    rows = datasets.load_dataset(path, config or None, split=split, streaming=True)
    names = rows.column_names
    if names is not None:
        if field not in names:
            raise CorpusError(f"{name!r} has no column {field!r}, but {', '.join(map(repr, names))}: name the column with --text-field")
        rows = rows.select_columns([field])
    at = 0
    for batch in rows.iter(ROWS):
        if field not in batch:
            raise CorpusError(f"{name!r} has no column {field!r}, but {', '.join(map(repr, batch))}: name the column with --text-field")
        yield "".join([document(value, f"{name!r}, rows from {at:,}") for value in batch[field]])
        at += len(batch[field])
