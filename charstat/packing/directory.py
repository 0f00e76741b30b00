"""Writing the packed form: columns in memory that end as one file in a model directory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from charstat.columns import COLUMNS, PACKED
from charstat.packing.form import pack
from charstat.storage import MemoryColumns, array_entry, check_place, write_directory


class PackedColumns(MemoryColumns):
    """Columns that are written as one packed file, into a model directory at `path`."""

    def __init__(self, path: str | os.PathLike, make: Callable[[dict, dict[str, np.ndarray]], Any]):
        """make: makes a Model of a manifest and columns (this file knows none)."""
        super().__init__()
        self._make = make
        self.path = check_place(path)

    def commit(self, manifest: dict) -> tuple[dict, dict[str, np.ndarray]]:
        """Pack the columns, and put the directory in place; returns the manifest and the columns."""
        columns = self.finish()
        model = self._make(manifest, columns)
        data = pack(model.all_columns, list(model.tables.values()), model.vocabulary)
        about = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        arrays = {name: array_entry(columns[name]) for name in COLUMNS}
        return write_directory(self.path, {PACKED: data}, {**manifest, "packed": about, "arrays": arrays}), columns

    def discard(self) -> None:
        """Nothing is on disk before commit()."""
