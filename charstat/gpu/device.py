"""Is there a GPU to count on? CuPy, a driver, a device, enough free memory, and a kernel that compiles and runs.

    find_gpu()    the backend and why it can be used; BackendUnavailable says what to install or change

CuPy has one wheel for each major version of CUDA, and the driver decides which one works. Without its [ctk] extra, a wheel needs
a CUDA toolkit on the machine (NVRTC compiles the kernels), so the advice includes the extra.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from charstat.errors import BackendUnavailable
from charstat.gpu.memory import least_bytes

if TYPE_CHECKING:
    from charstat.gpu.backend import GPUBackend

OLDEST_CUDA, NEWEST_CUDA = 12, 13  # major versions that CuPy has wheels for


def driver_cuda_version() -> tuple[int, int] | None:
    """The CUDA version that the NVIDIA driver supports, such as (12, 4); None without a driver."""
    try:
        import pynvml

        pynvml.nvmlInit()
        try:
            version = pynvml.nvmlSystemGetCudaDriverVersion_v2()
        finally:
            pynvml.nvmlShutdown()
    except Exception:  # noqa: BLE001  whatever failed, the driver's version is unknown
        return None
    return version // 1000, version % 1000 // 10


def advice(driver: tuple[int, int] | None) -> str:
    """What to install for this driver."""
    if driver is None:
        return "no NVIDIA driver was found; on a machine with one: pip install 'cupy-cuda13x[ctk]', or 'cupy-cuda12x[ctk]' for CUDA 12"
    if driver[0] < OLDEST_CUDA:
        return f"the NVIDIA driver supports CUDA {driver[0]}.{driver[1]}, CuPy needs {OLDEST_CUDA} or later: update the driver"
    wheel = f"cupy-cuda{min(driver[0], NEWEST_CUDA)}x"
    return f"the NVIDIA driver supports CUDA {driver[0]}.{driver[1]}: pip install '{wheel}[ctk]'"


def find_gpu(chars: int | None = None, memory_bytes: int | None = None, threads: int = 1) -> tuple[GPUBackend, str]:
    """The GPU backend and why it can be used. chars: the text's length; memory_bytes: use no more device memory than this.

    BackendUnavailable if CuPy, a device, or enough memory is missing: the message says which, and how to install it.
    """
    try:
        cupy = importlib.import_module("cupy")
    except ImportError as e:
        missing = isinstance(e, ModuleNotFoundError) and e.name == "cupy"
        what = "CuPy is not installed" if missing else f"CuPy cannot be imported ({first_line(e)})"
        raise BackendUnavailable(f"{what}; {advice(driver_cuda_version())}") from None
    except Exception as e:  # noqa: BLE001  a broken CuPy can fail with anything
        raise BackendUnavailable(f"CuPy cannot be imported ({first_line(e)}); {advice(driver_cuda_version())}") from None
    try:
        devices = cupy.cuda.runtime.getDeviceCount()
    except Exception as e:  # noqa: BLE001  CUDARuntimeError, or an ImportError of libcudart
        driver = driver_cuda_version()
        built = cupy.cuda.runtime.runtimeGetVersion() // 1000 if driver else 0
        swap = f"; this CuPy is for CUDA {built}: uninstall it first" if driver and built > driver[0] else ""
        help_ = advice(driver) if driver else "no NVIDIA driver was found"
        raise BackendUnavailable(f"CuPy {cupy.__version__} finds no CUDA device ({first_line(e)}); {help_}{swap}") from None
    if devices == 0:
        raise BackendUnavailable("CuPy finds no CUDA device (CUDA_VISIBLE_DEVICES may hide it)")
    from charstat.gpu.backend import GPUBackend

    try:
        backend = GPUBackend(cupy, memory_bytes, threads=threads)
        backend.probe()
    except Exception as e:  # a device that is taken, a toolkit without NVRTC, a driver that is too old for it
        raise BackendUnavailable(f"the GPU does not work ({first_line(e)}); {advice(driver_cuda_version())}") from e
    free = backend.arrays.free_bytes()
    if chars is not None and free is not None and free < least_bytes(chars):
        raise BackendUnavailable(
            f"{backend.device} has {free / 1e9:.1f} GB of free memory; "
            f"counting {chars:,} characters takes {least_bytes(chars) / 1e9:.1f} GB"
        )
    return backend, f"{backend.device} with {free / 1e9:.1f} GB free"


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type's name."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
