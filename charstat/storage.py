"""Model directories: growing columns on disk or in memory, written atomically, checked on loading.

    manifest.json     format, charstat version, alphabet, tables, text checksum, build report, and size and SHA-256 of each array
    <column>.npy      one-dimensional arrays, memory-mapped on loading; for their layout see ngram/table.py, ngram/words.py,
                      ngram/classes.py (class_hashes, class_labels, topic_scores), ctw/weights.py (betas) and
                      mixers/warm_start.py (start)
    packed.bin        instead of those: all arrays in one file, decoded on loading (packing/form.py)

A directory is written beside its final place and moved there when it is complete, so that an interrupted build leaves either
the earlier model or the new one (placing.py). Who reads one opens the directory once, and its files from there, so that all of them
are one model's. This file knows files; what the fields mean is manifest.py's, and what the columns mean model.py's and verify.py's.
"""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np

from charstat.arguments import check_path
from charstat.columns import COLUMNS, PACKED
from charstat.errors import FormatError, ResourceError
from charstat.manifest import MANIFEST, MAX_BYTES, MAX_VALUES, MODEL, Kind, parse, seal
from charstat.manifest import read as read_sealed
from charstat.placing import check_target, new_directory, open_file, place, read_file, recover, remove_model, uninterrupted

HEADER_BYTES = 128  # numpy pads the header of a one-dimensional array to this, with room for any length
WRITE_BYTES = 1 << 24
READS = 100  # how often a model that is replaced while it is read is read again
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


