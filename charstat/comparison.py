"""Models side by side on the same count tables, and what each source of the mixture is worth.

The models share the tables: nothing is counted again. Each is evaluated on the same text, starting from its as-built state.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from charstat.charmodel_api import CharModel, EvalResult, evaluate
from charstat.registry import ENTRIES, Entry, model_named, unreadable

if TYPE_CHECKING:
    from charstat.model import Model

WARM_UP_CHARS = 64


def warm_evaluate(stream: CharModel, text: str, progress: Callable[[int], None] | None = None) -> EvalResult:
    """evaluate(), after a warm-up that compiles."""
    stream.reset()
    stream.guess_and_score(text[:WARM_UP_CHARS])
    return evaluate(stream, text, progress)


def figures(stream: CharModel, r: EvalResult) -> dict[str, Any]:
    """accuracy, bits_per_char, chars_per_s, and the bytes held beside the tables."""
    n_bytes = getattr(stream, "n_bytes", None)
    return {"accuracy": r.accuracy, "bits_per_char": r.bits_per_char, "chars_per_s": r.chars_per_s, "bytes": n_bytes}


def compare(
    model: Model,
    names: list[str],
    text: str,
    gate: float,
    progress: Callable[[int], None] | None = None,
    look: Callable[[str, CharModel, EvalResult], None] | None = None,
) -> Iterator[dict[str, Any]]:
    """One row per model: {model, about, accuracy, bits_per_char, chars_per_s, bytes, opened_s, passed}.

    progress: called with the number of characters that the current model has done. look: called with each model's name, stream and result.
    """
    for name in names:
        entry = model_named(name)
        started = time.perf_counter()
        stream = entry.open(model)
        opened = time.perf_counter() - started
        result = warm_evaluate(stream, text, progress)
        row = figures(stream, result)
        if look:
            look(entry.name, stream, result)
        yield {"model": entry.name, "about": entry.about, **row, "opened_s": opened, "passed": row["accuracy"] >= gate}


def ablate(model: Model, text: str, progress: Callable[[int, int], None] | None = None) -> Iterator[dict[str, Any]]:
    """The mixture without each of its sources, and with each expert that can be opened on its tables.

    Rows are {source, accuracy, bits_per_char, us_per_char, worth_bits, worth_accuracy}.

    The first row is the mixture as it is, but without the model's warm start, which was learned with all sources together. In the
    other rows, worth_bits and worth_accuracy are what the source contributes: how much worse the mixture is without it, or better with
    it; us_per_char is the time it takes, the difference of two single timings.
    progress: called with (characters done, characters in all), over all rows and the warm-up.
    """
    from charstat.mixers.combine import AdvisedMixture

    runs = 0

    def run(stream: CharModel) -> dict[str, Any]:
        nonlocal runs
        before, runs = runs * len(text), runs + 1
        tell = progress and (lambda done: progress(before + done, (len(variants) + 2) * len(text)))
        return figures(stream, warm_evaluate(stream, text, tell))

    def row(source: str, stream: CharModel) -> dict[str, Any]:
        r = run(stream)
        return {"source": source, "accuracy": r["accuracy"], "bits_per_char": r["bits_per_char"], "us_per_char": 1e6 / r["chars_per_s"]}

    def advised(expert: Entry) -> CharModel:
        return AdvisedMixture(stream(experts=1), [expert.open(model)])

    stream = partial(model.stream, warm_start=False)
    mixed = [c.name for c in stream().contexts]
    # Each is made when its row is due, so that only one is held at a time.
    variants: list[tuple[str, int, Callable[[], CharModel]]] = [
        (f"- {name}", 1, partial(stream, contexts=[n for n in mixed if n != name])) for name in mixed
    ]
    variants.append(("- match", 1, partial(stream, match=False)))
    for expert in (entry for entry in ENTRIES if entry.is_expert and not unreadable([entry.name], model.contexts, model.pruned)):
        variants.append((f"+ {expert.name}", -1, partial(advised, expert)))
    run(stream())  # brings the tables into memory, so that the first row is not charged for it
    base = row("mixture", stream())
    yield {**base, "worth_bits": None, "worth_accuracy": None}
    for source, sign, make in variants:
        r = row(source, make())
        yield {
            **r,
            "worth_bits": sign * (r["bits_per_char"] - base["bits_per_char"]),
            "worth_accuracy": sign * (base["accuracy"] - r["accuracy"]),
            "us_per_char": sign * (base["us_per_char"] - r["us_per_char"]),
        }
