"""Model directories: growing columns on disk or in memory, written atomically, checked on loading.

    manifest.json     format, charstat version, alphabet, tables, text checksum, build report, and size and SHA-256 of each array
    <column>.npy      one-dimensional arrays, memory-mapped on loading; for their layout see ngram/table.py, ngram/words.py,
                      ngram/classes.py (class_hashes, class_labels, topic_scores), ctw/weights.py (betas) and
                      mixers/warm_start.py (start)

A directory is written beside its final place and moved there when it is complete, so that an interrupted build leaves either
the earlier model or the new one. This file knows files; what the columns mean is model.py's.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from charstat.errors import FormatError, ResourceError

FORMAT = "charstat-model"
FORMAT_VERSION = 3
MANIFEST = "manifest.json"
COLUMNS = {
    "buckets": np.uint32,
    "records": np.uint64,
    "rows": np.uint32,
    "sums": np.uint32,
    "first_child": np.uint32,
    "trie_symbol": np.uint8,
    "first_id": np.uint32,
    "class_hashes": np.uint64,
    "class_labels": np.uint16,
    "topic_scores": np.int8,
    "betas": np.float32,
    "start": np.float32,
}
# The others are empty in most models: classes of words, weights of a context tree, the mixture's start.
TABLE_COLUMNS = ("buckets", "records", "rows", "sums", "first_child", "trie_symbol", "first_id")
CLASS_COLUMNS = ("class_hashes", "class_labels", "topic_scores")
HEADER_BYTES = 128  # numpy pads the header of a one-dimensional array to this, with room for any length
WRITE_BYTES = 1 << 24
GROWTH = 8  # room of a column in memory, times what is in it: what moves when it grows is an eighth of it at most


class MemoryColumns:
    """Columns that stay in memory, in arrays that have room to grow: a part is copied once, and free as soon as it was added.

    Room costs address space, not memory: the system gives pages when they are first written.
    """

    def __init__(self) -> None:
        self._room = {name: np.empty(0, dtype) for name, dtype in COLUMNS.items()}
        self._sizes = dict.fromkeys(COLUMNS, 0)

    def append(self, column: str, values: np.ndarray) -> int:
        """Add values at the end of a column; returns where they start. MemoryError if there is no room for them."""
        at = self._sizes[column]
        end = at + values.size
        if end > self._room[column].size:
            room = _room(end, COLUMNS[column])
            room[:at] = self._room[column][:at]
            self._room[column] = room
        self._room[column][at:end] = values
        self._sizes[column] = end
        return at

    def read(self, column: str, at: int, size: int) -> np.ndarray:
        """What append() put there, where it is: good until that column's next append(), and until finish()."""
        return self._room[column][at : at + size]

    def view(self) -> dict[str, np.ndarray]:
        """All columns as they are now: each good until its next append(), and all until finish()."""
        return _read_only({name: self._room[name][:size] for name, size in self._sizes.items()})

    def finish(self) -> dict[str, np.ndarray]:
        """The columns, read-only; the room that was left is given back. Of what read() and view() gave, nothing may be used any more."""
        columns = {}
        for name in COLUMNS:
            column = columns[name] = self._room.pop(name)
            column.resize(self._sizes[name], refcheck=False)  # subtle: to a smaller size, which realloc does in place
            column.setflags(write=False)
        return columns


def _room(size: int, dtype: type) -> np.ndarray:
    """An array for `size` values and as many more as the system grants address space for, up to GROWTH times as many."""
    for times in (GROWTH, 2):
        try:
            return np.empty(times * size, dtype)
        except MemoryError:  # more than the machine has in all, or a system that counts what was not written yet
            continue
    return np.empty(size, dtype)


