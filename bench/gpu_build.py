"""Counting on the CPU and on the GPU, side by side: seconds, joules, phases, and the floor by bytes moved.

    python bench/gpu_build.py --text featured.txt.xz --sizes 1M,20M,135M,540M --repeats 5 --json out.json --markdown bench/GPU.md
    python bench/gpu_build.py --text wiki.train.raw --sizes 1M,5M,20M,135M,540M --repeats 5,5,5,3,1 --cpu-up-to 540M --memory 4G

A run is one count() of a backend: symbols in host memory to tables in host memory. "train" is one build_model() from the text, in
memory. The weights of a context tree (gpu_weights.py) are timed up to --weights-up-to characters. Every run is timed alone; the joules are those of one block of runs that lasts ENERGY_S or more, divided by the runs, because
NVML's counter steps every 100 ms. The files are written after every size. Texts that are too short are repeated, the copies with one in eight lower-case letters replaced by
another that depends on the position. Where there is no GPU, it says so and measures the CPU.

Memory: the text (4 bytes a character if one of them is beyond U+FFFF), a byte a character for the symbols, in "train" all tables (some
10 bytes a character at 540 M, order 8), and what --memory allows for counting, which is 60 % of what is free where it is not given.
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import platform
import statistics
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.gpu_weights import measure_weights, weights_table
from charstat.alphabet import Alphabet
from charstat.corpus import text_fingerprint
from charstat.counting import build_model, choose_backend
from charstat.energy import EnergyMeter
from charstat.errors import BackendUnavailable
from charstat.ngram.contexts import EXACT_ORDER, select_contexts
from charstat.ngram.hashing import CHARS
from charstat.ngram.table import CountTable
from charstat.ngram.words import model_symbol_info

ENERGY_S = 2.0
MARKS = ("<!-- measured: begin -->", "<!-- measured: end -->")
SORT_BYTES = 8 * 16 + 8  # of a 64-bit key in a radix sort of 8-bit digits: 8 passes read and write it, the digit counts read it once
CHUNK_CHARS = 1 << 24  # of a copy that are changed at a time
KEY_BYTES = 8 + 8  # written by the key kernel, read by the reduction


def parse_size(text: str) -> int:
    """1M -> 1,000,000. ArgumentTypeError for what is no number from 1 up."""
    scale = {"k": 10**3, "M": 10**6, "G": 10**9}.get(text[-1:], 1)
    try:
        size = int(float(text.rstrip("kMG")) * scale)
    except (ValueError, OverflowError):
        size = 0
    if size < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number such as 5M")
    return size


def parse_sizes(text: str) -> list[int]:
    """1M,20M -> [1,000,000, 20,000,000]. ArgumentTypeError as parse_size."""
    return [parse_size(part) for part in text.split(",")]


def read_text(path: str | None, limit: int) -> tuple[str, str]:
    """(the first `limit` characters, what they are). path: UTF-8, or that in .xz; None: ../shared/data, else the embedded sample."""
    if path is None:
        found = [p for p in (ROOT.parent / "shared/data/featured.txt.xz", ROOT / ".bench/featured.txt.xz") if p.is_file()]
        if not found:
            from charstat.corpus import open_corpus

            return open_corpus("sample").text("train", limit), "embedded sample (not WikiText)"
        path = str(found[0])
    opener = lzma.open if path.endswith(".xz") else open
    with opener(path, "rt", encoding="utf-8", newline="") as f:
        return f.read(limit), Path(path).name


def extend(text: str, n: int) -> str:
    """n characters: the text, cut or repeated; see the header."""
    if len(text) >= n:
        return text[:n]
    pieces = [text]
    for copy in range(len(text), n, len(text)):
        for first in range(0, min(len(text), n - copy), CHUNK_CHARS):
            points = np.frombuffer(text[first : min(first + CHUNK_CHARS, n - copy)].encode("utf-32-le"), np.uint32)
            letters = (points >= ord("a")) & (points <= ord("z"))
            positions = np.arange(copy + first, copy + first + points.size, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(
                32
            )
            replaced = letters & (positions % np.uint64(8) == 0)
            changed = np.where(replaced, ord("a") + (positions >> np.uint64(3)) % np.uint64(26), points).astype("<u4")
            pieces.append(changed.tobytes().decode("utf-32-le"))
    return "".join(pieces)


class Machine:
    """What the numbers were measured on."""

    def __init__(self, threads: int, memory_bytes: int | None, limit_bytes: int | None):
        self.cpu, _ = choose_backend("cpu", threads, memory_bytes)
        self.about = {"python": platform.python_version(), "numpy": np.__version__, "threads": threads, "cpu": cpu_name()}
        self.gpu, self.why_not = None, None
        started = time.perf_counter()
        try:
            self.gpu, why = choose_backend("gpu", threads, limit_bytes)
        except BackendUnavailable as e:
            self.why_not = str(e)
            self.about["gpu"] = None
            return
        self.about |= {"gpu": why, "gpu_start_s": time.perf_counter() - started}

    def backend(self, name: str):
        return self.gpu if name == "gpu" else self.cpu

    def meter(self, name: str) -> EnergyMeter:
        backend = self.backend(name)
        return EnergyMeter(self.gpu.energy_reader() if self.gpu else None, synchronize=backend.synchronize)

    def sample_idle(self, seconds: float = 2.0) -> None:
        """Power and clocks before anything runs."""
        reader = self.gpu.energy_reader()
        if not reader.open():
            self.about["idle"] = {"reason": reader.reason}
            return
        watts, clocks = [], []
        for _ in range(int(seconds * 10)):
            watts.append(reader.power_w())
            clocks.append(reader.sm_clock_mhz())
            time.sleep(0.1)
        self.about["idle"] = {"watts": spread([w for w in watts if w is not None]), "sm_mhz": spread([c for c in clocks if c is not None])}

    def measure_bandwidth(self) -> None:
        """Bytes per second of a copy on the device (read and written bytes both counted), and of a pinned copy to the host."""
        size = min(4 << 30, self.gpu.arrays.free_bytes() // 4) // 8 * 8
        for name, rate in zip(("device_bytes_per_s", "host_bytes_per_s"), copy_rates(self.gpu, size), strict=True):
            self.about[name] = rate
        self.gpu.arrays.release()

    def warm_up(self, chars: int, weights: bool) -> None:
        """Compile everything, timed: the first time, and again, which is what is left when the caches are full."""
        for name in ("warm_up_s", "warm_up_again_s"):
            started = time.perf_counter()
            self.gpu.warm_up(chars, weights)
            self.gpu.synchronize()
            self.about[name] = time.perf_counter() - started


def copy_rates(gpu, size: int) -> tuple[float, float]:
    """Best of ten: bytes per second on the device, and from it to pinned memory."""
    cupy = gpu.arrays.xp
    source, target = cupy.zeros(size // 8, np.uint64), cupy.empty(size // 8, np.uint64)
    pinned = np.frombuffer(cupy.cuda.alloc_pinned_memory(min(size, 256 << 20)), np.uint8, min(size, 256 << 20))
    part = source.view(np.uint8)[: pinned.size]

    def copy_on_device() -> None:
        target[:] = source

    def copy_to_host() -> None:
        part.get(out=pinned)

    def best(step, moved: int) -> float:
        times = []
        for _ in range(10):
            gpu.synchronize()
            started = time.perf_counter()
            step()
            gpu.synchronize()
            times.append(time.perf_counter() - started)
        return moved / min(times)

    return best(copy_on_device, 2 * size), best(copy_to_host, pinned.size)


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def spread(values: list[float]) -> dict | None:
    return {"min": min(values), "median": statistics.median(values), "max": max(values), "n": len(values)} if values else None


def run(backend, symbols: np.ndarray, contexts, info, phase) -> dict:
    """One count(); what its tables are."""
    found = {"contexts": 0, "rows": 0, "bytes": 0, "tokens": 0}
    for part in backend.count(symbols, 0, contexts, info, phase):
        found["bytes"] += part.n_bytes
        if isinstance(part, CountTable):
            found["contexts"] += part.n_contexts
            found["rows"] += part.n_rows
            if part.sums is not None:
                found["tokens"] = int(part.sums[-1])
    return found


def measure(machine: Machine, name: str, text: str, repeats: int, args: argparse.Namespace) -> dict:
    """The numbers of one backend and one size."""
    backend, contexts = machine.backend(name), select_contexts(args.contexts, args.order)
    started = time.perf_counter()
    alphabet = Alphabet.from_text(text, args.threads)
    symbols = alphabet.encode(text, args.threads)
    encode_s = time.perf_counter() - started
    info = model_symbol_info(alphabet)
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        found = run(backend, symbols, contexts, info, lambda _: nullcontext())
        seconds.append(time.perf_counter() - started)
    runs = max(1, int(np.ceil(ENERGY_S / statistics.median(seconds))))
    with machine.meter(name) as meter:
        for _ in range(runs):
            run(backend, symbols, contexts, info, meter.phase)
    energy = meter.report().to_dict()
    del symbols  # build_model has its own
    memory = args.memory if name == "cpu" else args.device_memory
    started = time.perf_counter()
    build_model(text, order=args.order, contexts=args.contexts, backend=name, threads=args.threads, memory_bytes=memory)
    train_s = time.perf_counter() - started
    joules = {
        k: None if energy[k] is None else energy[k] / runs for k in ("gpu_gross_j", "gpu_net_j", "cpu_j", "contest_main_j", "contest_dev_j")
    }
    phases = {p["name"]: {k: None if p[k] is None else p[k] / runs for k in ("seconds", "gpu_gross_j")} for p in energy["phases"]}
    return {
        "chars": len(text), "backend": name, "seconds": spread(seconds), "encode_s": encode_s, "train_s": train_s, "energy_runs": runs,
        "metered_s": energy["seconds"] / runs, "joules": joules, "reasons": energy["reasons"], "warnings": energy["warnings"],
        "phases": phases, "tables": found, "notes": list(dict.fromkeys(getattr(backend, "notes", []))),
        "floor": floor(machine, contexts, len(text), found) if name == "gpu" else None,
    }  # fmt: skip


def floor(machine: Machine, contexts, chars: int, found: dict) -> dict:
    """Seconds below which bytes cannot be moved, at the measured rates: input read and tables written once; that and radix sorts; the bus."""
    exact = any(c.kind == CHARS and c.param <= EXACT_ORDER for c in contexts)
    sorts = sum(1 for c in contexts if not c.is_words and not (c.kind == CHARS and c.param <= EXACT_ORDER)) + exact
    words = sum(c.is_words for c in contexts)
    keys = chars * sorts + found["tokens"] * (words + bool(words))
    device, host = machine.about["device_bytes_per_s"], machine.about["host_bytes_per_s"]
    return {
        "keys": keys,
        "least_s": (chars + found["bytes"]) / device,
        "sorts_s": (chars * sorts + found["bytes"] + keys * (SORT_BYTES + KEY_BYTES)) / device,
        "bus_s": (chars + found["bytes"]) / host,
    }


def number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def report(machine: Machine, results: list[dict], weighed: list[dict], text: str, args: argparse.Namespace) -> str:
    """Everything as Markdown that reads well as text."""
    about = machine.about
    lines = [f"Command: `{args.command}`", ""]
    lines += [f"- text: {text}; contexts {args.contexts}, order {args.order}; count: n runs, min / median / max; encode and train: one"]
    lines += [f"- host: {about['cpu']}, {about['threads']} threads; Python {about['python']}, NumPy {about['numpy']}"]
    if machine.gpu is None:
        lines += [f"- **no device was found: nothing here ran on a GPU.** {machine.why_not}"]
    else:
        idle = about.get("idle", {})
        watts, clocks = idle.get("watts"), idle.get("sm_mhz")
        lines += [f"- device: {about['gpu']}; CuPy {machine.gpu.arrays.xp.__version__}; found and probed in {about['gpu_start_s']:.2f} s"]
        lines += [
            f"- before: {number(watts and watts['median'], 1)} W, SM clock {number(clocks and clocks['median'], 0)} MHz {idle.get('reason', '')}"
        ]
        lines += [f"- after: SM clock {about.get('sm_mhz_after')} MHz"]
        lines += [
            f"- warm-up (kernels compiled or read from the cache): {about['warm_up_s']:.2f} s, again {about['warm_up_again_s']:.2f} s"
        ]
        rates = about["device_bytes_per_s"] / 1e9, about["host_bytes_per_s"] / 1e9
        lines += [f"- measured rates: {rates[0]:,.0f} GB/s on the device (read + written), {rates[1]:,.1f} GB/s to pinned host memory"]
    lines += [
        "",
        "| chars | backend | n | count s | encode s | train s | GPU J gross | net | contest main | contest dev | rows | MB of tables |",
    ]
    lines += ["|---|---|---|---|---|---|---|---|---|---|---|---|"]
    for r in results:
        s, j, t = r["seconds"], r["joules"], r["tables"]
        joules = " | ".join(number(j[k], 1) for k in ("gpu_gross_j", "gpu_net_j", "contest_main_j", "contest_dev_j"))
        seconds = f"{s['min']:.3f} / {s['median']:.3f} / {s['max']:.3f}"
        lines += [
            f"| {r['chars']:,} | {r['backend']} | {s['n']} | {seconds} | {r['encode_s']:.2f} | {r['train_s']:.2f} | {joules} | {t['rows']:,} | {t['bytes'] / 1e6:,.0f} |"
        ]
    names = list(dict.fromkeys(name for r in results for name in r["phases"]))
    lines += ["", f"Seconds by phase (of the metered runs){'' if machine.gpu is None else ', and GPU joules gross'}:", ""]
    lines += ["| chars | backend | " + " | ".join(names) + " |", "|---|---|" + "---|" * len(names)]
    for r in results:
        cells = []
        for name in names:
            p = r["phases"].get(name)
            cells.append("" if p is None else f"{p['seconds']:.3f}" + ("" if p["gpu_gross_j"] is None else f" ({p['gpu_gross_j']:.1f} J)"))
        lines += [f"| {r['chars']:,} | {r['backend']} | " + " | ".join(cells) + " |"]
    lines += weights_table(weighed, spread)
    if floors := [r for r in results if r["floor"]]:
        lines += ["", "Floors by bytes moved, at the measured rates, and the gap of the median run to the second:", ""]
        lines += [
            "| chars | keys sorted | input and tables once | and radix sorts | tables over the bus | measured | gap |",
            "|---|---|---|---|---|---|---|",
        ]
        for r in floors:
            f, s = r["floor"], r["seconds"]["median"]
            cells = f"{f['least_s']:.4f} s | {f['sorts_s']:.4f} s | {f['bus_s']:.4f} s | {s:.3f} s | {s / f['sorts_s']:.1f} times"
            lines += [f"| {r['chars']:,} | {f['keys']:,} | {cells} |"]
    reasons = dict.fromkeys(f"{k}: {v}" for r in results for k, v in r["reasons"].items())
    warnings = dict.fromkeys(f"{r['chars']:,} {r['backend']}: {w}" for r in results for w in [*r["warnings"], *r["notes"]])
    lines += ["", *(f"- not measured, {reason}" for reason in reasons), *(f"- {w}" for w in warnings)]
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--text", help="UTF-8 text, or .xz of one; default: ../shared/data/featured.txt.xz, else the embedded sample")
    parser.add_argument("--sizes", type=parse_sizes, default="1M,5M,20M,135M,540M", help="characters, such as 1M,20M (default %(default)s)")
    parser.add_argument("--cpu-up-to", type=parse_size, default="20M", help="larger sizes on the GPU only (default %(default)s)")
    parser.add_argument(
        "--weights-up-to", type=parse_size, default="20M", help="no weights of a context tree for larger sizes (default %(default)s)"
    )
    parser.add_argument(
        "--repeats", type=parse_sizes, default="5", help="runs, one number for all sizes or one for each (default %(default)s)"
    )
    parser.add_argument("--contexts", default="default")
    parser.add_argument("--order", type=int, default=8)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--memory", type=parse_size, help="budget of the CPU backend's buffers in bytes, such as 4G (default: 60 %% of what is free)"
    )
    parser.add_argument("--device-memory", type=parse_size, help="use no more device memory than this many bytes")
    parser.add_argument("--json", help="write everything there")
    parser.add_argument("--markdown", help="put the report between the marks of this file")
    parser.add_argument("--tests", help="a line on the equality tests for the report")
    args = parser.parse_args()
    args.command = " ".join(["python", *sys.argv])
    if len(args.repeats) not in (1, len(args.sizes)):
        parser.error(f"--repeats has {len(args.repeats)} numbers for {len(args.sizes)} sizes")
    plan = list(zip(args.sizes, args.repeats if len(args.repeats) > 1 else args.repeats * len(args.sizes), strict=True))
    machine = Machine(args.threads, args.memory, args.device_memory)
    if machine.gpu is None:
        print(f"no device was found: {machine.why_not}\nmeasuring the CPU only", flush=True)
        plan = [(size, n) for size, n in plan if size <= args.cpu_up_to]
        if not plan:
            parser.error("there is nothing to measure: no size is within --cpu-up-to")
    largest = max(size for size, _ in plan)
    if machine.gpu is not None:
        machine.sample_idle()
        machine.measure_bandwidth()
        machine.warm_up(largest, any(size <= args.weights_up_to for size, _ in plan))
    source, what = read_text(args.text, largest)
    text = f"{what}, {len(source):,} characters, SHA-256 {text_fingerprint(source)['sha256'][:16]}"
    if largest > len(source):
        text += "; beyond them, copies with 1 in 8 lower-case letters replaced by position"
    results, weighed = [], []
    for size, repeats in plan:
        piece = extend(source, size)
        for name in ("cpu", "gpu"):
            if (name == "gpu" and machine.gpu) or (name == "cpu" and size <= args.cpu_up_to):
                run(
                    machine.backend(name),
                    np.zeros(64, np.uint8),
                    select_contexts(args.contexts, args.order),
                    NO_INFO,
                    lambda _: nullcontext(),
                )
                results.append(measure(machine, name, piece, repeats, args))
                told(f"{size:,} {name}", results[-1]["seconds"])
                if size <= args.weights_up_to:
                    weighed.append(measure_weights(machine.backend(name), name, piece, repeats, args.threads))
                    told(f"{size:,} {name} weights", spread(weighed[-1]["seconds"]), weighed[-1]["failed"])
        if machine.gpu:
            reader = machine.gpu.energy_reader()
            machine.about["sm_mhz_after"] = reader.sm_clock_mhz() if reader.open() else None
        body = write(machine, results, weighed, text, args)
    print("\n" + body)


def told(what: str, s: dict | None, failed: str | None = None) -> None:
    """A line of progress."""
    print(f"{what}: " + (f"{s['min']:.3f} / {s['median']:.3f} / {s['max']:.3f} s" if s else str(failed)), flush=True)


def write(machine: Machine, results: list[dict], weighed: list[dict], text: str, args: argparse.Namespace) -> str:
    """Write the files that were asked for; returns the report."""
    body = (f"Equality tests: {args.tests}\n\n" if args.tests else "") + report(machine, results, weighed, text, args)
    if args.json:
        Path(args.json).parent.mkdir(parents=True, exist_ok=True)
        Path(args.json).write_text(
            json.dumps(
                {"machine": machine.about, "no_gpu": machine.why_not, "text": text, "results": results, "weights": weighed}, indent=1
            )
            + "\n"
        )
    if args.markdown:
        file = Path(args.markdown)
        before, rest = file.read_text(encoding="utf-8").split(MARKS[0])
        after = rest.split(MARKS[1])[1]
        file.write_text(f"{before}{MARKS[0]}\n{body}{MARKS[1]}{after}", encoding="utf-8")
    return body


NO_INFO = model_symbol_info(Alphabet.from_text("a b"))  # for a first call that loads the compiled kernels of the CPU backend

if __name__ == "__main__":
    main()
