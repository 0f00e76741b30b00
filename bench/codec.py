"""Compressed sizes and times beside other compressors: python bench/codec.py FILE|DIR... [--model DIR] [--only NAMES] [--bytes N]

    xz, zstd, bzip3, zpaq    the commands, where they are installed, on one thread
    ppmd                     pyppmd (extra bench), variant H, order 16, 1 GB
    charstat                 without a model, and with --model

Seconds are processor seconds, of one thread everywhere: what else the machine does hardly counts. Every result is decompressed and
compared. A directory is taken as one tar file of what lies in it (names, no times). --coder measures what
a library's arithmetic coder costs at one call a decision, and this package's own.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from common import header

PPMD_ORDER, PPMD_BYTES = 16, 1 << 30
COMMANDS = {
    "xz -9e": (["xz", "-9e", "-k", "-T1", "in"], ["xz", "-d", "-c", "in.xz"], "in.xz"),
    "zstd --ultra -22": (["zstd", "--ultra", "-22", "-q", "--single-thread", "in"], ["zstd", "-d", "-c", "-q", "in.zst"], "in.zst"),
    "bzip3 -b 511": (["bzip3", "-e", "-b", "511", "in", "in.bz3"], ["bzip3", "-d", "-c", "in.bz3"], "in.bz3"),
    "zpaq -m5": (["zpaq", "add", "in.zpaq", "in", "-m5", "-t1"], ["zpaq", "extract", "in.zpaq", "in", "-to", "out", "-t1"], "in.zpaq"),
}
Measured = tuple[int, float, float]  # bytes, seconds to compress, seconds to decompress


def busy_s() -> float:
    """Processor seconds of this process and of those it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def with_command(pack: list[str], unpack: list[str], result: str, data: bytes) -> Measured:
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        (here / "in").write_bytes(data)
        started = busy_s()
        subprocess.run(pack, cwd=here, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        packed_s, started = busy_s() - started, busy_s()
        (here / "in").unlink()
        back = subprocess.run(unpack, cwd=here, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
        unpacked_s = busy_s() - started
        assert data == ((here / "out").read_bytes() if (here / "out").exists() else back), f"{pack[0]} did not give the file back"
        return (here / result).stat().st_size, packed_s, unpacked_s


def in_process(pack: Callable[[bytes], bytes], unpack: Callable[[bytes], bytes], data: bytes) -> Measured:
    started = busy_s()
    packed = pack(data)
    packed_s, started = busy_s() - started, busy_s()
    assert unpack(packed) == data, "the file did not come back"
    return len(packed), packed_s, busy_s() - started


def compressors(model_path: str | None, wanted: tuple[str, ...]) -> dict[str, Callable[[bytes], Measured]]:
    """Those whose names begin like one of `wanted`."""
    ways = {name: partial(with_command, *way) for name, way in COMMANDS.items() if shutil.which(way[0][0])}
    try:
        import pyppmd

        settings = {"max_order": PPMD_ORDER, "mem_size": PPMD_BYTES, "variant": "H"}
        ways["ppmd -o16"] = partial(
            in_process, lambda data: pyppmd.compress(data, **settings), lambda packed: pyppmd.decompress(packed, **settings)
        )
    except ImportError:
        print("pyppmd is not installed: no PPMd")
    if not "charstat".startswith(wanted) and not any(name.startswith("charstat") for name in wanted):
        return {name: way for name, way in ways.items() if name.startswith(wanted)}
    from charstat import Model
    from charstat.codec.files import compress, decompress

    decompress(compress(b"compiles the kernels").data)
    ways["charstat"] = partial(in_process, lambda data: compress(data).data, decompress)
    if model_path:
        model = Model.load(model_path, verify=False)
        ways["charstat --model"] = partial(in_process, lambda data: compress(data, model).data, lambda packed: decompress(packed, model))
    return {name: way for name, way in ways.items() if name.startswith(wanted)}


def read(path: Path, limit: int | None) -> bytes:
    if not path.is_dir():
        return path.read_bytes()[:limit]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for file in sorted(p for p in path.rglob("*") if p.is_file() and "__pycache__" not in p.parts):
            entry = tarfile.TarInfo(str(file.relative_to(path)))
            entry.size = file.stat().st_size
            with open(file, "rb") as f:
                tar.addfile(entry, f)
    return out.getvalue()[:limit]


def measure_coders(decisions: int = 50_000) -> None:
    """One call a decision of constriction's range encoder, against the compiled one (a call for all)."""
    import numpy as np

    from charstat.codec import coder as own

    rng = np.random.default_rng(1)
    ones = rng.random(decisions)
    bits = (rng.random(decisions) < ones).astype(np.int64)
    try:
        import constriction

        encoder = constriction.stream.queue.RangeEncoder()
        started = busy_s()
        for bit, p in zip(bits.tolist(), ones.tolist(), strict=True):
            encoder.encode(bit, constriction.stream.model.Bernoulli(p))
        print(f"constriction, a call a decision   {decisions / (busy_s() - started):12,.0f} decisions/s")
    except ImportError:
        print("constriction is not installed")
    edges = np.array([0, 1, 3], np.int64)
    own.code_index(*own.new_encoder(64), False, edges, 0)
    encoder = own.with_room(own.new_encoder(1), decisions)
    started = busy_s()
    for bit in bits.tolist():
        own.code_index(*encoder, False, edges, bit)
    print(f"charstat's, a call a decision     {decisions / (busy_s() - started):12,.0f} decisions/s (in the kernel's loop: no call)")


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("files", nargs="*", type=Path)
    p.add_argument("--model", metavar="DIR")
    p.add_argument("--only", metavar="NAMES", help="compressors whose names begin like one of these, with commas")
    p.add_argument("--bytes", type=int, metavar="N", help="the first N bytes of each file")
    p.add_argument("--coder", action="store_true")
    a = p.parse_args()
    header("Compressed sizes")
    if a.coder:
        measure_coders()
    wanted = tuple(a.only.split(",")) if a.only else ("",)
    ways = compressors(a.model, wanted) if a.files else {}
    for path in a.files:
        data = read(path, a.bytes)
        print(f"{path.name}: {len(data):,} bytes")
        print(f"  {'':18} {'bytes':>12} {'bits/byte':>10} {'pack s':>9} {'unpack s':>9}")
        for name, way in ways.items():
            size, packed_s, unpacked_s = way(data)
            print(f"  {name:18} {size:12,} {8 * size / max(1, len(data)):10.4f} {packed_s:9.2f} {unpacked_s:9.2f}", flush=True)
        print()


if __name__ == "__main__":
    sys.exit(main())
