"""Joules of a measured block: GPU (NVML counter), CPU (RAPL counters), seconds, named phases, the two contest formulas.

    seconds         = clock at the end − clock at the start
    gpu_gross_j     = NVML total-energy counter, end − start
    gpu_net_j       = max(0, gpu_gross_j − idle_watts · seconds)
    cpu_j           = RAPL counters of the CPU packages, end − start, unwrapped
    contest_main_j  = max(0, gpu_gross_j − 50 W · seconds)
    contest_dev_j   = max(contest_main_j + 42.5 W · seconds, 50 W · seconds)      (42.5 W: CodeCarbon's CPU constant)

The meter reads the counters at the start, at every phase boundary and at the end, each time after synchronizing the device. What it cannot
measure is None, with the reason in `EnergyReport.reasons`; a counter's exceptions never leave the meter. It does not estimate joules from a
TDP or from power samples, does not measure DRAM, and cannot tell processes apart (a counter covers its whole device). It does not wait for
a counter to tick: NVML updates every 20 to 100 ms, depending on the device, so each end of a window can be off by one update, 6 to 30 J at
300 W. Measure long windows, or repeat.
"""

import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self, TypedDict

from charstat.errors import FormatError, StateError, UserError

__all__ = ["EnergyMeter", "EnergyReader", "EnergyReport", "NvmlReader", "PhaseEnergy", "RaplReader", "format_energy"]
__all__ += ["contest_dev_energy_j", "contest_main_energy_j"]

CONTEST_IDLE_GPU_W = 50.0  # what the contest subtracts from the GPU's joules per second; also the dev rule's minimum
CODECARBON_FALLBACK_CPU_W = 42.5  # CodeCarbon's constant for a CPU whose counters it cannot read
NVML_RESOLUTION_S, RAPL_RESOLUTION_S = 0.1, 0.001  # the slowest steps of the counters; windows under them are noise
RAPL_FASTEST_W = 1000.0  # more than any CPU package draws: a lower bound on the time between two wraps
OTHER = "other"  # the phase of time spent outside phases
GPU_DEVICE_NODES = ("nvidia[0-9]*", "nvhost-gpu", "nvgpu", "dxg")  # under /dev: the only sign of a GPU if NVML is missing


def contest_main_energy_j(gpu_gross_j: float, seconds: float) -> float:
    """Joules by the contest's main rule: GPU counter delta − 50 W · seconds, at least 0."""
    return max(0.0, gpu_gross_j - CONTEST_IDLE_GPU_W * seconds)


def contest_dev_energy_j(gpu_gross_j: float, seconds: float) -> float:
    """Joules by the contest's dev rule: main rule + 42.5 W · seconds of CPU, at least 50 W · seconds."""
    return max(contest_main_energy_j(gpu_gross_j, seconds) + CODECARBON_FALLBACK_CPU_W * seconds, CONTEST_IDLE_GPU_W * seconds)


class EnergyReader:
    """One energy counter, for one block at a time. For other hardware, and in tests, derive from it: find() and read_j()."""

    counter: str = "energy"  # what messages call it
    resolution_s: float = 0.0  # shorter windows are mostly noise
    wrap_s: float = math.inf  # the shortest time between two wraps; reads further apart may miss one
    note: str = ""  # what the counter covers, and how finely
    name: str | None = None  # the device's name
    device_present: bool | None = None  # is there such a device at all? None = cannot tell
    reason: str | None = "the reader is not open"  # why the counter cannot be read; None = it can
    _last_j: float | None = None

    def find(self) -> str | None:
        """Find the counter, set name and device_present; returns why it cannot be read, or None. May raise: that becomes the reason."""
        raise NotImplementedError

    def read_j(self) -> float:
        """Joules since some fixed moment, never decreasing. May raise: that becomes the reason."""
        raise NotImplementedError

    def open(self) -> bool:
        """Find the counter; returns whether it can be read, and sets `reason`. Does not raise."""
        self._last_j = None
        try:
            self.reason = self.find()
        except Exception as error:  # noqa: BLE001  whatever a driver throws becomes the reason
            self.reason = f"the {self.counter} counter cannot be read: {error}"
        return self.reason is None

    def step_j(self) -> float | None:
        """Joules since the last step (0 at the first), or None; a failure sets `reason`, and lasts until open(). Does not raise."""
        if self.reason is not None:
            return None
        last_j = self._last_j
        try:
            self._last_j = now_j = self.read_j()
        except Exception as error:  # noqa: BLE001  as in open()
            self.reason = f"the {self.counter} counter failed inside the block: {error}"
            return None
        if last_j is not None and now_j < last_j:
            self.reason = f"the {self.counter} counter went backwards inside the block"
            return None
        return 0.0 if last_j is None else now_j - last_j

    def warnings(self, seconds: float, total_j: float | None, longest_s: float, shortest_s: Mapping[str, float]) -> Iterator[str]:
        """Reasons to doubt a block's figures. longest_s: the longest time between two reads, shortest_s: each phase's shortest stretch."""
        if total_j is None:
            return
        if seconds < self.resolution_s:
            yield f"window of {seconds:.3f} s is shorter than the {self.resolution_s * 1000:.0f} ms the {self.counter} counter needs"
        elif short := [name for name, stretch_s in shortest_s.items() if stretch_s < self.resolution_s]:
            yield f"phases shorter than the {self.resolution_s * 1000:.0f} ms the {self.counter} counter needs: {', '.join(short)}"
        if total_j == 0 and seconds >= self.resolution_s:
            yield f"the {self.counter} counter did not move in {seconds:.3f} s"
        if longest_s > self.wrap_s:
            yield f"the {self.counter} counter may have wrapped unnoticed in {longest_s:.0f} s: use phases under {self.wrap_s:.0f} s"


