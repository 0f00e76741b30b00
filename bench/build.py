"""Build time and peak memory: python bench/build.py DATA [--order 8 --contexts default --limit N --threads N --repeats 3]

Every repeat is a process of its own (`charstat build --json`), so that the peak is that of one build; the model is removed.
Reading the text and writing the model are included in the wall time.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import header, spread


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("data")
    p.add_argument("--order", default="8")
    p.add_argument("--contexts", default="default")
    p.add_argument("--limit")
    p.add_argument("--threads")
    p.add_argument("--memory")
    p.add_argument("--repeats", type=int, default=3)
    a = p.parse_args()
    header(f"Build of {a.data}, order {a.order}, contexts {a.contexts}")
    results, walls = [], []
    for _ in range(a.repeats):
        folder = Path(tempfile.mkdtemp(prefix="charstat-bench-"))
        command = [sys.executable, "-m", "charstat.cli", "build", "--data", a.data, "--order", a.order, "--contexts", a.contexts]
        for option in ("limit", "threads", "memory"):
            if getattr(a, option):
                command += [f"--{option}", getattr(a, option)]
        try:
            started = time.perf_counter()
            done = subprocess.run([*command, "--out", str(folder / "model"), "--json"], capture_output=True, text=True, check=False)
            walls.append(time.perf_counter() - started)
            if done.returncode:
                sys.exit(done.stderr)
            results.append(json.loads(done.stdout))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    first = results[0]
    print(f"{first['chars']:,} characters, {first['rows']:,} rows, {first['bytes'] / 1e9:.2f} GB, {first['device']}")
    print(f"median (min .. max) of {a.repeats}")
    print(f"{'wall seconds':16} {spread(walls, '{:.1f}')}")
    print(f"{'counting seconds':16} {spread([r['counting_seconds'] for r in results], '{:.1f}')}")
    print(f"{'peak GB':16} {spread([r['peak_rss_bytes'] / 1e9 for r in results], '{:.2f}')}")
    for phase in [p["name"] for p in first["phases"]]:
        seconds = [next(p["seconds"] for p in r["phases"] if p["name"] == phase) for r in results]
        print(f"  {phase:14} {spread(seconds, '{:.1f}')}")


if __name__ == "__main__":
    main()