class DirectoryColumns:
    """Columns that grow on disk, in a temporary directory beside `path`; commit() puts it in place, discard() removes it.

    ResourceError if the place cannot be written or the disk is full; FormatError if something that is no model is there.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        try:
            self._check_target()
            self.path.absolute().parent.mkdir(parents=True, exist_ok=True)
            self._temp = Path(tempfile.mkdtemp(prefix=f".{self.path.name}.", dir=self.path.absolute().parent))
        except OSError as e:
            raise ResourceError(f"cannot write a model at {self.path}: {e.strerror or e}") from e
        self._files, self._hashes = {}, {}
        self._sizes = dict.fromkeys(COLUMNS, 0)
        try:
            for name in COLUMNS:
                self._files[name] = open(self._temp / f"{name}.npy", "w+b")  # noqa: SIM115 (closed by commit and discard)
                self._files[name].write(b"\0" * HEADER_BYTES)
                self._hashes[name] = hashlib.sha256()
        except OSError as e:
            raise self._failed(e) from e
        except BaseException:  # an interrupt: nobody has this object yet, so nobody else can remove the directory
            self.discard()
            raise

    def _check_target(self) -> None:
        if os.path.islink(self.path) or (os.path.exists(self.path) and not os.path.isdir(self.path)):
            raise FormatError(f"{self.path} exists and is not a directory: choose another --out")
        try:
            occupied = os.path.isdir(self.path) and any(self.path.iterdir())
        except OSError as e:
            raise ResourceError(f"cannot write a model at {self.path}: {e.strerror or e}") from e
        if occupied and not is_model(self.path):
            raise FormatError(f"{self.path} is a directory with other files, not a charstat model: choose another --out")

    def _failed(self, e: OSError) -> ResourceError:
        self.discard()
        reason = "the disk is full" if e.errno in (errno.ENOSPC, errno.EDQUOT) else (e.strerror or str(e))
        return ResourceError(f"cannot write the model at {self.path}: {reason}; an earlier model there is unchanged")

    def append(self, column: str, values: np.ndarray) -> int:
        """Add values at the end of a column; returns where they start."""
        at = self._sizes[column]
        data = np.ascontiguousarray(values, COLUMNS[column]).view(np.uint8).data
        try:
            for i in range(0, len(data), WRITE_BYTES):
                self._hashes[column].update(data[i : i + WRITE_BYTES])
                self._files[column].write(data[i : i + WRITE_BYTES])
        except OSError as e:
            raise self._failed(e) from e
        self._sizes[column] += values.size
        return at

    def read(self, column: str, at: int, size: int) -> np.ndarray:
        """What append() put there, read back into memory."""
        dtype = np.dtype(COLUMNS[column])
        try:
            self._files[column].flush()
            return np.fromfile(self._temp / f"{column}.npy", dtype, size, offset=HEADER_BYTES + at * dtype.itemsize)
        except OSError as e:
            raise self._failed(e) from e

    def view(self) -> dict[str, np.ndarray]:
        """All columns as they are now, mapped from the disk."""
        views = {}
        try:
            for name, dtype in COLUMNS.items():
                self._files[name].flush()
                size = self._sizes[name]
                file = self._temp / f"{name}.npy"
                mapped = np.memmap(file, dtype, "r", HEADER_BYTES, (size,)) if size else np.empty(0, dtype)
                views[name] = np.asarray(mapped).view(np.ndarray)
        except OSError as e:
            raise self._failed(e) from e
        return _read_only(views)

    def commit(self, manifest: dict) -> None:
        """Finish the arrays, write the manifest, and move the directory into place."""
        arrays = {}
        try:
            for name, dtype in COLUMNS.items():
                f = self._files[name]
                f.seek(0)
                f.write(npy_header(np.dtype(dtype), self._sizes[name]))
                f.close()
                arrays[name] = {"dtype": np.dtype(dtype).str, "size": self._sizes[name], "sha256": self._hashes[name].hexdigest()}
            text = json.dumps({"format": FORMAT, "format_version": FORMAT_VERSION, **manifest, "arrays": arrays}, indent=1)
            (self._temp / MANIFEST).write_text(text + "\n", encoding="utf-8")
            os.chmod(self._temp, 0o755)
            self._replace()
        except OSError as e:
            raise self._failed(e) from e

    def _replace(self) -> None:
        old = Path(tempfile.mkdtemp(prefix=f".{self.path.name}.", dir=self.path.absolute().parent)) if self.path.exists() else None
        try:
            if old is not None:
                os.rename(self.path, old / "old")
            os.rename(self._temp, self.path)
        except BaseException:  # subtle: also an interrupt between the two; the earlier model goes back
            if old is not None and (old / "old").exists() and not self.path.exists():
                os.rename(old / "old", self.path)
            raise
        finally:
            if old is not None and self.path.exists():  # otherwise the earlier model is still in there
                shutil.rmtree(old, ignore_errors=True)

    def discard(self) -> None:
        """Remove what was written; nothing happens after a commit."""
        for f in self._files.values():
            try:
                f.close()
            except OSError:  # a full disk can refuse the last buffered bytes; they are going anyway
                pass
        shutil.rmtree(self._temp, ignore_errors=True)


def _read_only(views: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same views, read-only as a finished model's arrays are: to numba, that is another type, and another compilation."""
    for view in views.values():
        view.setflags(write=False)
    return views