class NvmlReader(EnergyReader):
    """Total-energy counter of one NVIDIA GPU (Volta or later), through `pynvml` of nvidia-ml-py, imported by open(); NVML then stays open.

    index: NVML's device number, in PCI order; NVML ignores CUDA_VISIBLE_DEVICES. pci_bus_id ("0000:01:00.0") identifies the CUDA device
    for certain, and takes precedence. dev_root: where the device nodes are, to tell "no GPU" from "a GPU without its library".
    """

    counter = "NVML"
    resolution_s = NVML_RESOLUTION_S
    note = "GPU: NVML total-energy counter in mJ, whole board, all processes; updated every 20 to 100 ms, depending on the device"
    _nvml: Any = None  # the pynvml module, once nvmlInit succeeded
    _handle: Any = None  # the device's

    def __init__(self, index: int = 0, *, pci_bus_id: str | None = None, dev_root: str | Path = "/dev") -> None:
        self.index, self.pci_bus_id, self._dev_root = index, pci_bus_id, Path(dev_root)

    def find(self) -> str | None:
        self.device_present = any(any(self._dev_root.glob(node)) for node in GPU_DEVICE_NODES)
        try:
            import pynvml as nvml
        except Exception as error:  # noqa: BLE001  subtle: another package of that name can fail with more than ImportError
            return f"pynvml cannot be imported, install nvidia-ml-py: {error}"
        try:
            nvml.nvmlInit()
        except nvml.NVMLError as error:
            no_driver = error.value in (nvml.NVML_ERROR_LIBRARY_NOT_FOUND, nvml.NVML_ERROR_DRIVER_NOT_LOADED)
            if no_driver and not self.device_present:
                return "no NVIDIA driver"
            self.device_present = self.device_present or None  # NVML broke otherwise: a missing node proves nothing
            return f"NVML does not start: {error}"
        self._nvml = nvml
        count = nvml.nvmlDeviceGetCount()
        self.device_present = count > 0
        if count == 0:
            return "no NVIDIA device"
        if self.pci_bus_id is None and not 0 <= self.index < count:
            return f"no NVIDIA device {self.index}, this machine has {count}"
        by_bus = self.pci_bus_id is not None
        self._handle = nvml.nvmlDeviceGetHandleByPciBusId(self.pci_bus_id) if by_bus else nvml.nvmlDeviceGetHandleByIndex(self.index)
        self.name = self._query("nvmlDeviceGetName")
        self.read_j()
        return None

    def read_j(self) -> float:
        return self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle) / 1000.0

    def power_w(self) -> float | None:
        """Board power in watts (a mean of up to a second, depending on the device), or None."""
        return None if (milliwatts := self._query("nvmlDeviceGetPowerUsage")) is None else milliwatts / 1000.0

    def sm_clock_mhz(self) -> int | None:
        """Clock of the streaming multiprocessors in MHz, or None."""
        return self._query("nvmlDeviceGetClockInfo", 1)  # NVML_CLOCK_SM

    def _query(self, call: str, *args: int) -> Any:
        with suppress(Exception):  # only the counter is worth an error
            return getattr(self._nvml, call)(self._handle, *args)


