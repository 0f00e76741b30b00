"""A start for one model, made of another model's: `charstat build --start MODEL`.

Most of what a mixer learns from held-out text holds for any text. But its rows and columns have their meaning from one model: its code tree,
its contexts, its word classes. So the new start is the cold one, and over it is written what has a counterpart:

    columns, evidence       the same input of the same context
    node                    the node that parts the same characters. Code trees differ from text to text: elsewhere, the mean of the nodes
                            that part a character under the 0-child from one under the 1-child, weighted by 1 / 2**(their depths)
    class_w1, class_w2      the mean of the classes that the words of a class had there, weighted by their counts. Words without a class:
                            the same shape
    previous, before        the same character
    static_order, ...       the same order, or else the next lower one that the other model has
    topic                   the same one if all classes and topics are the same: its number means nothing elsewhere
    word_hits, candidates   the same row if the word contexts (the nested ones) are the same
    class_place, open       the same row

The same model and the same start give the same values, bit for bit. Nothing here is part of a submission.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from charstat.alphabet import Alphabet
from charstat.errors import ArgumentError, FormatError, UserError
from charstat.mixers.layout import INPUTS, SELECTOR_SETS, SHAPES, WORD_PLACES, MixerLayout, MixerRates
from charstat.mixers.logistic import Mixer, new_mixer
from charstat.mixers.warm_start import CHUNK_CHARS, WarmStart, checked_warm_start, pack
from charstat.model import Model
from charstat.ngram.class_examples import class_words
from charstat.ngram.classes import SMALL, TOPICS
from charstat.ngram.hashing import CHARS
from charstat.storage import array_sha256
from charstat.tree import ESCAPE, SYMBOLS

COLD = -1  # in place of an old row
LAST_CHARACTER = SHAPES // 2  # words.word_shape: from here on, shapes are last characters


class Learned(NamedTuple):
    """A model's mixer, and where everything stands in it."""

    model: Model
    layout: MixerLayout
    mixer: Mixer

    @classmethod
    def nothing(cls, model: Model) -> Learned:
        """As it begins cold."""
        layout = model.stream(warm_start=False).layout
        return cls(model, layout, new_mixer(layout, MixerRates()))

    @classmethod
    def start(cls, model: Model) -> Learned:
        """With the model's start. UserError if it has none, or one of another version's mixer."""
        name, found = model.path or "the model", cls.nothing(model)
        if not model.warm_start_chars:
            raise UserError(f"{name} has no start to begin with: build it with --held-out, or leave out --start")
        try:
            checked_warm_start(True, model, found.layout, 0, True).copy_to(found.mixer, found.layout)
        except FormatError:
            raise UserError(
                f"the start of {name} was learned by another version of charstat, with another mixer: build that model again"
            ) from None
        return found

    @property
    def columns(self) -> list[str]:
        """The name of every input; with its context's, if it is a context's."""
        names = []
        for group in INPUTS:
            of_contexts = group.name in ("static", "online")
            names += [f"{group.name} {c.name}" for c in self.layout.contexts] if of_contexts else [group.name] * group.count(self.layout)
        return names

    @property
    def orders(self) -> list[int]:
        """The character orders that are mixed, rising; 0 first, for none of them."""
        return [0, *(c.param for c in self.layout.contexts if c.kind == CHARS)]

    @property
    def words(self) -> list[str]:
        """The word contexts."""
        return [c.name for c in self.layout.contexts if c.is_words]

    @property
    def nested(self) -> list[str]:
        """Those of them that selectors.select_rows counts candidates in."""
        chains = self.layout.chains
        return [c.name for c in self.layout.contexts[max(chains.first_word, chains.nested_end - 3) : chains.nested_end]]

    def rows(self, name: str, first: int, size: int) -> np.ndarray:
        """So many rows of a selector set, from its row `first` on: a view of the weights."""
        at = getattr(self.layout.first_rows, name) + first
        return self.mixer.weights[at : at + size]


