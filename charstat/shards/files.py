"""The work directory of a build: files that are complete or not there, each with a record that says what is in it.

    NAME         the data
    NAME.json    the record, written last: {"key": ..., "bytes": ..., "crc32": ..., "result": ...}

A task that finds a record with its own key, and data with that checksum, has been done before. Two workers may run one task at a time:
both write the same bytes, each under a name of its own first.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import socket
import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from charstat.errors import ResourceError, UserError
from charstat.placing import remove_model

BLOCK = 1 << 24
TEMPORARY = ".charstat-tmp"
MARK = "charstat-build.json"  # says whose the directory is, and of which build
# A directory of their own for the shards' models: who writes a model takes the lock of the directory that it goes to, and the build holds
# the work directory's.
SHARDS = "shards"
KINDS = (".text", ".part", ".words", ".ids", ".job", ".history", ".survey", ".classes")  # of data files


def digest_of(value: Any) -> str:
    """A key: the checksum of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def write_file(path: Path, parts: Iterable[bytes | np.ndarray], key: str, result: Callable[[], Any]) -> Any:
    """Write a data file and its record; returns the result, which is asked for when all parts are written. ResourceError if the disk is
    full, or refuses."""
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}{TEMPORARY}")
    crc = size = 0
    try:
        with open(temporary, "wb") as file:
            for part in parts:
                data = part if isinstance(part, bytes) else np.ascontiguousarray(part).view(np.uint8).data
                for at in range(0, len(data), BLOCK):
                    block = data[at : at + BLOCK]
                    crc, size = zlib.crc32(block, crc), size + len(block)
                    file.write(block)
        os.replace(temporary, path)
        found = result()
        temporary.write_text(json.dumps({"key": key, "bytes": size, "crc32": crc, "result": found}))
        os.replace(temporary, record_of(path))
        return found
    except OSError as e:
        raise refused(path, e) from e
    finally:
        with suppress(OSError):
            temporary.unlink()


def refused(path: Path, e: OSError) -> ResourceError:
    """What to raise when the work directory cannot be written."""
    why = "the disk is full" if e.errno in (errno.ENOSPC, errno.EDQUOT) else e.strerror or str(e)
    return ResourceError(f"cannot write {path} in the work directory: {why}; make room, or move it to --work-dir, and go on with --resume")


def shard_name(number: int) -> str:
    """Where a shard's model lies in the work directory."""
    return f"{SHARDS}/{number:06}.shard"


def record_of(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def finished(path: Path, key: str) -> Any:
    """The result of a task that has written this file with this key; None if it has not, or the file was changed since."""
    try:
        record = json.loads(record_of(path).read_bytes())
        if record["key"] != key or os.stat(path).st_size != record["bytes"]:
            return None
        crc = 0
        with open(path, "rb") as file:
            while block := file.read(BLOCK):
                crc = zlib.crc32(block, crc)
        return record["result"] if crc == record["crc32"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def read_array(path: Path, dtype: type, at: int, size: int) -> np.ndarray:
    """`size` values from byte `at` on. ResourceError if they are not there: a work directory is not to be touched by others."""
    try:
        values = np.fromfile(path, dtype, size, offset=at)
    except OSError as e:
        raise ResourceError(f"cannot read {path} in the work directory: {e.strerror or e}") from e
    if values.size != size:
        raise ResourceError(f"{path} in the work directory is truncated: build again without --resume")
    return values


def remove_file(path: Path) -> None:
    """Remove a data file and its record, the record first."""
    for name in (record_of(path), path):
        with suppress(FileNotFoundError):
            name.unlink()


def hold_folder(folder: Path) -> int | None:
    """Make the work directory and lock it, until the descriptor is closed; None where there are no locks. UserError if a build has it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as e:
        raise ResourceError(f"cannot use {folder} as work directory: {e.strerror or e}") from e
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise UserError(f"another build is using the work directory {folder}: wait for it, or choose another --work-dir") from None
    except (ImportError, OSError):  # a file system without locks
        os.close(handle)
        return None
    return handle


def open_folder(folder: Path, key: str, resume: bool) -> bool:
    """Make the work directory, or clear it of an earlier build; with resume, keep what a build with this key has left there.

    Returns whether there was something to go on from. ResourceError for a directory that holds anything else than a build's files, or if it cannot be written.
    """
    mark = folder / MARK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()) and not mark.is_file():
            raise ResourceError(f"the work directory {folder} holds other files: choose an empty one with --work-dir")
        if mark.is_file():
            same = json.loads(mark.read_bytes() or b"{}").get("key") == key
            if resume and same:
                return True
            if resume:
                raise ResourceError(
                    f"the work directory {folder} is of a build with other options, another text or another charstat: "
                    "build without --resume, or choose another --work-dir"
                )
            clear_folder(folder, remove=False)
        mark.write_text(json.dumps({"key": key}))
    except (OSError, ValueError) as e:
        raise ResourceError(f"cannot use {folder} as work directory: {getattr(e, 'strerror', None) or e}") from e
    return False


def clear_folder(folder: Path, remove: bool = True) -> None:
    """Remove what builds have written there, and the directory, too, if nothing else is in it. OSError if a file cannot be removed."""
    if (folder / SHARDS).is_dir():
        for path in sorted((folder / SHARDS).iterdir()):
            with suppress(OSError):
                remove_model(path)
        with suppress(OSError):
            (folder / SHARDS).rmdir()
    for path in sorted(folder.iterdir()):
        if path.name.endswith((*KINDS, *(kind + ".json" for kind in KINDS), TEMPORARY)):
            path.unlink(missing_ok=True)
    (folder / MARK).unlink(missing_ok=True)
    if remove:
        with suppress(OSError):
            folder.rmdir()