class RaplReader(EnergyReader):
    """Sum of the CPU packages' RAPL counters in Linux's powercap class (Intel, and AMD from Zen, which has the same names).

    Top-level package domains only: sub-domains and psys would count joules twice. If one package cannot be read, none is: half a sum is
    wrong. One wrap between two reads is corrected; a second goes unnoticed (a counter of 262 kJ wraps in 22 minutes at 200 W), hence `wrap_s`.
    """

    counter = "RAPL"
    resolution_s = RAPL_RESOLUTION_S
    note = "CPU: RAPL package counters, updated about every 1 ms, all processes; DRAM outside the package is not included"

    def __init__(self, root: str | Path = "/sys/class/powercap") -> None:
        self.root = Path(root)

    def find(self) -> str | None:
        # subtle: the pattern leaves out intel-rapl-mmio:0, which is package 0 a second time
        zones = [zone for zone in sorted(self.root.glob("*")) if re.fullmatch(r"(intel|amd)-rapl:\d+", zone.name)]
        packages = {name: zone for zone in zones if (name := (zone / "name").read_text().strip()).startswith("package")}
        self.device_present = bool(packages)
        if not packages:
            return f"no RAPL counters of CPU packages under {self.root}"
        self._ranges_uj = {zone: int((zone / "max_energy_range_uj").read_text()) for zone in packages.values()}
        self.wrap_s = min(self._ranges_uj.values()) / 1e6 / RAPL_FASTEST_W
        self._total_uj, self._last_uj = 0, dict[Path, int]()
        self.read_j()
        return None

    def read_j(self) -> float:
        for package, range_uj in self._ranges_uj.items():
            now_uj = int((package / "energy_uj").read_text())
            step_uj = now_uj - self._last_uj.get(package, now_uj)
            self._total_uj += step_uj if step_uj >= 0 else step_uj + range_uj
            self._last_uj[package] = now_uj
        return self._total_uj / 1e6


PhaseEnergy = TypedDict("PhaseEnergy", {"name": str, "seconds": float, "gpu_gross_j": float | None, "cpu_j": float | None})


@dataclass(frozen=True)
class EnergyReport:
    """What a measured block cost; formulas in the module header. A field that is None has its reason in `reasons`."""

    seconds: float
    gpu_name: str | None
    idle_watts: float
    gpu_gross_j: float | None
    gpu_net_j: float | None
    cpu_j: float | None
    contest_main_j: float | None
    contest_dev_j: float | None
    phases: list[PhaseEnergy]  # each with all its stretches, in order of first use, "other" last; they add up to the totals
    reasons: dict[str, str]
    warnings: list[str]
    notes: list[str]

    def as_phase(self, name: str) -> PhaseEnergy:
        """The whole block as one phase of something larger."""
        return {"name": name, "seconds": self.seconds, "gpu_gross_j": self.gpu_gross_j, "cpu_j": self.cpu_j}

    def to_dict(self) -> dict[str, Any]:
        """A copy made of JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of to_dict(); unknown keys are ignored. Raises FormatError for missing keys and unusable values."""
        try:
            report = cls(**{field.name: deepcopy(data[field.name]) for field in fields(cls)})
            format_energy(report)  # touches every value
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FormatError(f"not an energy report: {type(error).__name__} {error}") from None
        return report


