"""How few characters and contexts pass the contest's gate: accuracy, bits, seconds and joules of train(), for the presets of `charstat bundle`.

    python bench/gate_sweep.py --data DIR --chars 4M,8M,16M --samples first,articles --sets 'default@8;words@8' --out bench/contest
    python bench/gate_sweep.py --data DIR --chars 10M --sets 'wide@11' --leave-one-out      what each context is worth

DIR has wiki.train.raw and wiki.valid.raw in the contest's layout. A set is contexts@order, as for `charstat build`. Every row is one
train() as a submission runs it (take the characters, count them; compiled before), then four evaluations from scratch, of
60,000 characters of val each, from 180,000, 240,000, 480,000 and 720,000. val's first 60,000 characters, which the contest scores, are looked at
only with --final, and only for the cheapest row that has every window at 0.704 or above and their mean at --aim or above.

Joules: the contest's dev rule, max(GPU net + 42.5 W * s, 50 W * s). Without a GPU that is the floor of 50 W * s, and no measurement.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import shlex
import statistics
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from articles import choose_articles

from charstat.charmodel_api import evaluate
from charstat.contest.entry import count
from charstat.contest.presets import Preset
from charstat.corpus import open_corpus
from charstat.counting import choose_backend
from charstat.energy import EnergyMeter
from charstat.ngram.contexts import select_contexts
from charstat.warm_up import warm_text

GATE, MARGIN = 0.70, 0.705
WINDOWS, WINDOW_CHARS = (180_000, 240_000, 480_000, 720_000), 60_000
LEAST = 0.704  # on each of them
SAMPLES = {"first": lambda text, chars: text[:chars], "articles": choose_articles}
RECORDED = json.loads((ROOT / "bench" / "contest" / "recorded.json").read_text())["systems"]


@dataclass
class Row:
    """One configuration. windows: accuracies; bits: their mean bits per character.

    train_s: the median of the repeats; cpu_s: the least CPU seconds of one, of all threads, which other work on the machine disturbs less.
    """

    sample: str
    chars: int
    contexts: str
    order: int
    families: int
    train_s: float
    train_s_all: list[float]
    cpu_s: float
    dev_j: float | None
    measured: bool
    windows: list[float]
    bits: float
    final: float | None = None
    without: str | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def mean(self) -> float:
        return statistics.fmean(self.windows)

    @property
    def passes(self) -> bool:
        return min(self.windows) >= LEAST


def parse_size(text: str) -> int:
    scale = {"k": 10**3, "M": 10**6}.get(text[-1], 1)
    return int(float(text.rstrip("kM")) * scale)


class Sweep:
    """The texts, the backend, and the rows so far."""

    def __init__(self, a: argparse.Namespace):
        corpus = open_corpus(a.data)
        self.text, self.val = corpus.text("train"), corpus.text("val")
        self.engine, why = choose_backend(a.backend, a.threads)
        self.repeats, self.rows = a.repeats, []
        self.about = {
            "command": [shlex.join(["python", "bench/gate_sweep.py", *({a.data: "DIR", str(a.out): "OUT"}.get(x, x) for x in sys.argv[1:])])],
            "text": a.text_name or "wiki.train.raw", "text_chars": len(self.text), "text_sha256": _sha256(self.text),
            "val_sha256": _sha256(self.val), "device": self.engine.device, "backend": f"{self.engine.name} ({why})",
            "python": platform.python_version(), "repeats": a.repeats, "windows": WINDOWS, "window_chars": WINDOW_CHARS,
        }  # fmt: skip

    def warm(self, sets: list[tuple[str, int]]) -> None:
        for contexts, order in sets:
            model = count(warm_text(), Preset("warm", 1, 1, contexts, order), self.engine)
        evaluate(model.stream(), self.val[:100])

    def run(self, sample: str, chars: int, contexts: str, order: int) -> Row:
        preset = Preset("sweep", chars, chars, contexts, order)
        seconds, cpu, joules, measured, notes = [], [], [], False, []
        for _ in range(self.repeats):
            meter = EnergyMeter(self.engine.energy_reader() if self.engine.name == "gpu" else None, synchronize=self.engine.synchronize)
            cpu_started = time.process_time()
            with meter:
                model = count(SAMPLES[sample](self.text, chars), preset, self.engine)
            report = meter.report()
            seconds.append(report.seconds)
            cpu.append(time.process_time() - cpu_started)
            joules.append(report.contest_dev_j)
            measured, notes = report.gpu_gross_j is not None, report.warnings
        self.model = model
        accuracies, bits = self.evaluate(WINDOWS)
        dev_j = None if None in joules else statistics.median(joules)
        row = Row(sample, min(chars, len(self.text)), contexts, order, len(select_contexts(contexts, order)), statistics.median(seconds),
                  seconds, min(cpu), dev_j, measured, accuracies, bits, notes=notes)  # fmt: skip
        self.rows.append(row)
        return row

    def evaluate(self, windows: tuple[int, ...], contexts: list[str] | None = None) -> tuple[list[float], float]:
        stream = self.model.stream(contexts=contexts)
        results = [evaluate(stream, self.val[at : at + WINDOW_CHARS]) for at in windows]
        return [r.accuracy for r in results], statistics.fmean(r.bits_per_char for r in results)

    def leave_one_out(self, row: Row) -> None:
        """The row again without one context each: counted with all, mixed with the others."""
        names = [c.name for c in self.model.contexts if c.name != "o0"]
        for name in names:
            windows, bits = self.evaluate(WINDOWS, [n for n in names if n != name])
            self.rows.append(Row(**{**asdict(row), "windows": windows, "bits": bits, "without": name}))
            print(line(self.rows[-1], row), flush=True)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def header() -> str:
    return (f"{'sample':9}{'chars':>12}  {'contexts':34}{'order':>5}{'tables':>7}{'train s':>9}{'CPU s':>7}{'J dev':>8}  "
            f"{'180k':>7}{'240k':>8}{'480k':>8}{'720k':>8}{'mean':>8}{'bits':>8}{'first 60k':>11}")  # fmt: skip


def line(row: Row, whole: Row | None = None) -> str:
    joules = "–" if row.dev_j is None else f"{row.dev_j:,.0f}{'' if row.measured else '†'}"
    what = f"  without {row.without}" if row.without else row.contexts
    windows = "".join(f"{a:8.4f}" for a in row.windows)
    change = "" if whole is None else f"  {row.mean - whole.mean:+.4f} {row.bits - whole.bits:+.4f}"
    final = "–" if row.final is None else f"{row.final:.4f}"
    return (f"{row.sample:9}{row.chars:>12,}  {what[:33]:34}{row.order:>5}{row.families:>7}{row.train_s:>9.2f}{row.cpu_s:>7.2f}{joules:>8} {windows}"
            f"{row.mean:8.4f}{row.bits:8.4f}{final:>11}{change}")  # fmt: skip


def plot(rows: list[Row], chosen: Row | None, path: Path, title: str) -> None:
    """Accuracy against energy, with the recorded systems."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(11, 7))
    for system in RECORDED:
        joules, accuracy = system["dev_j"] or system["main_j"], system["accuracy"]
        name = system["name"] + ("" if system["dev_j"] else "*")
        axes.plot(joules, accuracy, "s", color="gray", markersize=5)
        axes.annotate(name, (joules, accuracy), xytext=(5, 3), textcoords="offset points", fontsize=8, color="gray")
    series: dict[tuple, list[Row]] = {}
    for row in rows:
        if row.without is None and row.dev_j is not None:
            series.setdefault((row.sample, row.contexts, row.order), []).append(row)
    for (sample, contexts, order), each in series.items():
        each.sort(key=lambda r: r.chars)
        name = f"{sample}, {contexts if len(contexts) < 30 else contexts[:29] + '…'}, order {order}"
        axes.plot([r.dev_j for r in each], [r.mean for r in each], "o-", label=name, markersize=4, linewidth=0.6)
    for row in (r for r in rows if r.final is not None):
        name = f"val's first {WINDOW_CHARS:,}: {row.final:.4f} ({row.sample}, {row.chars / 1e6:g} M, {row.contexts})"
        axes.plot(row.dev_j, row.final, "*", color="red", markersize=14, fillstyle="full" if row is chosen else "none", label=name)
    axes.axhline(GATE, color="black", linewidth=0.8, linestyle="--")
    axes.set(xscale="log", xlabel="joules of train(), dev rule (* main rule; ours without a GPU: 50 W · s)")
    axes.set(ylabel="accuracy", ylim=(0.62, 0.75), title=title)
    axes.legend(fontsize=7, loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", required=True)
    p.add_argument("--text-name", help="what the text is, for the table's heading")
    p.add_argument("--chars", default="4M,8M,16M", type=lambda s: [parse_size(x) for x in s.split(",")])
    p.add_argument("--samples", default=",".join(SAMPLES), type=lambda s: s.split(","))
    p.add_argument("--sets", default="default@8", type=lambda s: [(c, int(o)) for c, o in (x.rsplit("@", 1) for x in s.split(";"))])
    p.add_argument("--backend", choices=("auto", "cpu", "gpu"), default="auto")
    p.add_argument("--threads", type=int)
    p.add_argument("--repeats", type=int, default=1)
    p.add_argument("--leave-one-out", action="store_true")
    p.add_argument("--aim", type=float, default=MARGIN, help="the mean of the windows that the chosen row must have")
    p.add_argument("--final", action="store_true", help="score val's first 60,000 characters with the chosen row")
    p.add_argument("--out", type=Path, help="a folder for gate_sweep.json and gate_sweep.png")
    p.add_argument("--append", action="store_true", help="keep the rows that gate_sweep.json has from other runs on the same text")
    a = p.parse_args()
    sweep = Sweep(a)
    if a.append and a.out:
        earlier = json.loads((a.out / "gate_sweep.json").read_text())
        if earlier["text_sha256"] != sweep.about["text_sha256"]:
            raise SystemExit("the earlier rows are from another text")
        sweep.rows = [Row(**{key: row[key] for key in Row.__dataclass_fields__}) for row in earlier["rows"]]
        sweep.about["command"] = [*earlier["command"], *sweep.about["command"]]
    for key, value in sweep.about.items():
        print(f"{key}: {value}")
    print("† no GPU: the dev rule's floor, 50 W · s; not a measurement\n\n" + header(), flush=True)
    started = time.perf_counter()
    sweep.warm(a.sets)
    for sample in a.samples:
        for chars in a.chars:
            for contexts, order in a.sets:
                row = sweep.run(sample, chars, contexts, order)
                print(line(row), flush=True)
                if a.leave_one_out:
                    sweep.leave_one_out(row)
    # Seconds of a busy machine say little: joules decide where they are measured, CPU seconds elsewhere.
    good = [row for row in sweep.rows if row.passes and row.mean >= a.aim and row.without is None]
    chosen = min(good, key=lambda r: r.dev_j if r.measured else r.cpu_s, default=None)
    if chosen is not None:
        if a.final:
            preset = Preset("final", chosen.chars, chosen.chars, chosen.contexts, chosen.order)
            sweep.model = count(SAMPLES[chosen.sample](sweep.text, chosen.chars), preset, sweep.engine)
            chosen.final = sweep.evaluate((0,))[0][0]
        print("\nThe cheapest row that has every window at 0.704 and their mean at the aim:\n" + line(chosen))
    if a.out:
        a.out.mkdir(parents=True, exist_ok=True)
        about = sweep.about | {"seconds": time.perf_counter() - started}
        rows = [asdict(row) | {"mean": row.mean, "passes": row.passes} for row in sweep.rows]
        (a.out / "gate_sweep.json").write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")
        plot(sweep.rows, chosen, a.out / "gate_sweep.png", f"Accuracy on windows of val; {about['text']}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