class Block(NamedTuple):
    """Rows of one kind, next to each other in a selector set. shares: float64 [new, old], what part of each old row a new one is."""

    name: str
    first: int
    shares: np.ndarray


def check_start(model: object) -> None:
    """ArgumentError unless it is a Model; UserError unless it has a start that this version can read."""
    if not isinstance(model, Model):
        raise ArgumentError(f"start must be a Model, not {type(model).__name__}")
    Learned.start(model)


def picked(rows: np.ndarray, size: int) -> np.ndarray:
    """The shares where each new row is one of `size` old rows, or COLD."""
    shares, known = np.zeros((len(rows), size)), np.flatnonzero(rows != COLD)
    shares[known, rows[known]] = 1.0
    return shares


def symbol_rows(old: Alphabet, new: Alphabet) -> np.ndarray:
    """For every new symbol the old one of the same character, or COLD: int64 [SYMBOLS]."""
    rows = np.full(SYMBOLS, COLD)
    rows[: new.size] = [old.symbol_of.get(char, COLD) for char in new.chars]
    rows[ESCAPE] = ESCAPE
    return rows


def same_classes(old: Model, new: Model) -> bool:
    """Whether classes and topics of both have the same numbers."""
    return old.alphabet.chars == new.alphabet.chars and old.classes.same_as(new.classes)


def class_shares(old: Model, new: Model) -> np.ndarray:
    """What part of each of the old k classes a new one is, by the words that both know; nothing of any if there are none."""
    if same_classes(old, new):
        return np.eye(SMALL)
    shares = np.zeros((SMALL, SMALL))
    if old.classes.hashes.size and new.classes.hashes.size:
        number = {word: i for i, word in enumerate(class_words(old)[0]) if word}
        words, counts = class_words(new)
        pairs = [(i, number[word]) for i, word in enumerate(words) if word in number]
        ours, theirs = np.array(pairs, np.int64).reshape(-1, 2).T
        np.add.at(shares, (new.classes.labels[ours, 0], old.classes.labels[theirs, 0]), counts[ours] + 1.0)
    return shares / np.maximum(shares.sum(axis=1, keepdims=True), 1.0)


def blocks_of(old: Learned, new: Learned) -> Iterator[Block]:
    """What the rows of every selector set are made of, the node's aside."""

    def numbered(alike: bool, size: int) -> np.ndarray:
        return np.eye(size) if alike else np.zeros((size, size))

    symbols = symbol_rows(old.model.alphabet, new.model.alphabet)
    orders = np.searchsorted(old.orders, new.orders, "right") - 1
    places = (orders[:, np.newaxis] * WORD_PLACES + np.arange(WORD_PLACES)).ravel()
    yield Block("static_order", 0, picked(places, len(old.orders) * WORD_PLACES))
    yield Block("online_order", 0, picked(orders, len(old.orders)))
    yield Block("previous", 0, picked(symbols, SYMBOLS))
    yield Block("before", 0, picked(symbols, SYMBOLS))
    classes = class_shares(old.model, new.model)
    shapes = picked(np.concatenate([np.arange(LAST_CHARACTER), np.where(symbols == COLD, COLD, LAST_CHARACTER + symbols)]), SHAPES)
    for name in ("class_w1", "class_w2"):
        yield Block(name, 0, np.eye(1))
        yield Block(name, 1, classes)
        yield Block(name, 1 + SMALL, shapes)
    yield Block("topic", 0, np.eye(1))
    yield Block("topic", 1, numbered(same_classes(old.model, new.model), TOPICS))
    alike = {"class_place": True, "open": True, "word_hits": old.words == new.words, "candidates": old.nested == new.nested}
    for group in SELECTOR_SETS:
        if group.name in alike:
            yield Block(group.name, 0, numbered(alike[group.name], group.rows(new.layout)))


