"""Joules of a build on many hosts: one meter for each host and GPU, from the first task to the last; what they say, added up.

A counter covers a whole device, so two workers of one host cannot both be charged with it: one of them runs the meter. It reads once a
minute, so that no counter wraps unnoticed. If that worker is lost, so are its joules: null, with the reason.
"""

from __future__ import annotations

import math
import os
import socket
import threading
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from charstat.counting import choose_backend, energy_meter
from charstat.energy import CONTEST_IDLE_GPU_W, OTHER, EnergyReport

READ_S = 60.0
JOULES = ("gpu_gross_j", "gpu_net_j", "cpu_j", "contest_main_j", "contest_dev_j")
_meters: dict[str, HostMeter] = {}  # of this worker, by build


class HostMeter:
    """Measures from start() to stop(), in a thread of its own."""

    def __init__(self, backend: str, threads: int):
        self._meter = energy_meter(choose_backend(backend, threads, 1 << 20)[0])
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with self._meter:
            while not self._end.is_set():
                with self._meter.phase("workers"):
                    self._end.wait(READ_S)

    def stop(self) -> dict:
        self._end.set()
        self._thread.join()
        return self._meter.report().to_dict()


def place_of() -> tuple[str, str]:
    """(host, GPUs that it may use) of this worker."""
    return socket.gethostname(), os.environ.get("CUDA_VISIBLE_DEVICES", "")


def start_meter(build: str, backend: str, threads: int) -> None:
    """Begin to measure on this worker."""
    _meters[build] = HostMeter(backend, threads)


def stop_meter(build: str) -> dict | None:
    """What was measured; None if this worker was restarted since."""
    meter = _meters.pop(build, None)
    return None if meter is None else meter.stop()


class Measured(NamedTuple):
    """What one meter said, or why it could not; first: no other meter counts this host's CPU."""

    host: str
    report: EnergyReport | None
    reason: str
    first: bool


def add_up(measured: Iterable[Measured], worker_seconds: float) -> EnergyReport:
    """The sum over hosts and GPUs; a figure that one of them lacks is None, with that host's reason. seconds: of all workers' tasks."""
    measured = list(measured)
    values: dict[str, list[float | None]] = {key: [] for key in JOULES}
    reasons: dict[str, str] = {}
    notes, warnings, names = [], [], []
    for one in measured:
        for key in JOULES:
            if key == "cpu_j" and not one.first:
                continue
            value = None if one.report is None else getattr(one.report, key)
            values[key].append(value)
            if value is None:
                why = one.reason if one.report is None else one.report.reasons.get(key, "not measured")
                reasons.setdefault(key, f"{one.host}: {why}")
        if one.report is not None:
            notes += one.report.notes
            warnings += [f"{one.host}: {text}" for text in one.report.warnings]
            names += [one.report.gpu_name] if one.report.gpu_name else []
    sums = {key: None if None in column or not column else math.fsum(column) for key, column in values.items()}
    if not names:
        reasons["gpu_name"] = next((one.report.reasons.get("gpu_name", "") for one in measured if one.report is not None), "") or "no GPU"
    phase = {"name": OTHER, "seconds": worker_seconds, "gpu_gross_j": sums["gpu_gross_j"], "cpu_j": sums["cpu_j"]}
    notes = [*dict.fromkeys(notes), f"joules of {len(measured)} meter(s), each over the whole build; seconds of all workers' tasks"]
    base = EnergyReport(
        worker_seconds, ", ".join(sorted(set(names))) or None, CONTEST_IDLE_GPU_W, *[None] * 5, [phase], reasons, warnings, notes
    )
    return replace(base, **sums)


def phase_list(seconds: dict[str, float]) -> list[dict]:
    """Seconds by phase as a manifest lists them, without joules: those are measured for a whole host."""
    return [{"name": name, "seconds": s, "gpu_gross_j": None, "cpu_j": None} for name, s in seconds.items()]
