"""In a submission that may count on a GPU: CuPy, installed like numba where it is missing and an NVIDIA driver is found."""

from __future__ import annotations

import ctypes
import glob
import os
import sys
from collections.abc import Callable
from contextlib import suppress

CUPY_FOR_CUDA = {12: ("cupy-cuda12x[ctk]==14.2.0",), 13: ("cupy-cuda13x[ctk]==14.2.0",)}  # [ctk]: with NVRTC, which compiles the kernels


def provide_cupy(home: str, say: Callable[[str], None], provide: Callable) -> None:
    """Make CuPy importable where there is a device; says so if it cannot be done. provide: environment.provide."""
    cuda = cuda_version()
    if cuda is None:
        return
    why = provide("cupy", CUPY_FOR_CUDA.get(min(cuda, max(CUPY_FOR_CUDA)), ()), home, say)
    if why is not None:
        say(f"CuPy is missing, and it cannot be installed ({why})")
    for target in (path for path in sys.path if os.path.dirname(path) == home):
        _announce_toolkit(target)


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


def _announce_toolkit(target: str) -> None:
    """Let CuPy find the CUDA headers and NVRTC that were installed beside it, where pip's own directories have none.

    subtle: CuPy looks for them in the directories of `site`, which `target` is none of, among the libraries that are loaded already, and under
    CUDA_PATH: so NVRTC is loaded here, and the variable set where it is not.
    """
    for folder in ("cu13", "cuda_runtime"):
        root = os.path.join(target, "nvidia", folder)
        if os.path.isdir(os.path.join(root, "include")):
            os.environ.setdefault("CUDA_PATH", root)
    for library in glob.glob(os.path.join(target, "nvidia", "*", "lib", "libnvrtc.so.*")):
        with suppress(OSError):
            ctypes.CDLL(library, ctypes.RTLD_GLOBAL)
