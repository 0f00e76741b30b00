"""In a submission, before anything else is imported: the packages that charstat needs, installed where they are missing.

numba always; CuPy where an NVIDIA driver is found. pip puts a missing one into a private directory, which goes to the END of sys.path:
what the machine has keeps its place, only what it lacks is found there, and numpy stays at the version that is there. Nothing of
this is metered by the contest. The standard library only, so that it can run first.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import shutil
import site
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec

NUMBA = ("numba>=0.60",)
CUPY_FOR_CUDA = {12: ("cupy-cuda12x[ctk]>=13",), 13: ("cupy-cuda13x[ctk]>=13.6",)}  # [ctk]: with NVRTC, which compiles the kernels
PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--only-binary", ":all:")
PIP_LIMIT_S = 900

Say = Callable[[str], None]


def cuda_version() -> int | None:
    """The major version of CUDA that the NVIDIA driver supports, if there is a driver and a device; asks the driver itself, not NVML."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    version, devices = ctypes.c_int(), ctypes.c_int()
    if driver.cuDriverGetVersion(ctypes.byref(version)) or driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(devices)):
        return None
    return version.value // 1000 if devices.value else None


def provide_packages(home: str, backend: str, say: Say) -> None:
    """Make numba importable, and CuPy where backend is not "cpu" and a device is there. ImportError if there is no numba to be had."""
    why = provide("numba", NUMBA, home, say)
    if why is not None:
        raise ImportError(f"numba is missing, and it cannot be installed ({why}): pip install numba, then run again")
    cuda = None if backend == "cpu" else cuda_version()
    if cuda is not None:
        why = provide("cupy", CUPY_FOR_CUDA.get(min(cuda, max(CUPY_FOR_CUDA)), ()), home, say)
        if why is not None:
            say(f"CuPy is missing, and it cannot be installed ({why})")


def provide(module: str, wanted: tuple[str, ...], home: str, say: Say) -> str | None:
    """Make a module importable, installing it into home/MODULE-pyXY if need be; returns why it is not, or None."""
    if find_spec(module) is not None:
        return None
    target = os.path.join(home, f"{module}-py{sys.version_info[0]}{sys.version_info[1]}")
    if not os.path.isdir(target):
        if not wanted:
            return "there are no wheels for this driver"
        say(f"{module} is not installed: pip puts it into {target} (not metered) ...")
        why = _install(wanted, target)
        if why is not None:
            return why
    if target not in sys.path:
        sys.path.append(target)
        _show_as_site_packages(target)
    importlib.invalidate_caches()
    return None if find_spec(module) is not None else f"it is not in {target}, remove that directory"


def _show_as_site_packages(target: str) -> None:
    """Let CuPy find the toolkit that was installed beside it.

    subtle: from version 14 on, CuPy has cuda.pathfinder look for NVRTC and the CUDA headers, and that asks `site` for the directories of
    packages (and CUDA_PATH, and the loader), never sys.path. Without NVRTC no kernel compiles.
    """
    known = site.getsitepackages
    site.getsitepackages = lambda prefixes=None: [*known(prefixes), target]


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