def node_shares(old: Alphabet, new: Alphabet) -> np.ndarray:
    """What part of each old node's row a new node's is: float64 [new nodes, old nodes]. Negative where its sides are swapped."""
    tree, other, symbols = new.tree.arrays, old.tree.arrays, symbol_rows(old, new)
    symbols[symbols == COLD] = ESCAPE  # what a character was there
    shares = np.zeros((tree.child.shape[0], other.child.shape[0]))
    used = [*range(new.size), ESCAPE]
    for v, (lowest, mid, end) in enumerate(zip(tree.lowest, tree.mid, tree.end, strict=True)):
        for a in (s for s in used if lowest <= s < mid):
            for b in (s for s in used if mid <= s < end):
                if symbols[a] != symbols[b]:
                    d = other.shared[symbols[a], symbols[b]]
                    side = 1.0 if other.path_bit[symbols[a], d] == 0 else -1.0
                    shares[v, other.path_node[symbols[a], d]] += side * 0.5 ** (tree.depth[a] + tree.depth[b])
        total = np.abs(shares[v]).sum()
        shares[v] = shares[v] / total if total else 1.0 / other.child.shape[0]
    return shares


def blended(shares: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Sums of rows by their shares; subtle: not by BLAS, whose additions depend on the machine's cores."""
    return np.einsum("ij,jk->ik", shares, rows.astype(np.float64))


def carry_over(other: Model, model: Model) -> tuple[WarmStart, dict]:
    """(a start for `model`, made of that of `other`; what the manifest says of where it comes from). Errors: those of check_start."""
    old, new = Learned.start(other), Learned.nothing(model)
    place = {name: k for k, name in enumerate(new.columns)}
    theirs = [k for k, name in enumerate(old.columns) if name in place]
    ours = [place[old.columns[k]] for k in theirs]
    cold_rows, classes = [], 0
    for name, first, shares in blocks_of(old, new):
        rows = old.rows(name, first, shares.shape[1])[:, theirs]
        new.rows(name, first, shares.shape[0])[:, ours] = blended(shares, rows)
        cold_rows += [name] if rows.any() and not shares.any() else []
        classes = max(classes, int(np.count_nonzero(shares.any(axis=1) & (shares.max(axis=1) < 1.0))))
    shares = node_shares(other.alphabet, model.alphabet)
    nodes, others = (x.rows("node", 0, n) for x, n in zip((new, old), shares.shape, strict=True))
    nodes[:, ours] = blended(np.abs(shares), others[:, theirs])
    bias = others[:, [old.columns.index("bias")]]
    nodes[:, [place["bias"]]] = blended(shares, bias)  # the one input that stays as it is where sides swap
    for mine, its in zip(ours, theirs, strict=True):
        if its < len(old.mixer.logits):  # subtle: the columns of the evidence come first
            new.mixer.logits[mine] = old.mixer.logits[its]
    new.mixer.match[:] = old.mixer.match
    contexts, former = [c.name for c in new.layout.contexts], [c.name for c in old.layout.contexts]
    origin = {
        "path": other.path and os.path.abspath(other.path),
        "sha256": array_sha256(other.warm_start),
        "chars": other.warm_start_chars,
        "cold": [name for name in contexts if name not in former],
        "left_out": [name for name in former if name not in contexts],
        "characters": int(np.count_nonzero(symbol_rows(other.alphabet, model.alphabet)[: model.alphabet.size] == COLD)),
        "nodes": int(np.count_nonzero(shares.max(axis=1) < 1.0)),
        "classes": classes,
        "cold_rows": cold_rows,
    }
    return WarmStart(pack(new.mixer), new.layout.digest(), other.warm_start_chars), origin


def learn_on(start: WarmStart, model: Model, text: str, progress: Callable[[int], None] | None = None) -> WarmStart:
    """What a mixer that begins with a start has learned after a text that was not counted. progress: told how many characters are done."""
    stream = model.stream(warm_start=start)
    stream.reset()
    for at in range(0, len(text), CHUNK_CHARS):
        stream.score(text[at : at + CHUNK_CHARS])
        if progress:
            progress(min(at + CHUNK_CHARS, len(text)))
    return WarmStart(pack(stream.mixer), start.layout, start.chars + len(text))
