"""What every benchmark prints: what it ran on, and the spread of its figures."""

from __future__ import annotations

import os
import platform
import statistics
import sys


def header(title: str, text: dict | None = None) -> None:
    """Title, machine, and the text's fingerprint (corpus.text_fingerprint)."""
    import numba
    import numpy

    print(title)
    print(f"  device   {cpu_name()}, {os.cpu_count()} logical CPUs, {platform.system()} {platform.machine()}")
    print(f"  software Python {platform.python_version()}, numpy {numpy.__version__}, numba {numba.__version__}")
    if text:
        print(f"  text     {text['chars']:,} characters, sha256 {text.get('sha256', 'of several parts')[:16]}")
    print(f"  command  python {' '.join(sys.argv)}")
    print()


def cpu_name() -> str:
    try:
        with open("/proc/cpuinfo") as f:
            return next(line.split(":", 1)[1].strip() for line in f if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown CPU"


def spread(values: list[float], form: str = "{:,.0f}") -> str:
    """median (min .. max) of repeated measurements."""
    return f"{form.format(statistics.median(values))} ({form.format(min(values))} .. {form.format(max(values))})"
