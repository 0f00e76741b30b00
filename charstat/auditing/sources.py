"""What the command line names is made into a model: a model directory, a submission's file, or a factory in a module."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from charstat.auditing.subject import guarded
from charstat.errors import CorpusError, UserError

if TYPE_CHECKING:
    import numpy as np

TEXT, BYTES, IDS = "text", "bytes", "ids"


class Named(NamedTuple):
    """What audit() takes, how to call it, and what it charges for: TEXT, BYTES or IDS."""

    made: Any
    name: str
    charges_for: str = TEXT


def named_source(name: str, predictor: str | None, train_text: Callable[[], str] | None) -> Named:
    """What is to be audited. name: DIR of a model (of characters, bytes or tokens), FILE.py, FILE.py:FACTORY or MODULE:FACTORY.

    predictor: which model of the registry to open on DIR. train_text: gives the text that a submission's train() is called with.
    UserError that says what is missing.
    """
    path, _, factory = name.partition(":")
    if os.path.isdir(name):
        return _built(name, predictor)
    if predictor is not None:
        raise UserError("--predictor chooses a model of a model directory: leave it out for a submission")
    if path.endswith(".py"):
        module = _loaded(Path(path))
    elif factory:
        module = _imported(path)
    else:
        raise UserError(f"no model directory at {name!r}: give one, a submission's FILE.py, or MODULE:FACTORY")
    if factory:
        made = getattr(module, factory, None)
        if not callable(made):
            raise UserError(f"{path} defines no {factory}() that makes a model")
        return Named(made, name)
    return Named(_trained(module, name, train_text), name)


def _built(path: str, predictor: str | None) -> Named:
    from charstat.facts import is_token_model

    if is_token_model(path):
        from charstat.tokens.model import TokenModel

        if predictor is not None:
            raise UserError("--predictor chooses a model of characters, and this directory has a token model: leave it out")
        return Named(TokenModel.load(path).stream, path, IDS)
    from charstat.model import Model
    from charstat.registry import check_models, parse_models

    model = Model.load(path)
    chosen = parse_models(model.models[:1] if predictor is None else predictor)
    if len(chosen) != 1:
        raise UserError(f"--predictor takes one model, not {len(chosen)}")
    check_models(chosen, model.contexts, model.pruned)
    return Named(lambda: model.char_model(chosen[0]), f"{path}, {chosen[0]}", BYTES if model.alphabet.of_bytes else TEXT)


def file_units(charges_for: str, path: str, first: int, n: int | None) -> str | bytes | np.ndarray:
    """n characters, bytes or ids of a file from number `first` on, None for all: as file_text(); ids of a .npy array or a shard. CorpusError."""
    if charges_for == TEXT:
        return file_text(path, first, n)
    if charges_for == IDS:
        from charstat.tokens.shards import read_ids

        units = read_ids(path)[first : None if n is None else first + n]
    else:
        try:
            with open(path, "rb") as file:
                file.seek(first)
                units = file.read(n)
        except OSError as e:
            raise CorpusError(f"cannot read {path!r}: {e.strerror or e}") from e
    if len(units) < 2:
        raise CorpusError(f"{path!r} has fewer than two {charges_for} from number {first:,} on")
    return units


def _loaded(path: Path) -> Any:
    """The module of a file, with the contest's own module to import from, where there is none."""
    if not path.is_file():
        raise UserError(f"there is no file {str(path)!r}")
    if "wikitext" not in sys.modules and importlib.util.find_spec("wikitext") is None:
        from charstat.contest.child import contest_module

        sys.modules["wikitext"] = contest_module("main")
    spec = importlib.util.spec_from_file_location("submission", path)
    module = sys.modules["submission"] = importlib.util.module_from_spec(spec)
    guarded(f"importing {path}", spec.loader.exec_module, module)
    return module


def _imported(name: str) -> Any:
    if "" not in sys.path:
        sys.path.insert(0, "")
    return guarded(f"importing {name}", importlib.import_module, name)


def _trained(module: Any, name: str, train_text: Callable[[], str] | None) -> Any:
    train = getattr(module, "train", None)
    if not callable(train):
        raise UserError(f"{name} defines no train(): name what makes the model, as {name}:FACTORY")
    if train_text is None:
        raise UserError(f"{name} is a submission with train(): give the text to train on with --train FILE")
    return guarded(f"{name}: train()", train, train_text())


def file_text(path: str, first: int, chars: int | None) -> str:
    """chars characters of a UTF-8 file from character `first` on. CorpusError if it cannot be read, or ends before."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            text = file.read() if chars is None else file.read(first + chars)
    except UnicodeDecodeError as e:
        raise CorpusError(f"{path!r} is not UTF-8: {e.reason} at byte {e.start}") from e
    except OSError as e:
        raise CorpusError(f"cannot read {path!r}: {e.strerror or e}") from e
    if len(text) < first + 2:
        raise CorpusError(f"{path!r} has {len(text):,} characters: at least two are needed from character {first:,} on")
    return text[first:]
