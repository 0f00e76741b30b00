"""Several models on one built model's count tables, side by side; and what each source of the mixture is worth.

The models share the tables: nothing is counted again. Each is evaluated from its as-built state on the same text.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from charstat.charmodel_api import CharModel, evaluate
from charstat.errors import ContextError
from charstat.model import Model
from charstat.ngram.contexts import Context
from charstat.ngram.hashing import CHARS

WARM_UP_CHARS = 64


def _ppm(model: Model) -> CharModel:
    from charstat.ppm import PPMC, PPMC_TUNED

    return PPMC(model, **PPMC_TUNED)


def _ppmc(model: Model) -> CharModel:
    from charstat.ppm import PPMC

    return PPMC(model)


def _ppmd(model: Model) -> CharModel:
    from charstat.ppm import InheritingPPM

    return InheritingPPM(model)


def _ctw(model: Model) -> CharModel:
    from charstat.ctw import CTW_TUNED, ContextTreeWeighting

    return ContextTreeWeighting(model, **CTW_TUNED)


def _ngram(model: Model) -> CharModel:
    from charstat.ngram.interpolated import KneserNey

    return KneserNey(model)


def _match(model: Model) -> CharModel:
    return model.stream(contexts=())


def _mix(model: Model) -> CharModel:
    return model.stream()


def _advised(model: Model) -> CharModel:
    from charstat.mixers.combine import AdvisedMixture

    experts = [_ppmd(model), _ctw(model)]
    return AdvisedMixture(model.stream(experts=len(experts)), experts)


MODELS: dict[str, tuple[str, Callable[[Model], CharModel]]] = {
    "ppm": ("PPM-C, online counts weighted and fading, deterministic contexts first", _ppm),
    "ppmc": ("PPM-C as published, all counts alike", _ppmc),
    "ppmd": ("PPM with information inheritance and SEE", _ppmd),
    "ctw": ("context-tree weighting, online counts weighted and fading", _ctw),
    "ngram": ("interpolated modified Kneser-Ney, static counts only", _ngram),
    "match": ("the match model alone, over a learned bias", _match),
    "mix": ("the mixture", _mix),
    "advised": ("the mixture, with ppmd and ctw as experts", _advised),
}


CHAIN_MODELS = ("ppm", "ppmc", "ppmd", "ctw", "ngram")  # these read the character orders alone, from order 0 on
WEIGHTED_MODELS = ("ctw", "advised")  # these have the weights of a context tree


def needed_contexts(models: Sequence[str]) -> str:
    """The --contexts that these models read: a preset or a name. The match model looks at the stream alone, not at any table."""
    if set(models) - {*CHAIN_MODELS, "match"}:
        return "default"
    return "chars" if set(models) & set(CHAIN_MODELS) else "o0"


def check_models(models: Sequence[str], contexts: Iterable[Context]) -> None:
    """ContextError if one of the models reads order 0, and the contexts lack it."""
    needy = [name for name in models if name in {*CHAIN_MODELS, *WEIGHTED_MODELS}]
    if needy and not any(c.kind == CHARS and c.param == 0 for c in contexts):
        raise ContextError(
            f"no context o0, and the character orders from o0 on are what {', '.join(needy)} read: build with them in --contexts, or without it"
        )


def parse_models(names: str) -> list[str]:
    """The names of a comma-separated list. ContextError for one that does not exist."""
    chosen = [n.strip() for n in names.split(",")]
    for name in chosen:
        if name not in MODELS:
            raise ContextError(f"no model is named {name!r}: there are {', '.join(MODELS)}")
    return list(dict.fromkeys(chosen))


def measure(stream: CharModel, text: str, progress: Callable[[int], None] | None = None) -> dict[str, Any]:
    """accuracy, bits_per_char, chars_per_s (after a warm-up that compiles), and the bytes held beside the tables."""
    stream.reset()
    stream.guess_and_score(text[:WARM_UP_CHARS])
    r = evaluate(stream, text, progress)
    n_bytes = getattr(stream, "n_bytes", None)
    return {"accuracy": r.accuracy, "bits_per_char": r.bits_per_char, "chars_per_s": r.chars_per_s, "bytes": n_bytes}


def compare(
    model: Model, names: list[str], text: str, gate: float, progress: Callable[[int], None] | None = None
) -> Iterator[dict[str, Any]]:
    """One row per model: {model, about, accuracy, bits_per_char, chars_per_s, bytes, opened_s, passed}.

    progress: told how many characters the model whose turn it is has done.
    """
    for name in names:
        about, make = MODELS[name]
        started = time.perf_counter()
        stream = make(model)
        opened = time.perf_counter() - started
        row = measure(stream, text, progress)
        yield {"model": name, "about": about, **row, "opened_s": opened, "passed": row["accuracy"] >= gate}


def ablate(model: Model, text: str, progress: Callable[[int, int], None] | None = None) -> Iterator[dict[str, Any]]:
    """The mixture without each of its sources, and with each expert that can be opened on its tables.

    Rows are {source, accuracy, bits_per_char, us_per_char, worth_bits, worth_accuracy}.

    The first row is the mixture as it is, but without the model's start, which is one of all sources together; worth_bits and
    worth_accuracy of the others are what the source contributes: how much worse the mixture is without it, or better with it.
    us_per_char is what the source takes: a difference of two single timings.
    progress: told how many characters of how many are done, over all rows and the warm-up.
    """
    from charstat.mixers.combine import AdvisedMixture

    runs = 0

    def run(stream: CharModel) -> dict[str, Any]:
        nonlocal runs
        before, runs = runs * len(text), runs + 1
        return measure(stream, text, progress and (lambda done: progress(before + done, (len(variants) + 2) * len(text))))

    def row(source: str, stream: CharModel) -> dict[str, Any]:
        r = run(stream)
        return {"source": source, "accuracy": r["accuracy"], "bits_per_char": r["bits_per_char"], "us_per_char": 1e6 / r["chars_per_s"]}

    def advised(name: str) -> CharModel:
        return AdvisedMixture(stream(experts=1), [MODELS[name][1](model)])

    stream = partial(model.stream, start=False)
    mixed = [c.name for c in stream().contexts]
    # Each is made when its row is due, so that only one is held at a time.
    variants: list[tuple[str, int, Callable[[], CharModel]]] = [
        (f"- {name}", 1, partial(stream, contexts=[n for n in mixed if n != name])) for name in mixed
    ]
    variants.append(("- match", 1, partial(stream, match=False)))
    if "o0" in model.tables:  # the experts read it
        variants += [(f"+ {name}", -1, partial(advised, name)) for name in ("ppmd", "ctw", "ngram")]
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