def _read_only(views: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same views, read-only as a finished model's arrays are: to numba, another type, and another compilation."""
    for view in views.values():
        view.setflags(write=False)
    return views


class DirectoryColumns:
    """Columns that grow on disk, in a temporary directory beside `path`; commit() puts it in place, discard() removes it.

    kind, columns: of what model; those of a Model by default.

    ResourceError if the place cannot be written or the disk is full; FormatError if something is there that charstat did not write. A
    column that is dropped without discard(), by an interrupt between two lines, is removed with it.
    """

    def __init__(self, path: str | os.PathLike, kind: Kind = MODEL, columns: dict[str, type] = COLUMNS):
        self.path = Path(check_path(path, "the place for a model"))
        self._kind, self._columns = kind, columns
        self._temp, self._handle = None, None
        self._files, self._hashes = {}, {}
        self._sizes = dict.fromkeys(columns, 0)
        with uninterrupted():
            try:
                check_target(self.path)
                self.path.absolute().parent.mkdir(parents=True, exist_ok=True)
                self._temp, self._handle = new_directory(self.path)
            except OSError as e:
                self.discard()
                raise ResourceError(f"cannot write a model at {self.path}: {e.strerror or e}") from e
            try:
                for name in columns:
                    self._files[name] = open(self._temp / f"{name}.npy", "w+b")  # noqa: SIM115 (closed by commit and discard)
                    self._files[name].write(b"\0" * HEADER_BYTES)
                    self._hashes[name] = hashlib.sha256()
            except OSError as e:
                raise self._failed(e) from e
            except BaseException:
                self.discard()
                raise
            self._removal = weakref.finalize(self, _remove, os.getpid(), self._files, self._temp, self._handle)
            _written[self._temp] = self.path

    def _failed(self, e: OSError) -> ResourceError:
        self.discard()
        reason = "the disk is full" if e.errno in (errno.ENOSPC, errno.EDQUOT) else (e.strerror or str(e))
        return ResourceError(f"cannot write the model at {self.path}: {reason}; an earlier model there is unchanged")

    def append(self, column: str, values: np.ndarray) -> int:
        """Add values at the end of a column; returns where they start."""
        at = self._sizes[column]
        data = np.ascontiguousarray(values, self._columns[column]).view(np.uint8).data
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
        dtype = np.dtype(self._columns[column])
        try:
            self._files[column].flush()
            return np.fromfile(self._temp / f"{column}.npy", dtype, size, offset=HEADER_BYTES + at * dtype.itemsize)
        except OSError as e:
            raise self._failed(e) from e

    def view(self) -> dict[str, np.ndarray]:
        """All columns as they are now, mapped from the disk: good even when the directory is moved, replaced or removed."""
        try:
            for f in self._files.values():
                f.flush()
            return {name: _map(self._files[name].fileno(), np.dtype(dtype), self._sizes[name]) for name, dtype in self._columns.items()}
        except OSError as e:
            raise self._failed(e) from e

    def commit(self, manifest: dict) -> tuple[dict, dict[str, np.ndarray]]:
        """Finish the arrays, write the manifest, and move the directory into place; returns what was written, whoever replaces it next."""
        arrays = {}
        try:
            for name, dtype in self._columns.items():
                f = self._files[name]
                f.seek(0)
                f.write(npy_header(np.dtype(dtype), self._sizes[name]))
                arrays[name] = _entry(np.dtype(dtype), self._sizes[name], self._hashes[name].hexdigest())
            columns = self.view()
            for f in self._files.values():
                f.close()
            data = seal({"format": self._kind.format, "format_version": self._kind.version, **manifest, "arrays": arrays})
            (self._temp / MANIFEST).write_bytes(data)
            os.chmod(self._temp, 0o755)
            with uninterrupted():
                place(self._temp, self.path)
        except OSError as e:
            raise self._failed(e) from e
        return parse(data), columns

    def discard(self) -> None:
        """Remove what was written; nothing happens after a commit."""
        with uninterrupted():
            if "_removal" in self.__dict__:
                self._removal()
            else:
                _remove(os.getpid(), self._files, self._temp, self._handle)


_written: dict[Path, Path] = {}  # directories that this process built in, and where they went or were to go


def placed_models() -> list[Path]:
    """Where this process has put models: what somebody who interrupts it must be told."""
    return [path for temp, path in _written.items() if not os.path.lexists(temp) and os.path.lexists(path)]


def _remove(pid: int, files: dict, temp: Path | None, handle: int | None) -> None:
    """Close and remove a directory that was not put in place. A forked child does not remove its parent's."""
    with uninterrupted():
        for f in files.values():
            with suppress(OSError):  # a full disk can refuse the last buffered bytes; they are going anyway
                f.close()
        if temp is not None and os.getpid() == pid and os.path.lexists(temp):
            _written.pop(temp, None)
            with suppress(OSError):
                remove_model(temp)
        if handle is not None:
            with suppress(OSError):
                os.close(handle)


def _map(handle: int, dtype: np.dtype, size: int) -> np.ndarray:
    """The values of a column's file, mapped, read-only."""
    if not size:
        values = np.empty(0, dtype)
        values.setflags(write=False)
        return values
    mapped = mmap.mmap(handle, HEADER_BYTES + size * dtype.itemsize, access=mmap.ACCESS_READ)
    return np.frombuffer(mapped, dtype, size, HEADER_BYTES)


def npy_header(dtype: np.dtype, size: int) -> bytes:
    """The 128 bytes that start a .npy file of a one-dimensional array."""
    text = f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': ({size},), }}"
    return b"\x93NUMPY\x01\x00" + (HEADER_BYTES - 10).to_bytes(2, "little") + text.ljust(HEADER_BYTES - 11).encode() + b"\n"


def check_place(path: str | os.PathLike) -> Path:
    """The place for a model, where one can be written. ResourceError, FormatError if not."""
    DirectoryColumns(path).discard()
    return Path(path)


def write_directory(path: Path, files: dict[str, bytes], manifest: dict) -> dict:
    """Put a model directory of these files in its place; returns its manifest. ResourceError, FormatError as for DirectoryColumns."""
    data = seal({"format": MODEL.format, "format_version": MODEL.version, **manifest})
    temp, handle = None, None
    try:
        with uninterrupted():
            temp, handle = new_directory(path)
            _written[temp] = path
        for name, content in {**files, MANIFEST: data}.items():
            (temp / name).write_bytes(content)
        os.chmod(temp, 0o755)
        with uninterrupted():
            place(temp, path)
    except OSError as e:
        reason = "the disk is full" if e.errno in (errno.ENOSPC, errno.EDQUOT) else (e.strerror or str(e))
        raise ResourceError(f"cannot write the model at {path}: {reason}; an earlier model there is unchanged") from e
    finally:
        _remove(os.getpid(), {}, temp, handle)
    return parse(data)


def open_model(path: str | os.PathLike, kind: Kind = MODEL, expected: dict[str, type] = COLUMNS) -> tuple[dict, dict[str, np.ndarray]]:
    """The manifest and the memory-mapped, read-only columns of a model directory, all of one model, whoever replaces it meanwhile.

    Looked at: the manifest's checksum, the kinds, types and sizes of the files. FormatError says what is missing, truncated or foreign.
    """
    path = Path(check_path(path, "a model"))
    for _ in range(READS):
        recover(path)
        try:
            folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (OSError, ValueError) as e:
            if isinstance(e, PermissionError):
                raise FormatError(f"{path} cannot be read: {e.strerror}") from e
            raise FormatError(f"no model at {path}: `charstat build --out {path}` makes one") from e
        try:
            manifest = _read_manifest(folder, path, kind)
            return manifest, _open_columns(folder, path, manifest, expected)
        except FormatError:
            if _is_at(folder, path):
                raise
        finally:
            os.close(folder)
    raise ResourceError(f"the model at {path} is replaced faster than it can be read")


def _is_at(folder: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(folder), os.stat(path))
    except OSError:
        return False


def _read_manifest(folder: int, path: Path, kind: Kind) -> dict:
    try:
        data = read_file(MANIFEST, MAX_BYTES, folder)
    except FileNotFoundError:
        raise FormatError(f"{path} is not a model directory: it has no {MANIFEST}") from None
    except OSError as e:
        raise FormatError(f"{path / MANIFEST} cannot be read: {e.strerror or e}") from e
    return read_sealed(data, path, kind)


def _open_columns(folder: int, path: Path, manifest: dict, expected: dict[str, type]) -> dict[str, np.ndarray]:
    columns = {}
    entries = manifest.get("arrays")
    if "packed" in manifest and expected is COLUMNS:
        return _open_packed(folder, path, manifest)
    for name, dtype in expected.items():
        file, dtype = path / f"{name}.npy", np.dtype(dtype)
        entry = entries.get(name) if isinstance(entries, dict) else None
        size = entry.get("size") if isinstance(entry, dict) else None
        if type(size) is not int or not 0 <= size <= MAX_VALUES:
            raise FormatError(f"{path / MANIFEST} does not describe the array {name}")
        try:
            handle = open_file(file.name, folder)
            try:
                found, expected = os.fstat(handle).st_size, HEADER_BYTES + size * dtype.itemsize
                if found != expected:
                    raise FormatError(f"{file} has {found:,} bytes where {expected:,} are expected: it is truncated or foreign")
                if os.pread(handle, HEADER_BYTES, 0) != npy_header(dtype, size):
                    raise FormatError(f"{file} does not hold the array that {MANIFEST} describes")
                columns[name] = _map(handle, dtype, size)
            finally:
                os.close(handle)
        except FileNotFoundError:
            raise FormatError(f"{file} is missing") from None
        except OSError as e:
            raise FormatError(f"{file} cannot be read: {e.strerror or e}") from e
    return columns


def _open_packed(folder: int, path: Path, manifest: dict) -> dict[str, np.ndarray]:
    """The columns of a packed model, decoded."""
    from charstat.manifest import check_manifest
    from charstat.packing.form import unpack

    file = path / PACKED
    try:
        check_manifest(manifest)
        data = read_file(PACKED, manifest["packed"]["bytes"], folder)
        if len(data) != manifest["packed"]["bytes"] or hashlib.sha256(data).hexdigest() != manifest["packed"]["sha256"]:
            raise FormatError(f"{file} was changed after it was written: its checksum does not match")
        return unpack(data, manifest)
    except FileNotFoundError:
        raise FormatError(f"{file} is missing") from None
    except OSError as e:
        raise FormatError(f"{file} cannot be read: {e.strerror or e}") from e
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise FormatError(f"{file} is damaged: {e}") from None


def check_sums(path: str | os.PathLike, manifest: dict, columns: dict[str, np.ndarray]) -> None:
    """FormatError unless the columns have the checksums that the manifest says."""
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        sums = list(pool.map(lambda name: array_sha256(columns[name]), columns))
    for name, found in zip(columns, sums, strict=True):
        if found != manifest["arrays"][name].get("sha256"):
            file = PACKED if "packed" in manifest else f"{name}.npy"
            raise FormatError(f"{Path(path) / file} was changed after it was written: its checksum does not match")


def disk_bytes(manifest: dict) -> int:
    """Bytes of the files of a model directory."""
    if "packed" in manifest:
        return len(seal(manifest)) + manifest["packed"]["bytes"]
    return len(seal(manifest)) + sum(HEADER_BYTES + a["size"] * np.dtype(a["dtype"]).itemsize for a in manifest["arrays"].values())


def _entry(dtype: np.dtype, size: int, digest: str) -> dict:
    return {"dtype": dtype.str, "size": size, "sha256": digest}


def array_entry(values: np.ndarray) -> dict:
    """What the manifest says of an array."""
    return _entry(values.dtype, values.size, array_sha256(values))


def array_sha256(*arrays: np.ndarray) -> str:
    """What the manifest says of an array's values: the SHA-256 of their bytes, in hexadecimal. Several arrays count as one."""
    digest = hashlib.sha256()
    for values in arrays:
        data = values.view(np.uint8).data
        for i in range(0, len(data), WRITE_BYTES):
            digest.update(data[i : i + WRITE_BYTES])
    return digest.hexdigest()
