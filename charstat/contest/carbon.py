"""The CPU's joules as the contest's dev branch counts them: by CodeCarbon, where it is installed, and otherwise by a constant.

The dev branch's order is kept: the GPU's counter is read, CodeCarbon's tracker started (which takes more than a second), then the clock; and
at the end the clock, the counter, the tracker. So the tracker's start is in the GPU's joules, and a train() that does nothing has a
price, which `charstat contest` measures by running one, and shows beside the figure.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from charstat.energy import CODECARBON_FALLBACK_CPU_W, CONTEST_IDLE_GPU_W, EnergyMeter, EnergyReport

WATT_HOURS_J = 3.6e6  # joules of a kilowatt-hour


@dataclass(frozen=True)
class DevFigures:
    """A metered window by the dev rule. seconds: by the contest's clock; whole_s: with the tracker's start and stop.

    gpu_j: the GPU's counter less 50 W of the seconds, None without a counter; cpu_j: the tracker's, or the constant's; total_j: their sum, at
    least 50 W of the seconds; without a GPU its part is 0.
    """

    seconds: float
    whole_s: float
    gpu_j: float | None
    cpu_j: float
    total_j: float | None

    def to_dict(self) -> dict[str, Any]:
        keys = {"seconds": self.seconds, "whole_seconds": self.whole_s, "training_energy_J": self.gpu_j}
        return keys | {"cpu_energy_J": self.cpu_j, "total_energy_J": self.total_j}


def codecarbon_tracker() -> tuple[Callable[[], Any] | None, str]:
    """(maker of a tracker, or None without CodeCarbon; what is said of it)."""
    try:
        import codecarbon
    except Exception as e:  # noqa: BLE001  a package that is there and broken is as good as none
        what = "is not installed" if isinstance(e, ModuleNotFoundError) else f"cannot be imported ({type(e).__name__})"
        constant = f"{CODECARBON_FALLBACK_CPU_W:g} W · seconds, the constant of the recorded runs"
        return None, f"codecarbon {what}: the CPU is taken as {constant}; pip install 'charstat[contest]'"
    # As in the contest's wikitext.py.
    make = lambda: codecarbon.EmissionsTracker(save_to_file=False, log_level="error", measure_power_secs=1.0)
    return make, f"codecarbon {codecarbon.__version__}"


class DevWindow:
    """`with DevWindow(meter, make_tracker):` around what is metered; then figures() and report."""

    def __init__(self, meter: EnergyMeter, make_tracker: Callable[[], Any] | None):
        self._meter, self._make = meter, make_tracker
        self._cpu_j: float | None = None

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        self._meter.__enter__()
        self._tracker = None if self._make is None else self._make()
        if self._tracker is not None:
            self._tracker.start()
        self._clock = time.monotonic()
        return self

    def __exit__(self, *error: object) -> None:
        seconds = time.monotonic() - self._clock
        self._meter.__exit__(*error)
        self.seconds = self.report.seconds if self._tracker is None else seconds
        if self._tracker is not None:
            self._tracker.stop()
            self._cpu_j = self._tracker._total_cpu_energy.kWh * WATT_HOURS_J  # where the contest reads it, too
        self._whole_s = time.monotonic() - self._started

    @property
    def report(self) -> EnergyReport:
        return self._meter.report()

    def figures(self) -> DevFigures:
        report, seconds = self.report, self.seconds
        cpu_j = CODECARBON_FALLBACK_CPU_W * seconds if self._cpu_j is None else self._cpu_j
        gross, no_gpu = report.gpu_gross_j, "contest_dev_j" not in report.reasons
        gpu_j = None if gross is None else max(0.0, gross - CONTEST_IDLE_GPU_W * seconds)
        total_j = None if gross is None and not no_gpu else max((gpu_j or 0.0) + cpu_j, CONTEST_IDLE_GPU_W * seconds)
        return DevFigures(seconds, self._whole_s, gpu_j, cpu_j, total_j)
