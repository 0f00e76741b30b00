"""For gpu_build.py: the weights of a context tree on the CPU and on the GPU, side by side.

A run is one weigh() of a backend, as in build_model(models=("ctw",), order=14): tables in host memory to betas in host memory, with
CTW_TUNED's alpha. Whatever a device fails with becomes a line of the report, for the counting of larger texts is still to come.
"""

from __future__ import annotations

import time
from contextlib import nullcontext

from charstat.alphabet import Alphabet
from charstat.ctw import CTW_TUNED
from charstat.ngram.contexts import select_contexts
from charstat.ngram.words import model_symbol_info
from charstat.registry import needed_contexts

ORDER = 14
START_CHARS = 1000  # of a first call that loads the compiled kernels


def measure_weights(backend, name: str, text: str, repeats: int, threads: int) -> dict:
    """The seconds of every run, or the reason why there are none."""
    notes = len(getattr(backend, "notes", []))
    found = {"chars": len(text), "backend": name, "seconds": [], "rows": 0, "betas": 0, "failed": None}
    try:
        run(backend, text[:START_CHARS], 1, threads)
        found |= run(backend, text, repeats, threads)
    except Exception as e:  # noqa: BLE001  see the header
        found["failed"] = f"{type(e).__name__}: {e}"
    return found | {"notes": list(dict.fromkeys(getattr(backend, "notes", [])[notes:]))}


def run(backend, text: str, repeats: int, threads: int) -> dict:
    """Count the text, then weigh its character orders so many times."""
    alphabet = Alphabet.from_text(text, threads)
    symbols = alphabet.encode(text, threads)
    contexts = select_contexts(needed_contexts(["ctw"]), ORDER)
    counted = backend.count(symbols, 0, contexts, model_symbol_info(alphabet), lambda _: nullcontext())
    tables = sorted(counted, key=lambda table: -table.context.param)
    settings = alphabet.tree.arrays, CTW_TUNED["alpha"]
    seconds, betas = [], 0
    for _ in range(repeats):
        started = time.perf_counter()
        betas = sum(found.size for _, found in backend.weigh(tables, symbols, 0, *settings, lambda _: nullcontext()))
        seconds.append(time.perf_counter() - started)
    return {"seconds": seconds, "rows": sum(table.n_rows for table in tables), "betas": betas}


def weights_table(weighed: list[dict], spread) -> list[str]:
    """The lines of the report. spread(seconds): {"min", "median", "max", "n"}."""
    if not weighed:
        return []
    lines = [
        "",
        f"Weights of a context tree (chars, order {ORDER}, alpha {CTW_TUNED['alpha']:g}), from tables to betas in host memory:",
        "",
    ]
    lines += ["| chars | backend | n | weights s | rows | betas |", "|---|---|---|---|---|---|"]
    for w in weighed:
        s = spread(w["seconds"])
        seconds = f"{s['n']} | {s['min']:.3f} / {s['median']:.3f} / {s['max']:.3f}" if s else "0 | –"
        lines += [f"| {w['chars']:,} | {w['backend']} | {seconds} | {w['rows']:,} | {w['betas']:,} |"]
    told = dict.fromkeys(f"{w['chars']:,} {w['backend']}: {note}" for w in weighed for note in [w["failed"], *w["notes"]] if note)
    return lines + (["", *(f"- {line}" for line in told)] if told else [])