class EnergyMeter:
    """Measures one `with meter:` block, and parts of it in `with meter.phase("sort"):`; then meter.report().

    gpu, cpu: readers; None looks for the hardware (NVIDIA device 0, RAPL). clock: seconds, monotonic. idle_watts: subtracted in gpu_net_j;
    the contest's formulas keep their 50 W. synchronize: called before every reading, so that queued device work is included; its errors
    belong to the block, and are raised after the reading. Raises UserError for a negative idle_watts.
    """

    def __init__(self, gpu: EnergyReader | None = None, cpu: EnergyReader | None = None, clock: Callable[[], float] = time.perf_counter,
                 idle_watts: float = CONTEST_IDLE_GPU_W, synchronize: Callable[[], object] | None = None) -> None:  # fmt: skip
        if not 0 <= idle_watts < math.inf:
            raise UserError(f"idle_watts must be a number of watts from 0 up, not {idle_watts!r}")
        self._gpu = NvmlReader() if gpu is None else gpu
        self._cpu = RaplReader() if cpu is None else cpu
        self._clock, self._idle_watts, self._synchronize = clock, float(idle_watts), synchronize
        self._phase: str | None = None
        self._last_s: float | None = None  # the clock at the last reading; None before the block
        self._stretches: list[PhaseEnergy] = []  # what lay between two readings, in order
        self._report: EnergyReport | None = None  # None until the block ends

    def __enter__(self) -> Self:
        if self._last_s is not None:
            raise StateError("an EnergyMeter measures one block: make a new one for the next")
        self._gpu.open()
        self._cpu.open()
        self._read(OTHER)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        phase, self._phase = self._phase, None
        try:
            self._read(phase or OTHER, failed=error is not None)
        finally:
            self._report = self._sum_up(error)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure a part of the block; parts of one name add up. Raises StateError outside the block and inside another phase."""
        if self._last_s is None or self._report is not None:
            raise StateError(f"phase {name!r} starts outside `with meter:`")
        if self._phase is not None:
            raise StateError(f"phase {name!r} starts inside phase {self._phase!r}: phases must not overlap")
        self._read(OTHER)
        self._phase, failed = name, True
        try:
            yield
            failed = False
        finally:
            if self._phase is not None:  # else the block ended first, and its last reading closed the phase
                self._phase = None
                self._read(name, failed)

    def _read(self, name: str, failed: bool = False) -> None:
        try:
            if self._synchronize is not None and not failed:  # after an error the device may be broken: its error must not hide the first
                self._synchronize()
        finally:
            now_s, gpu_j, cpu_j = self._clock(), self._gpu.step_j(), self._cpu.step_j()
            if self._last_s is not None:
                self._stretches.append({"name": name, "seconds": now_s - self._last_s, "gpu_gross_j": gpu_j, "cpu_j": cpu_j})
            self._last_s = now_s

    def report(self) -> EnergyReport:
        """The block's report. Raises StateError before the block's end."""
        if self._report is None:
            raise StateError("report() needs a finished `with meter:` block")
        return self._report

    def _sum_up(self, error: BaseException | None) -> EnergyReport:
        gpu, cpu, stretches = self._gpu, self._cpu, self._stretches
        names = [*dict.fromkeys(part["name"] for part in stretches if part["name"] != OTHER), OTHER]
        parts = {name: [part for part in stretches if part["name"] == name] for name in names}
        phases = [_total(name, parts[name]) for name in names]
        _, seconds, gross_j, cpu_j = _total("total", stretches).values()
        notes = [reader.note for reader in (gpu, cpu) if reader.reason is None]
        reasons = {} if cpu.reason is None else {"cpu_j": cpu.reason}
        net_j = main_j = dev_j = None
        if gross_j is not None:
            net_j = max(0.0, gross_j - self._idle_watts * seconds)
            main_j, dev_j = contest_main_energy_j(gross_j, seconds), contest_dev_energy_j(gross_j, seconds)
        else:
            reasons |= dict.fromkeys(("gpu_gross_j", "gpu_net_j", "contest_main_j", "contest_dev_j"), gpu.reason)
            if gpu.device_present is False:
                dev_j = contest_dev_energy_j(0.0, seconds)
                del reasons["contest_dev_j"]
                notes.append("no GPU: the contest's dev rule counts its net joules as 0, which leaves 50 W · seconds")
        if gpu.name is None:
            reasons["gpu_name"] = gpu.reason or "the driver gives no name"
        gaps = (max(part["seconds"] for part in stretches), {name: min(part["seconds"] for part in parts[name]) for name in names[:-1]})
        warnings = [] if error is None else [f"the block ended with {type(error).__name__}: the numbers cover the time up to it"]
        warnings += [*gpu.warnings(seconds, gross_j, *gaps), *cpu.warnings(seconds, cpu_j, *gaps)]
        return EnergyReport(seconds, gpu.name, self._idle_watts, gross_j, net_j, cpu_j, main_j, dev_j, phases, reasons, warnings, notes)


def _total(name: str, parts: list[PhaseEnergy]) -> PhaseEnergy:
    columns = {key: [part[key] for part in parts] for key in ("seconds", "gpu_gross_j", "cpu_j")}
    return {"name": name} | {key: None if None in column else math.fsum(column) for key, column in columns.items()}


def format_energy(report: EnergyReport) -> list[tuple[str, str]]:
    """Rows (label, value) of a table for people: "GPU gross", "123.4 J" or "— (no NVIDIA driver)"."""

    def joules(value: float | None, reason: str | None = None) -> str:
        return f"— ({reason})" if value is None else f"{value:,.1f} J" if value >= 10 else f"{value:.3f} J"

    labels = {"gpu_gross_j": "GPU gross", "gpu_net_j": f"GPU net of {report.idle_watts:g} W idle", "cpu_j": "CPU"}
    labels |= {"contest_main_j": "Contest, main rule", "contest_dev_j": "Contest, dev rule"}
    rows = [("Time", f"{report.seconds:.3f} s"), ("GPU", report.gpu_name or f"— ({report.reasons.get('gpu_name')})")]
    rows += [(label, joules(getattr(report, key), report.reasons.get(key))) for key, label in labels.items()]
    for phase in report.phases:
        parts = [f"{kind} {joules(value)}" for kind, value in (("GPU", phase["gpu_gross_j"]), ("CPU", phase["cpu_j"])) if value is not None]
        rows.append((f"Phase {phase['name']}", ", ".join([f"{phase['seconds']:.3f} s", *parts])))
    return rows + [("Warning", text) for text in report.warnings] + [("Note", text) for text in report.notes]
