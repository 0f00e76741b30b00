"""In a submission, before anything else is imported: the packages that charstat needs, installed where they are missing.

numba; and CuPy for a backend that wants it (cuda.py). Versions are pinned. pip puts a missing one into a private directory, which goes to the END of sys.path:
what the machine has keeps its place, only what it lacks is found there, and numpy stays at the version that is there. Nothing of
this is metered by the contest. The standard library only, so that it can run first.
"""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec

NUMBA = ("numba==0.68.1", "llvmlite==0.50.0")  # for numpy 2.0 to 2.4
PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--only-binary", ":all:")
PIP_LIMIT_S = 900

Say = Callable[[str], None]


def provide_packages(home: str, backend: str, say: Say) -> None:
    """Make numba importable, and CuPy where backend is not "cpu" and a device is there. ImportError if there is no numba to be had."""
    why = provide("numba", NUMBA, home, say)
    if why is not None:
        raise ImportError(f"numba is missing, and it cannot be installed ({why}): pip install numba, then run again")
    if backend != "cpu":
        from charstat.contest.cuda import provide_cupy

        provide_cupy(home, say, provide)


def provide(module: str, wanted: tuple[str, ...], home: str, say: Say) -> str | None:
    """Make a module importable, installing it into home/MODULE-VERSION-pyXY if need be; returns why it is not, or None."""
    if find_spec(module) is not None:
        return None
    if not wanted:
        return "there are no wheels for this driver"
    version = wanted[0].rpartition("=")[2]
    target = os.path.join(home, f"{module}-{version}-py{sys.version_info[0]}{sys.version_info[1]}")
    if not os.path.isdir(target):
        say(f"{module} is not installed: pip puts it into {target} (not metered) ...")
        why = _install(wanted, target)
        if why is not None:
            return why
    if target not in sys.path:
        sys.path.append(target)
    importlib.invalidate_caches()
    return None if find_spec(module) is not None else f"it is not in {target}, remove that directory"


def _install(wanted: tuple[str, ...], target: str) -> str | None:
    """pip install --target; the directory appears when it is complete. Returns the reason of a failure."""
    pins = []
    if find_spec("numpy") is not None:  # the numba that fits this numpy, not the newest
        import numpy

        pins = [f"numpy=={numpy.__version__.partition('+')[0]}"]
    made = tempfile.mkdtemp(prefix="install-", dir=os.path.dirname(target))
    try:
        done = subprocess.run(
            [sys.executable, *PIP, "--target", made, *wanted, *pins],
            check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=PIP_LIMIT_S,
        )  # fmt: skip
        if done.returncode:
            lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
            lines.insert(0, f"pip: status {done.returncode}")
            return next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1])
        os.rename(made, target)
    except subprocess.TimeoutExpired:
        return f"pip took more than {PIP_LIMIT_S} s"
    except OSError as e:  # no write, or another process was faster
        return None if os.path.isdir(target) else str(e)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return None
