"""The registry: every model that can be opened on a built model's count tables, by name.

The command line's lists and help, `eval --models`, the experts of `--ablate`, README's table and bench/models.py all read MODELS.
To add a model, write its file and give it one entry here. What opens it imports it inside the function, so that the list of models
costs nothing: numba is loaded when a model is opened.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from charstat.errors import ContextError

if TYPE_CHECKING:
    from charstat.charmodel_api import CharModel
    from charstat.model import Model
    from charstat.ngram.contexts import Context

ALL_CONTEXTS, CHARACTER_ORDERS, NO_CONTEXTS = "default", "chars", "o0"  # a model needs one table at least, so "none" is order 0


@dataclass(frozen=True)
class Entry:
    """One model of the registry.

    open(built, **options) makes the CharModel; options are those of its class. contexts: what `build` counts for it by default, a
    preset or a name. reads_order_0: it reads the character orders as a chain that ends in order 0. tree_weights: the build computes
    the weights of a context tree for it. warm_start: it begins with what the mixture learned from held-out text. all_counts: its formulas need every context that was
    counted, so that it cannot be opened on a model that was cut to a size. is_expert: --ablate
    tries it as an expert of the mixture. former_names: accepted for one version.
    """

    name: str
    about: str
    open: Callable[..., CharModel]
    contexts: str = CHARACTER_ORDERS
    reads_order_0: bool = True
    tree_weights: bool = False
    warm_start: bool = False
    all_counts: bool = False
    is_expert: bool = False
    former_names: tuple[str, ...] = ()


def _ppm(built: Model, **options) -> CharModel:
    from charstat.ppm import PPMC, PPMC_TUNED

    return PPMC(built, **{**PPMC_TUNED, **options})


def _ppmc(built: Model, **options) -> CharModel:
    from charstat.ppm import PPMC

    return PPMC(built, **options)


def _ppm_inherit(built: Model, **options) -> CharModel:
    from charstat.ppm import InheritingPPM

    return InheritingPPM(built, **options)


def _ctw(built: Model, **options) -> CharModel:
    from charstat.ctw import CTW_TUNED, ContextTreeWeighting

    return ContextTreeWeighting(built, **{**CTW_TUNED, **options})


def _kneser_ney(built: Model, **options) -> CharModel:
    from charstat.ngram.interpolated import KneserNey

    return KneserNey(built, **options)


def _mix(built: Model, **options) -> CharModel:
    from charstat.mixers.mixture import Mixture

    return Mixture(built, **options)


def _match(built: Model) -> CharModel:
    return _mix(built, contexts=())


def _advised(built: Model) -> CharModel:
    from charstat.mixers.combine import AdvisedMixture

    experts = [_ppm_inherit(built), _ctw(built)]
    return AdvisedMixture(_mix(built, experts=len(experts)), experts)


ENTRIES = (
    Entry("ppm", "PPM-C with weighted, decaying online counts, starting at deterministic contexts", _ppm),
    Entry("ppmc", "PPM-C as published: every count weighs the same", _ppmc),
    Entry("ppm-inherit", "PPM with information inheritance and SEE", _ppm_inherit, is_expert=True, former_names=("ppmd",)),
    Entry("ctw", "context-tree weighting with weighted, decaying online counts", _ctw, tree_weights=True, all_counts=True, is_expert=True),
    Entry(
        "kneser-ney",
        "interpolated modified Kneser-Ney, static counts only",
        _kneser_ney,
        all_counts=True,
        is_expert=True,
        former_names=("ngram",),
    ),
    Entry("match", "the match model alone, over a learned bias", _match, contexts=NO_CONTEXTS, reads_order_0=False),
    Entry("mix", "the mixture of all contexts and the match model", _mix, contexts=ALL_CONTEXTS, reads_order_0=False, warm_start=True),
    Entry(
        "advised",
        "the mixture, with ppm-inherit and ctw as experts",
        _advised,
        contexts=ALL_CONTEXTS,
        tree_weights=True,
        warm_start=True,
        all_counts=True,
    ),
)
DEFAULT_MODEL = "mix"
MODELS = {entry.name: entry for entry in ENTRIES}
FORMER_NAMES = {former: entry.name for entry in ENTRIES for former in entry.former_names}


def model_named(name: str) -> Entry:
    """The entry of that name, or of that former name. ContextError if there is none."""
    try:
        return MODELS[FORMER_NAMES.get(name, name)]
    except (KeyError, TypeError):  # TypeError: a list, or what else has no hash
        raise ContextError(f"there is no model {name!r}; choose from {', '.join(MODELS)}") from None


def parse_models(names: str | Iterable[str]) -> list[str]:
    """The present names of the models in a list or a string with commas, each once. ContextError for one that does not exist."""
    listed = [names] if isinstance(names, str) else list(names) if isinstance(names, Sequence | set) else [names]
    if not listed or not all(isinstance(name, str) for name in listed):
        raise ContextError(
            f"models must be names, in a list or in a string with commas, not {names!r:.80}; choose from {', '.join(MODELS)}"
        )
    return list(dict.fromkeys(model_named(name.strip()).name for part in listed for name in part.split(",")))


def open_model(built: Model, name: str, **options) -> CharModel:
    """A new CharModel of that name on a built model. ContextError if there is none, or if it needs a context that the model lacks."""
    return model_named(name).open(built, **options)


def save_cut(model: Model, path: str | os.PathLike, max_bytes: int | None, min_count: int, packed: bool | None) -> Model:
    """Model.save() with a size or a form: here, because a Model knows nothing of what reads it but this file."""
    from charstat.pruning.cut import save

    return save(model, path, max_bytes, min_count, packed)


def needed_contexts(models: Iterable[str]) -> str:
    """The --contexts that these models read together: a preset or a name."""
    needed = {model_named(name).contexts for name in models}
    return next(contexts for contexts in (ALL_CONTEXTS, CHARACTER_ORDERS, NO_CONTEXTS) if contexts in needed)


def need_all_counts(models: Iterable[str]) -> list[str]:
    """Those of the models that cannot be opened on a model that was cut to a size."""
    return [name for name in models if model_named(name).all_counts]


def unreadable(models: Iterable[str], contexts: Iterable[Context], pruned: bool = False) -> list[str]:
    """Those of the models that cannot be opened on tables of these contexts: they read order 0, and it is missing, or need all counts of
    tables that were cut."""
    models = list(models)
    if pruned and (needy := need_all_counts(models)):
        return needy
    has_order_0 = any(c.name == "o0" for c in contexts)
    return [name for name in models if model_named(name).reads_order_0 and not has_order_0]


def check_models(models: Iterable[str], contexts: Iterable[Context], pruned: bool = False) -> None:
    """ContextError if one of the models cannot be opened on tables of these contexts, or on tables that were cut to a size."""
    models = list(models)
    if pruned and (needy := need_all_counts(models)):
        raise ContextError(
            f"{', '.join(needy)} {'needs' if len(needy) == 1 else 'need'} all counts, and a model cut to a size no longer has them: use "
            f"{', '.join(entry.name for entry in ENTRIES if not entry.all_counts)}, or a model without --max-bytes and --min-count"
        )
    needy = unreadable(models, contexts)
    if needy:
        read = "reads" if len(needy) == 1 else "read"
        raise ContextError(
            f"{', '.join(needy)} {read} the character orders from o0 up, and o0 is missing: build with o0 in --contexts, or without --contexts"
        )


def wants_tree_weights(models: Iterable[str]) -> bool:
    """Whether a build for these models computes the weights of a context tree."""
    return any(model_named(name).tree_weights for name in models)


def use_warm_start(models: Iterable[str]) -> list[str]:
    """Those of the models that begin with the mixture's warm start."""
    return [name for name in models if model_named(name).warm_start]
