"""From a stream and a text to what the page, the terminal and --json show: every character by itself, and totals by kind and by source.

    weight          of a source at one character: its weights at the decisions, by how much evidence each had there
    evidence        summed over the decisions, signed towards the character
    contribution    weight times evidence, decision by decision, summed

What a source said speaks for the character where it is positive. The contributions of all sources, the last stage's and that of nodes
too unlikely to be asked about add up to the logits of the character's decisions.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from charstat.explaining.kinds import ABOUT, KINDS, kinds_of
from charstat.mixers.layout import INPUTS
from charstat.ngram.contexts import parse_context

if TYPE_CHECKING:
    from charstat.charmodel_api import CharModel
    from charstat.explaining.samples import Sample
    from charstat.mixers.explanation import Explanation, Source
    from charstat.model import Model

TOP = 5
LAST_STAGE, EVEN = "last stage", "shared evenly"  # beside the mixer's inputs
EXTRA = {
    LAST_STAGE: "how often the mixer was right in a like place, and the limits of its probabilities",
    EVEN: "decisions too unlikely to be asked about: their characters share evenly",
}
ABOUT_INPUTS = {"match": "an earlier place in this text that went on like this one", "bias": "a constant at every decision"}


def explain_sample(stream: CharModel, sample: Sample, progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """JSON values: chars, bits, bits_per_char, accuracy, kinds, sources, nodes, characters.

    Each window starts a new text for the stream; what it learned from the windows before it stays. progress: (done, total) characters.
    """
    characters: list[dict[str, Any]] = []
    sources, classes = SourceTotals(), ClassNames(stream.model)
    for number, window in enumerate(sample.windows):
        stream.reset(**({"keep_learning": True} if number else {}))
        stream.score(window.lead)
        for char, kind in zip(window.text, kinds_of(window.text, window.lead[-1:]), strict=True):
            row = _explained(stream, char, sources, classes)
            characters.append({"window": number, "kind": KINDS[kind], **row})
            if progress and len(characters) % 64 == 0:
                progress(len(characters), sample.chars)
    bits = [c["bits"] for c in characters]
    n = len(characters)
    return {
        "chars": n, "bits": math.fsum(bits), "bits_per_char": math.fsum(bits) / n, "accuracy": sum(c["right"] for c in characters) / n,
        "kinds": kind_totals([c["kind"] for c in characters], bits, [c["right"] for c in characters]),
        "sources": sources.rows(n), "nodes": _nodes(stream) if sources.sources else [], "characters": characters,
    }  # fmt: skip


def _explained(stream: CharModel, char: str, totals: SourceTotals, classes: ClassNames) -> dict[str, Any]:
    """One character, which the stream then observes."""
    listed, guess = stream.predict(), stream.predict_char()
    top = sorted(listed, key=listed.__getitem__, reverse=True)[:TOP]
    row: dict[str, Any] = {"char": char, "guess": guess, "right": guess == char, "top": [[c, listed[c]] for c in top]}
    if hasattr(stream, "explain"):
        explanation = stream.explain(char)
        row |= {"bits": explanation.bits, "probability": explanation.probability, **_of_sources(explanation)}
        row["classes"] = {name: classes(name, explanation.features[name]) for name in classes.names if explanation.features[name]}
        totals.add(explanation)
    else:
        p = stream.probability(char)
        row |= {"bits": float(-np.log2(p)), "probability": p}
    stream.observe(char)
    return row


def _of_sources(e: Explanation) -> dict[str, Any]:
    evidence, contribution = e.evidence.sum(axis=0), e.contributions.sum(axis=0)
    size = np.abs(e.evidence).sum(axis=0)
    weight = np.divide(np.abs(e.evidence * e.weights).sum(axis=0), size, out=np.zeros_like(size), where=size > 0)
    signs = np.sign((np.abs(e.evidence) * e.weights).sum(axis=0))
    rows = [
        {
            "source": k, "seen": float(e.seen[k]), "followed": float(e.followed[k]), "evidence": float(evidence[k]),
            "weight": float(weight[k] * signs[k]), "contribution": float(contribution[k]),
        }
        for k in np.flatnonzero(size).tolist()
    ]  # fmt: skip
    return {
        "rare_bits": -math.log2(e.rare_probability),
        "order": {"counted": e.static_order, "here": e.online_order},
        "match": {"length": e.match_length, "expected": e.expected} if e.match_length else None,
        "word_place": e.word_place,
        "classes": {},
        "decisions": [d._asdict() for d in e.decisions],
        LAST_STAGE.replace(" ", "_"): math.fsum(d.last_stage for d in e.decisions),
        EVEN.replace(" ", "_"): math.fsum(d.even for d in e.decisions),
        "sources": rows,
    }


def about_source(source: Source) -> dict[str, str]:
    """How a source is called and what it looks at."""
    group = next(i for i in INPUTS if i.name == source.group)
    label, about = source.name.replace("_", " "), ABOUT_INPUTS.get(source.group, group.about)
    if source.group in ("static", "online"):
        label = source.name + (" here" if source.group == "online" else "")
        about = parse_context(source.name).fields + (": counted before" if source.group == "static" else ": in this text, fading")
    return {"input": source.group, "name": source.name, "label": label, "about": about}


class ClassNames:
    """The classes of the last two words and the topic in words: the most frequent members, and what marks a topic."""

    def __init__(self, model: Model):
        self.names: tuple[str, ...] = ()
        if model.classes.hashes.size:
            from charstat.ngram.class_examples import class_rows

            rows = class_rows(model, examples=4)
            self.names = ("k1", "k2", "topic")
            self._small = [" ".join(row["examples"]) for row in rows["small"]]
            self._topics = [" ".join(row["marks"]) for row in rows["topics"]]

    def __call__(self, name: str, feature: int) -> str:
        """What a feature of hashing.WORD_FIELDS stands for; it is not 0."""
        known = self._topics if name == "topic" else self._small
        return f"{feature - 1} ({known[feature - 1]})" if feature <= len(known) else "a word without a class"


class SourceTotals:
    """Sums over characters, by source."""

    def __init__(self) -> None:
        self.sources: tuple[Source, ...] = ()
        self._sums = np.zeros((3, 0))  # contributions; how often it spoke; how often it spoke for the character
        self._extra = {name: [0.0, 0, 0] for name in EXTRA}

    def add(self, e: Explanation) -> None:
        if not self.sources:
            self.sources, self._sums = e.sources, np.zeros((3, len(e.sources)))
        contribution = e.contributions.sum(axis=0)
        self._sums += (contribution, np.abs(e.evidence).sum(axis=0) > 0, contribution > 0)
        for name, values in ((LAST_STAGE, [d.last_stage for d in e.decisions]), (EVEN, [d.even for d in e.decisions])):
            total = math.fsum(values)
            self._extra[name] = [a + b for a, b in zip(self._extra[name], (total, any(values), total > 0), strict=True)]

    def rows(self, chars: int) -> list[dict[str, Any]]:
        """One for each source, in the order of the mixer's inputs, then the last stage and the even shares: input, name, label, about,
        contribution (per character), spoke (share of the characters), for_it (share of those for which it spoke for the right one)."""
        if not self.sources:
            return []
        named = [about_source(s) for s in self.sources]
        named += [{"input": name, "name": name, "label": name, "about": about} for name, about in EXTRA.items()]
        sums = itertools.chain(self._sums.T.tolist(), self._extra.values())
        return [
            {**about, "contribution": total / chars, "spoke": spoke / chars, "for_it": right / spoke if spoke else None}
            for about, (total, spoke, right) in zip(named, sums, strict=True)
        ]


def kind_totals(kinds: list[str], bits: list[float], right: list[bool]) -> list[dict[str, Any]]:
    """One row for each kind of character that occurs: kind, about, chars, bits, bits_per_char, share (of all bits), accuracy."""
    rows, all_bits = [], math.fsum(bits)
    for name, about in zip(KINDS, ABOUT, strict=True):
        of_it = [i for i, kind in enumerate(kinds) if kind == name]
        if of_it:
            n, cost = len(of_it), math.fsum(bits[i] for i in of_it)
            rows.append({"kind": name, "about": about, "chars": n, "bits": cost, "bits_per_char": cost / n,
                         "share": cost / all_bits if all_bits else 0.0, "accuracy": sum(right[i] for i in of_it) / n})  # fmt: skip
    return rows


def _nodes(stream: CharModel) -> list[dict[str, str]]:
    """The characters under the two children of every node of the code tree; the escape as "…"."""
    alphabet = stream.alphabet
    chars, tree = [*alphabet.chars, *[""] * (127 - alphabet.size), "…"], alphabet.tree.arrays
    return [
        {"zero": "".join(chars[lo:mid]), "one": "".join(chars[mid:end])}
        for lo, mid, end in zip(tree.lowest.tolist(), tree.mid.tolist(), tree.end.tolist(), strict=True)
    ]