def npy_header(dtype: np.dtype, size: int) -> bytes:
    """The 128 bytes that start a .npy file of a one-dimensional array."""
    text = f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': ({size},), }}"
    return b"\x93NUMPY\x01\x00" + (HEADER_BYTES - 10).to_bytes(2, "little") + text.ljust(HEADER_BYTES - 11).encode() + b"\n"


def is_model(path: str | os.PathLike) -> bool:
    """Whether the directory has the manifest of a charstat model."""
    try:
        return json.loads((Path(path) / MANIFEST).read_text(encoding="utf-8")).get("format") == FORMAT
    except (OSError, ValueError, AttributeError):
        return False


def read_manifest(path: str | os.PathLike) -> dict:
    """The manifest of a model directory. FormatError says what is missing or foreign."""
    path = Path(path)
    if not os.path.isdir(path):
        raise FormatError(f"no model at {path}: `charstat build --out {path}` makes one")
    file = path / MANIFEST
    if not file.exists():
        raise FormatError(f"{path} is not a model directory: it has no {MANIFEST}")
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise FormatError(f"{file} cannot be read: {e}") from e
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise FormatError(f"{path} is not a charstat model: its {MANIFEST} has another format")
    if manifest.get("format_version") != FORMAT_VERSION:
        raise FormatError(
            f"{path} has format version {manifest.get('format_version')}; this charstat reads version {FORMAT_VERSION}: build it again"
        )
    return manifest


def open_columns(path: str | os.PathLike, manifest: dict, verify: bool = True) -> dict[str, np.ndarray]:
    """The memory-mapped columns, read-only. verify: compare checksums too, not only types and sizes.

    FormatError for a column that is missing, truncated, of another type, or (verify) changed.
    """
    path = Path(path)
    columns = {}
    entries = manifest.get("arrays")
    for name, dtype in COLUMNS.items():
        file = path / f"{name}.npy"
        entry = entries.get(name) if isinstance(entries, dict) else None
        if not isinstance(entry, dict) or not isinstance(entry.get("size"), int):
            raise FormatError(f"{path / MANIFEST} does not describe the array {name}")
        if not file.exists():
            raise FormatError(f"{file} is missing")
        size = entry["size"]
        expected = HEADER_BYTES + size * np.dtype(dtype).itemsize
        if file.stat().st_size != expected:
            raise FormatError(f"{file} has {file.stat().st_size:,} bytes where {expected:,} are expected: it is truncated or foreign")
        try:
            with open(file, "rb") as f:
                header = f.read(HEADER_BYTES)
            if header != npy_header(np.dtype(dtype), size):
                raise FormatError(f"{file} does not hold the array that {MANIFEST} describes")
            mapped = np.load(file, mmap_mode="r") if size else np.empty(0, dtype)
        except OSError as e:
            raise FormatError(f"{file} cannot be read: {e.strerror or e}") from e
        columns[name] = np.asarray(mapped).view(np.ndarray)
        columns[name].setflags(write=False)
    if verify:
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            sums = list(pool.map(lambda name: _sha256(columns[name]), COLUMNS))
        for name, found in zip(COLUMNS, sums, strict=True):
            if found != manifest["arrays"][name].get("sha256"):
                raise FormatError(f"{path / name}.npy was changed after it was written: its checksum does not match")
    return columns


def _sha256(values: np.ndarray) -> str:
    digest = hashlib.sha256()
    data = values.view(np.uint8).data
    for i in range(0, len(data), WRITE_BYTES):
        digest.update(data[i : i + WRITE_BYTES])
    return digest.hexdigest()
