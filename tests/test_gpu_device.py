"""Choosing a device (gpu/device.py, counting.choose_backend), and the CUDA source that runs on it. No test here needs one."""

import importlib
import importlib.util
import re
import shutil
import subprocess
import sys
import types
import warnings

import numpy as np
import pytest
from fake_cupy import FakeArray, FakeCupy

from charstat.counting import choose_backend
from charstat.errors import BackendUnavailable
from charstat.gpu import device, kernels
from charstat.gpu.arrays import CupyArrays
from charstat.gpu.memory import least_bytes

# Choosing a backend


def fake_driver(monkeypatch, version):
    def query():
        if version is None:
            raise RuntimeError("no driver")
        return version

    nvml = types.SimpleNamespace(nvmlInit=lambda: None, nvmlShutdown=lambda: None, nvmlSystemGetCudaDriverVersion_v2=query)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)


@pytest.mark.parametrize(
    ("version", "advice"),
    [
        (12040, "the NVIDIA driver supports CUDA 12.4: pip install 'cupy-cuda12x[ctk]'"),
        (13000, "the NVIDIA driver supports CUDA 13.0: pip install 'cupy-cuda13x[ctk]'"),
        (14010, "the NVIDIA driver supports CUDA 14.1: pip install 'cupy-cuda13x[ctk]'"),
        (11080, "the NVIDIA driver supports CUDA 11.8, CuPy needs 12 or later: update the driver"),
        (None, "no NVIDIA driver was found; on a machine with one: pip install 'cupy-cuda13x[ctk]', or 'cupy-cuda12x[ctk]' for CUDA 12"),
    ],
)
def test_without_cupy_the_advice_fits_the_driver(monkeypatch, version, advice):
    fake_driver(monkeypatch, version)
    monkeypatch.setitem(sys.modules, "cupy", None)  # import cupy: ModuleNotFoundError
    with pytest.raises(BackendUnavailable) as e:
        choose_backend("gpu")
    assert str(e.value) == f"CuPy is not installed; {advice}"
    backend, why = choose_backend("auto", threads=2)
    assert backend.name == "cpu" and why == f"no GPU: CuPy is not installed; {advice}"


def test_the_cpu_backend_does_not_look_for_a_gpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "charstat.gpu.device", None)
    assert choose_backend("cpu")[1] == "asked for"
    with pytest.raises(BackendUnavailable, match="there is no backend 'tpu'"):
        choose_backend("tpu")


def test_a_device_that_works_is_chosen(monkeypatch, library):
    monkeypatch.setitem(sys.modules, "cupy", FakeCupy(200 << 30, library))
    monkeypatch.setattr(device, "driver_cuda_version", lambda: (13, 0))
    if library is None:
        monkeypatch.setattr(CupyArrays, "launch", lambda *_: False)
    for name in ("gpu", "auto"):
        backend, why = choose_backend(name, chars=540_000_000)
        assert backend.name == "gpu" and backend.pci_bus_id == backend.energy_reader().pci_bus_id == "0000:17:00.0"
        assert backend.device == "Fake GPU" and why == "Fake GPU with 214.7 GB free"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.cuda.runtime.__setattr__("getDeviceCount", lambda: 0), "CuPy finds no CUDA device (CUDA_VISIBLE_DEVICES may hide it)"),
        (
            lambda c: c.cuda.runtime.__setattr__("getDeviceCount", lambda: 1 // 0),
            (
                "CuPy 14.2.0 finds no CUDA device (integer division or modulo by zero); "
                "the NVIDIA driver supports CUDA 12.4: pip install 'cupy-cuda12x[ctk]'; this CuPy is for CUDA 13: uninstall it first"
            ),
        ),
        (
            lambda c: c.__setattr__("RawModule", lambda code: 1 // 0),
            "the GPU does not work (integer division or modulo by zero); the NVIDIA driver supports CUDA 12.4: pip install 'cupy-cuda12x[ctk]'",
        ),
        (
            lambda c: c.memory.__setattr__("limit", 1 << 30),
            f"Fake GPU has 1.1 GB of free memory; counting 540,000,000 characters takes {least_bytes(540_000_000) / 1e9:.1f} GB",
        ),
    ],
)
def test_a_device_that_does_not_work_is_not_chosen(monkeypatch, library, change, message):
    fake = FakeCupy(library=library)
    change(fake)
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setattr(device, "driver_cuda_version", lambda: (12, 4))
    if library is None:
        monkeypatch.setattr(CupyArrays, "launch", lambda *_: False)
    with pytest.raises(BackendUnavailable) as e:
        choose_backend("gpu", chars=540_000_000)
    assert str(e.value) == message
    assert choose_backend("auto", chars=540_000_000)[1] == f"no GPU: {message}"


def test_importing_charstat_does_not_import_cupy():
    code = (
        "import sys, charstat.counting, charstat.model, charstat.gpu, charstat.gpu.device, charstat.gpu.backend\n"
        "charstat.counting.choose_backend('cpu')\n"
        "assert not any(m.split('.')[0] in ('cupy', 'cupyx', 'cupy_backends') for m in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# The CUDA source


def test_every_kernel_is_declared():
    assert re.findall(r"__global__ void (\w+)\(", kernels.source()) == list(kernels.NAMES)


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_the_cuda_source_compiles(tmp_path, arch):
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("no nvcc")
    file = tmp_path / "kernels.cu"
    file.write_text(kernels.source())
    options = f"-arch={arch} -cubin -Werror all-warnings -Xptxas -v -o {tmp_path / 'kernels.cubin'}".split()
    log = subprocess.run([nvcc, *options, str(file)], check=True, capture_output=True, text=True).stderr
    assert len(re.findall("Compiling entry function", log)) == len(kernels.NAMES)
    assert set(re.findall(r"(\d+) bytes spill stores", log)) == {"0"}


def test_cupy_has_what_is_used():
    """Of an installed CuPy, device or not: the names that FakeCupy stands in for."""
    if importlib.util.find_spec("cupy") is None:
        pytest.skip("CuPy is not installed")
    with warnings.catch_warnings(action="ignore"):
        cupy = importlib.import_module("cupy")
    fake = FakeCupy()
    names = [n for n in (*vars(FakeCupy), *vars(fake)) if not n.startswith("_") and n not in ("memory", "cuda")]
    assert [n for n in names if not hasattr(cupy, n)] == []
    assert [n for n in vars(fake.cuda) if not hasattr(cupy.cuda, n)] == []
    assert [n for n in vars(fake.cuda.runtime) if not hasattr(cupy.cuda.runtime, n)] == []
    methods = [n for n in vars(FakeArray) if not n.startswith("_") or n.startswith("__") and n in dir(np.ndarray)]
    assert [n for n in methods if not hasattr(cupy.ndarray, n)] == []
    assert callable(cupy.minimum.at)
    assert issubclass(cupy.cuda.memory.OutOfMemoryError, MemoryError)
