"""What the command line knows about texts and models: the facts in manifests and results, and where models are kept."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from charstat.errors import FormatError, ResourceError, UserError

if TYPE_CHECKING:
    from charstat.corpus import Corpus
    from charstat.counting import SizeLimits
    from charstat.model import Model

MODELS = Path("models")  # where build puts models, and where eval and inspect look for them
HUB_NAME = "wikitext-103"


def describe(corpus: Corpus) -> dict:
    """What manifests and results say about a text; path is absolute, so that eval finds it from anywhere."""
    path = os.path.abspath(corpus.name) if corpus.kind in ("directory", "file", "files") else None
    about = {"name": corpus.name, "kind": corpus.kind, "layout": corpus.layout, "description": corpus.description, "path": path}
    return about | corpus.about


def corpus_of(built_from: dict, model: str) -> Corpus:
    """The text that a model was built from, by its manifest."""
    from charstat.corpus import open_corpus

    text_field = built_from.get("text_field")
    how = text_field if isinstance(text_field, str) else None, built_from.get("skip_bad_files") is True
    if built_from.get("path"):
        return open_corpus(Path(built_from["path"]), *how)
    if built_from.get("kind") in ("dataset", "stdin"):  # nothing is fetched from the net because a model says so
        what = "standard input" if built_from["kind"] == "stdin" else f"the data set {built_from.get('name')!s:.200}"
        raise UserError(f"the model at {model} was built from {what}: name the text with --data")
    if built_from.get("kind") in ("hub", "sample"):
        return open_corpus(HUB_NAME if built_from["kind"] == "hub" else "sample")
    raise UserError(f"the model at {model} does not say which text it was built from: pass --data")


def model_facts(model: Model) -> dict:
    """What the commands report about a model; JSON values only."""
    from charstat.listings import kind_name
    from charstat.registry import parse_models
    from charstat.storage import disk_bytes

    about = model.manifest
    built, text, data = about.get("build") or {}, about.get("text") or {}, about.get("data") or {}
    families = {
        name: {"kind": kind_name(t.context), "contexts": t.n_contexts, "rows": t.n_rows, "bytes": t.n_bytes}
        for name, t in model.tables.items()
    }
    return {
        "data": data, "sample": data.get("kind") == "sample", "chars": text.get("chars"), "text_sha256": text.get("sha256"),
        "order": model.order, "preset": about.get("preset"), "contexts": list(families), "families": families,
        "rows": model.n_rows, "bytes": disk_bytes(about),
        "words": model.vocabulary.size, "alphabet": "".join(model.alphabet.chars), "bytes_only": model.alphabet.of_bytes, "rare_chars": len(model.alphabet.rare_probabilities),
        "backend": built.get("backend"), "device": built.get("device"), "reason": built.get("reason"),
        "models": parse_models(model.models), "weights": _weights(model), "warm_start_chars": model.warm_start_chars,
        "warm_start_from": (about.get("start") or {}).get("from"),
        "counting_seconds": built.get("seconds"), "phases": built.get("phases"), "energy": built.get("energy"), "out": model.path,
        "pruned": about.get("pruned"), "packed": "packed" in about,
        "format_version": about.get("format_version"), "charstat_version": about.get("charstat_version"),
    }  # fmt: skip


def _weights(model: Model) -> dict | None:
    """What the commands report about a model's tree weights; None if it has none."""
    stored = model.weights
    return stored and {"alpha": stored.alpha, "levels": list(stored.levels), "bytes": model.betas.nbytes}


