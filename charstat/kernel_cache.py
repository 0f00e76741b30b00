"""Compiled kernels that are out of date are dropped.

Numba compiles a cached kernel again when the file it stands in has changed, but not when a function that was inlined into it
has changed in another file: after a `git pull` an old kernel could meet arrays of a new layout. So all cached kernels of the
package go when any of its files has changed. Caches elsewhere (NUMBA_CACHE_DIR) are the business of whoever set it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

STAMP = "__pycache__/kernels.stamp"


def drop_stale_kernels(package: Path) -> bool:
    """Remove the package's cached kernels if its sources changed since they were stamped; returns whether it did so."""
    digest = hashlib.sha256()
    for folder, _, names in sorted(os.walk(package)):
        for name in sorted(n for n in names if n.endswith(".py")):
            status = os.stat(os.path.join(folder, name))
            digest.update(f"{folder}/{name} {status.st_mtime_ns} {status.st_size}\n".encode("utf-8", "surrogateescape"))
    stamp = package / STAMP
    try:
        if stamp.read_text() == digest.hexdigest():
            return False
    except (OSError, ValueError):
        pass
    # A package that cannot be written is one whose kernels are cached elsewhere.
    with contextlib.suppress(OSError):
        stamp.parent.mkdir(exist_ok=True)
        for kernel in package.rglob("__pycache__/*.nb[ic]"):
            kernel.unlink(missing_ok=True)
        stamp.write_text(digest.hexdigest())
    return True
