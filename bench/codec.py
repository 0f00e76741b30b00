"""Compressed sizes and times beside other compressors: python bench/codec.py FILE|DIR... [--model DIR] [--only NAMES] [--bytes N]

    --score [--repeats 3]    charstat alone: coded bytes beside what score() says, and its speed in both directions beside score()'s

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
import resource
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

from common import header, spread

PPMD_ORDER, PPMD_BYTES = 16, 1 << 30
COMMANDS = {
    "xz -9e": (["xz", "-9e", "-k", "-T1", "in"], ["xz", "-d", "-c", "in.xz"], "in.xz"),
    "zstd --ultra -22": (["zstd", "--ultra", "-22", "-q", "--single-thread", "in"], ["zstd", "-d", "-c", "-q", "in.zst"], "in.zst"),
    "bzip3 -b 16": (["bzip3", "-e", "-b", "16", "in", "in.bz3"], ["bzip3", "-d", "-c", "in.bz3"], "in.bz3"),
    "zpaq -m5": (["zpaq", "add", "in.zpaq", "in", "-m5", "-t1"], ["zpaq", "extract", "in.zpaq", "in", "-to", "out", "-t1"], "in.zpaq"),
}
Measured = tuple[int, float, float]  # bytes, seconds to compress, seconds to decompress


def with_ppmd(library: ModuleType, data: bytes) -> Measured:
    encoder, decoder = library.Ppmd7Encoder(PPMD_ORDER, PPMD_BYTES), library.Ppmd7Decoder(PPMD_ORDER, PPMD_BYTES)
    return in_process(lambda data: encoder.encode(data) + encoder.flush(), lambda packed: decoder.decode(packed, len(data)), data)


def busy_s() -> float:
    """Processor seconds of this process and of those it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


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

        ways["ppmd -o16"] = partial(with_ppmd, pyppmd)
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


def measure_coders(decisions: int = 500_000, chars: int = 2000) -> None:
    """What a library's coder would cost: a call a decision, and for each the way out of the compiled loop and back."""
    import numpy as np

    from charstat.codec.stream import Encoder

    rng = np.random.default_rng(1)
    ones = rng.random(decisions)
    bits = (rng.random(decisions) < ones).astype(np.int64)
    try:
        import constriction

        library, model = constriction.stream.queue.RangeEncoder(), constriction.stream.model
        started = busy_s()
        for bit, p in zip(bits.tolist(), ones.tolist(), strict=True):
            library.encode(bit, model.Bernoulli(p, perfect=False))
        print(f"a call of constriction's encoder        {1e6 * (busy_s() - started) / decisions:8.2f} microseconds")
    except ImportError:
        print("constriction is not installed")
    text = (b"To be or not to be. " * chars)[:chars]
    seconds = []
    for pieces in (1, chars):
        encoder = Encoder()
        encoder.encode(text[:100])
        started = busy_s()
        for i in range(pieces):
            encoder.encode(text[i * chars // pieces : (i + 1) * chars // pieces])
        seconds.append(busy_s() - started)
    print(f"a call of the compiled loop             {1e6 * (seconds[1] - seconds[0]) / chars:8.2f} microseconds")


def beside_score(data: bytes, model_path: str | None, repeats: int) -> None:
    """What coding adds to the bits and to the seconds of score()."""
    from charstat import Model
    from charstat.codec.files import as_text, choose_source, compress, decompress
    from charstat.codec.sources import BYTES, halves_of, source_with

    decompress(compress(b"compiles the kernels").data)
    model = Model.load(model_path, verify=False) if model_path else None
    source = source_with(model) if model else choose_source(data)
    text = source.model.alphabet.decode(halves_of(data)) if source.mode == BYTES else as_text(data)
    seconds: list[list[float]] = []
    for _ in range(repeats):
        stream = source.model.stream()
        stream.reset()
        stream.score(text[:64])  # compiles
        stream.reset()
        started = busy_s()
        price_bytes = stream.score(text).sum() / 8
        score_s = busy_s() - started
        size, *coding_s = in_process(lambda data: compress(data, model).data, lambda packed: decompress(packed, model), data)
        seconds.append([score_s, *coding_s])
    header_bytes = len(source.header(0).pack())
    print(f"  score() says {price_bytes:,.1f} bytes; coded {size:,}: {size - price_bytes:+,.1f} ({100 * (size / price_bytes - 1):+.4f} %), "
          f"{header_bytes:,} of them the header")  # fmt: skip
    for name, which in (("encoding", 1), ("decoding", 2)):
        print(
            f"  {name}: {spread([100 * s[0] / s[which] for s in seconds])} % of score()'s speed; {spread([s[which] for s in seconds], '{:.1f}')} s"
        )


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("files", nargs="*", type=Path)
    p.add_argument("--model", metavar="DIR")
    p.add_argument("--only", metavar="NAMES", help="compressors whose names begin like one of these, with commas")
    p.add_argument("--bytes", type=int, metavar="N", help="the first N bytes of each file")
    p.add_argument("--coder", action="store_true")
    p.add_argument("--score", action="store_true")
    p.add_argument("--repeats", type=int, default=3, metavar="N", help="of --score")
    a = p.parse_args()
    header("Compressed sizes")
    if a.coder:
        measure_coders()
    wanted = tuple(a.only.split(",")) if a.only else ("",)
    ways = compressors(a.model, wanted) if a.files and not a.score else {}
    for path in a.files:
        data = read(path, a.bytes)
        print(f"{path.name}: {len(data):,} bytes")
        if a.score:
            beside_score(data, a.model, a.repeats)
            continue
        print(f"  {'':18} {'bytes':>12} {'bits/byte':>10} {'pack s':>9} {'unpack s':>9}")
        for name, way in ways.items():
            size, packed_s, unpacked_s = way(data)
            print(f"  {name:18} {size:12,} {8 * size / max(1, len(data)):10.4f} {packed_s:9.2f} {unpacked_s:9.2f}", flush=True)
        print()


if __name__ == "__main__":
    sys.exit(main())