def default_out(
    corpus: Corpus,
    order: int,
    contexts: str,
    limit: int | None,
    held_out: int,
    models: list[str],
    size: SizeLimits | None = None,
    of_bytes: bool = False,
    start: Model | None = None,
) -> Path:
    """models/<text>-o<order>, and every option that is not at its default; depends on the arguments alone."""
    from charstat.ngram.contexts import PRESETS
    from charstat.registry import DEFAULT_MODEL, needed_contexts

    names = {"hub": HUB_NAME, "sample": "embedded-sample", "stdin": "stdin"}  # a file called "sample" is not taken for the embedded one
    shown = corpus.name if corpus.kind == "dataset" or set("*?[") & set(corpus.name) else Path(corpus.name).resolve().stem
    name = names.get(corpus.kind) or re.sub(r"[^\w.+-]+", "_", shown).lstrip(".") or "text"
    parts = [
        name[:80] + ("-file" if name in names.values() and corpus.kind not in names else ""),
        *(["bytes"] if of_bytes else []),
        f"o{order}",
    ]
    if models != [DEFAULT_MODEL]:
        parts += models
    if contexts != needed_contexts(models):
        parts.append(contexts if contexts in PRESETS else "contexts-" + hashlib.sha256(contexts.encode()).hexdigest()[:8])
    parts += ([f"first-{limit}"] if limit else []) + ([f"held-out-{held_out}"] if held_out else [])
    parts += [f"start-{Path(start.path).name[:80]}"] if start else []
    if size is not None:
        parts += [f"max-{size.max_bytes}"] if size.max_bytes else []
        parts += ([f"min-count-{size.min_count}"] if size.min_count > 1 else []) + (["packed"] if size.packed else [])
    return MODELS / "-".join(parts)


def text_changed(model: Model, corpus: Corpus) -> str | None:
    """What has changed in the text that the model was counted from, if this corpus is that text; None if nothing has.

    Compared: the characters that were counted, those held out, and where train ends, so that none of them can be in another split. The
    hub's text and the sample of another Python are known by their names alone.
    """
    about = model.manifest
    data, text, held_out = about.get("data") or {}, about.get("text") or {}, (about.get("start") or {}).get("text")
    same = (
        corpus.kind in ("file", "directory", "files") and data.get("path") == describe(corpus)["path"] and data.get("kind") == corpus.kind
    )
    if not same or "sha256" not in text or text.get("history_chars") or data.get("split", "train") != "train":
        return None
    wanted = [{key: part[key] for key in ("chars", "sha256")} for part in (text, held_out) if part]
    if corpus.kind == "directory" and "train" not in corpus.splits():
        return f"the train split that the model was counted from is no longer in {corpus.name!r}"
    fingerprint = corpus.data_fingerprint if model.alphabet.of_bytes else corpus.fingerprint
    *found, rest = fingerprint("train", *(part["chars"] for part in wanted))
    if found != wanted or (data.get("limit") is None and rest["chars"]):
        return f"the text {corpus.name!r} has changed since the model was built from it"
    return None


def check_out(out: str | os.PathLike, text: str | None = None) -> Path:
    """The directory for a model. The working directory and its parents are refused, and any directory that the text lies in."""
    here = Path.cwd()
    if Path(os.path.realpath(out)) in (here, *here.parents):
        raise ResourceError(
            f"{str(out)!r} is the working directory or one of its parents, and a model replaces what is there: choose another --out"
        )
    if text is not None and Path(os.path.realpath(out)) in Path(os.path.realpath(text)).parents:
        raise ResourceError(f"the text {text!r} lies in {str(out)!r}, and a model replaces what is there: choose another --out")
    head, name = os.path.split(os.fspath(out).rstrip("/") or "/")
    if ".." in (name, *Path(head).parts):  # subtle: link/.. is where the link leads, not where it stands
        return Path(os.path.realpath(head)) / name if name not in ("", ".", "..") else Path(os.path.realpath(out))
    return Path(os.path.normpath(out))


def is_token_model(path: str | os.PathLike) -> bool:
    """Whether the directory has the manifest of a token model."""
    from charstat.manifest import TOKEN_FORMAT
    from charstat.placing import peek

    about = peek(path)
    return about is not None and about["format"] == TOKEN_FORMAT


def newest_model() -> str:
    """The most recently built model in models/."""
    found = [f for f in MODELS.glob("*/manifest.json") if not f.parent.name.startswith(".")]
    if not found:
        raise FormatError(f"there is no model in {MODELS}/: run `charstat build` first, or give the directory of a model")
    return str(max(found, key=lambda f: f.stat().st_mtime).parent)


def peak_rss_bytes() -> int | None:
    """The most memory this process has used so far; None where the system does not say.

    subtle: Linux's getrusage() also counts what a process had before exec, its parent's memory as it forked; VmHWM does not.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return int(re.search(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE)[1]) * 1024
    except (OSError, TypeError):
        pass
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
