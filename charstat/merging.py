"""What merging two models takes: whether they fit, the parts of the sum, and what its manifest says. Model.merge puts them together.

Not kept are weights of a context tree (those of the sum are no sum, and need the text; what opens on the merged model computes those that
its tables give) and the warm start (the other part may have counted its text).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from charstat.alphabet import Alphabet
from charstat.errors import MergeError
from charstat.manifest import MAX_CHARS, MAX_PARTS
from charstat.ngram.classes import WordClasses
from charstat.ngram.table import CountTable, merge_tables
from charstat.ngram.words import Vocabulary, build_trie, vocabulary_words


class Counted(Protocol):
    """What merging reads of a model.Model, which imports this file."""

    alphabet: Alphabet
    tables: Mapping[str, CountTable]
    vocabulary: Vocabulary
    classes: WordClasses
    models: tuple[str, ...]
    order: int
    manifest: dict
    pruned: Any


def merged_parts(a: Counted, b: Counted) -> Iterator[CountTable | Vocabulary | WordClasses]:
    """The vocabulary, the word classes and every table of the sum."""
    vocabulary, new_ids = merge_vocabularies(a.vocabulary, b.vocabulary)
    yield vocabulary
    yield a.classes
    for name, table in a.tables.items():
        pair = [table, b.tables[name]]
        if table.context.is_words:
            pair = [
                CountTable(t.context, t.bits, t.start_bits, t.buckets, t.records, ids[t.rows], t.sums)
                for t, ids in zip(pair, new_ids, strict=True)
            ]
        yield merge_tables(*pair)


def merged_info(a: Counted, b: Counted) -> dict:
    """What the manifest says of the sum."""
    return {
        "order": max(a.order, b.order),
        "text": _merged_text([m.manifest.get("text") or {} for m in (a, b)]),
        "data": a.manifest.get("data"),
        "models": list(dict.fromkeys((*a.models, *b.models))),
        "build": {"merged": [one for m in (a, b) for one in _builds(m.manifest.get("build"))][:MAX_PARTS]},
    }


def check_pair(a: Counted, b: Counted) -> None:
    """MergeError unless the models fit."""
    if a.pruned or b.pruned:
        raise MergeError("models that were cut to a size cannot be merged, because their counts are no longer whole: merge first, then cut")
    if a.alphabet.to_dict() != b.alphabet.to_dict():
        raise MergeError("the models have different alphabets: build the shards with one alphabet (build_model(..., alphabet=...))")
    if set(a.tables) != set(b.tables):
        raise MergeError(f"the models have different contexts: {', '.join(sorted(set(a.tables) ^ set(b.tables)))}")
    if not a.classes.same_as(b.classes):
        raise MergeError(
            "the models have different word classes: build one shard with the classes of the other (build_model(..., classes=...))"
        )
    for name, table in a.tables.items():
        total = table.total() + b.tables[name].total()
        if total > MAX_CHARS:
            raise MergeError(f"the sum would count {total:,} characters or words in {name}: tables have room for {MAX_CHARS:,}")


def _merged_text(texts: list[dict]) -> dict:
    """What the manifest says about the texts of merged models: one flat list, of MAX_PARTS at most."""
    parts = [part for text in texts for part in text.get("parts", [text])]
    more = sum(text.get("more_parts", 0) for text in texts) + max(0, len(parts) - MAX_PARTS)
    chars = min(sum(text.get("chars", 0) for text in texts), MAX_CHARS)
    return {"chars": chars, "parts": parts[:MAX_PARTS], **({"more_parts": min(more, MAX_CHARS)} if more else {})}


def _builds(build: dict | None) -> list[dict | None]:
    return build["merged"] if build and "merged" in build else [build]


def merge_vocabularies(a: Vocabulary, b: Vocabulary) -> tuple[Vocabulary, list[np.ndarray]]:
    """The vocabulary of all words of both, and for each of the two the new ids of its words (rising with the old ones)."""
    if not a.size and not b.size:
        return a, [np.empty(0, np.uint32)] * 2
    (packed_a, lengths_a), (packed_b, lengths_b) = vocabulary_words(a), vocabulary_words(b)
    packed, lengths = np.concatenate([packed_a, packed_b]), np.concatenate([lengths_a, lengths_b])
    order = np.lexsort(packed.T[::-1])
    ordered = packed[order]
    new = np.ones(order.size, bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    ids = np.empty(order.size, np.uint32)
    ids[order] = (np.cumsum(new) - 1).astype(np.uint32)
    return build_trie(ordered[new], lengths[order][new]), [ids[: a.size], ids[a.size :]]
