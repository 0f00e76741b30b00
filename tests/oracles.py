"""Slow, plain twins of what charstat does with kernels: Python integers, dictionaries, tuples of strings.

They are written from the definitions (docstrings of ngram/ and mixers/), not from the kernels, and share no code with
them. Constants of the definitions are stated here again on purpose: who changes one changes every model, and a test says so.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from charstat.alphabet import Alphabet
from charstat.ngram.contexts import Context

M56, M57, M64 = (1 << 56) - 1, (1 << 57) - 1, (1 << 64) - 1
A, B, SEED = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0x9E3779B97F4A7C15
ESCAPE, LEAVES = 127, 128
RARE = "\ufffe"  # stands for every character without a symbol of its own
LONGEST_WORD = 32
CHARS, CLASSES_OF, SPARSE, WORDS = range(4)
FIELDS = ("w1", "w2", "w3", "w4", "shapes", "number", "capital", "lower1", "lower2", "suffix", "suffixes")
FIELDS += ("k1", "k2", "k3", "k4", "K1", "K2", "topic")
SMALL, LARGE, TOPICS, TOPIC_STEP, YOUNG = 256, 1024, 256, 8, 64


@contextlib.contextmanager
def no_phase(name: str):
    """For backends: a phase that nobody measures."""
    yield


# Hashes, with every mask written out.


def mix64(x: int) -> int:
    x = ((x ^ (x >> 30)) * A) & M64
    x = ((x ^ (x >> 27)) * B) & M64
    return x ^ (x >> 31)


def mix57(x: int) -> int:
    x = ((x ^ (x >> 29)) * A) & M57
    x = ((x ^ (x >> 28)) * B) & M57
    return x ^ (x >> 29)


def unmix57(x: int) -> int:
    """The inverse of mix57, by the inverses of its steps."""
    x ^= x >> 29
    x = (x * pow(B, -1, 1 << 57)) & M57
    x ^= (x >> 28) ^ (x >> 56)
    x = (x * pow(A, -1, 1 << 57)) & M57
    return x ^ (x >> 29)


def hash57(a: int, b: int, c: int) -> int:
    return mix64(a ^ mix64(b ^ mix64((c + SEED) & M64))) >> 7


def pack(symbols: Sequence[int]) -> int:
    """Seven bits a symbol, the last one lowest."""
    packed = 0
    for s in symbols:
        packed = packed << 7 | int(s)
    return packed


def char_identity(kind: int, param: int, symbols: Sequence[int], classes: Sequence[int]) -> int:
    """The identity of a character context after these symbols (of which there are enough). classes: of each symbol."""
    past = [0] * 24 + [int(s) for s in symbols]
    class_past = [int(classes[s]) for s in past]  # the padding is masked away by `param`
    if kind == CHARS:
        if param <= 8:
            return mix57(pack(past[len(past) - param :]))
        first, second, third = past[-8:], past[-16:-8], past[-24:-16]
        if param <= 16:
            return hash57(pack(first), pack(second[16 - param :]), param)
        return hash57(pack(first), pack(second), pack(third[24 - param :]) << 7 | param)
    if kind == CLASSES_OF:
        tail = past[-1] << 7 | param
        if param <= 8:
            return hash57(pack(class_past[len(class_past) - param :]), 0, tail)
        return hash57(pack(class_past[-8:]), pack(class_past[-16:-8][16 - param :]), tail)
    return mix57(pack([past[-1 - j] for j in range(8) if param >> j & 1]))


# The alphabet.


def char_class(char: str) -> str:
    """space, lower, upper, digit or other; a rare character is other."""
    if char in (" ", "\n"):
        return "space"
    if char == RARE:
        return "other"
    return "lower" if char.islower() else "upper" if char.isupper() else "digit" if char.isdigit() else "other"


def simplify(text: str, alphabet: Alphabet) -> str:
    """The text with RARE for every character that has no symbol."""
    own = set(alphabet.chars)
    return "".join(c if c in own else RARE for c in text)


def symbol(char: str, alphabet: Alphabet) -> int:
    return alphabet.chars.index(char) if char in alphabet.chars else ESCAPE


def class_symbols(alphabet: Alphabet) -> list[int]:
    """Each symbol's class symbol: of all lower-case letters (upper, digits) the first in symbol order; others themselves."""
    out = list(range(LEAVES))
    for name in ("lower", "upper", "digit"):
        members = [i for i, c in enumerate(alphabet.chars) if char_class(c) == name]
        for i in members:
            out[i] = members[0]
    return out


# Counts of character contexts: what each context is, as strings.


def char_context(context: Context, past: str) -> tuple | None:
    """The context at the end of a (simplified) past; None where the past is too short."""
    kind, param = context.kind, context.param
    if kind == CHARS:
        return tuple(past[len(past) - param :]) if len(past) >= param else None
    if kind == CLASSES_OF:
        if len(past) < param:
            return None
        kept = ("lower", "upper", "digit")
        return (*(char_class(c) if char_class(c) in kept else c for c in past[-param:]), past[-1])
    distances = [j + 1 for j in range(8) if param >> j & 1]
    return tuple(past[-d] for d in distances) if len(past) >= max(distances) else None


Counts = dict[tuple, Counter]


def char_counts(text: str, history: str, alphabet: Alphabet, context: Context) -> Counts:
    """context -> how often each character of `text` followed it."""
    whole, border = simplify(history + text, alphabet), len(history)
    counts: Counts = defaultdict(Counter)
    for i in range(border, len(whole)):
        where = char_context(context, whole[max(0, i - 24) : i])
        if where is not None:
            counts[where][whole[i]] += 1
    return counts


def char_context_identities(text: str, history: str, alphabet: Alphabet, context: Context) -> dict[tuple, int]:
    """The identity of every context that char_counts finds."""
    whole = simplify(history + text, alphabet)
    symbols, classes = [symbol(c, alphabet) for c in whole], class_symbols(alphabet)
    out = {}
    for i in range(len(history), len(whole)):
        where = char_context(context, whole[max(0, i - 24) : i])
        if where is not None:
            out[where] = char_identity(context.kind, context.param, symbols[max(0, i - 24) : i], classes)
    return out


# Words.


def tokens(text: str) -> list[str]:
    """The tokens that end in `text`, each with its separator; what follows the last separator is not one yet."""
    out, start = [], 0
    for i, c in enumerate(text):
        if c in " \n":
            out.append(text[start : i + 1])
            start = i + 1
    return out


def known_word(token: str) -> str:
    """What a token is known by."""
    return token[:LONGEST_WORD]


def lower_word(word: str, alphabet: Alphabet) -> str:
    return "".join(c.lower() if c != RARE and c.lower() in alphabet.chars else c for c in word)


def word_shape(word: str) -> tuple:
    first = char_class(word[0])
    return (first, word[-1]) if first == "other" else (first, min(len(word), 9) // 3)


def last(items: Sequence, n: int) -> object:
    """The n-th item from the end, None where there are fewer."""
    return items[-n] if len(items) >= n else None


class ClassesTwin:
    """Word classes and topics in dictionaries and lists; topic() goes on from the tokens that it was asked for last."""

    def __init__(self, classes=None):
        hashes, labels, scores = ([], [], []) if classes is None else (part.tolist() for part in classes)
        self.labels = dict(zip(hashes, labels, strict=True))
        self.scores = {h: row for h, row in zip(hashes, scores, strict=True) if any(row)}
        self._restart()

    def _restart(self) -> None:
        self.tokens, self.sums, self.added, self.now, self.article = [], [0] * TOPICS, 0, None, 0

    def label(self, word: str | None, which: int, alphabet: Alphabet) -> tuple | None:
        """("class", its number), or ("shape", the word's shape) for words without a class."""
        if word is None:
            return None
        found = self.labels.get(string_hash(word, alphabet))
        return ("shape", word_shape(word)) if found is None else ("class", found[which])

    def topic(self, tokens: list[str], alphabet: Alphabet) -> int | None:
        """The number of the topic after these tokens, without their separators."""
        if tokens[: len(self.tokens)] != self.tokens:
            self._restart()
        for i in range(len(self.tokens), len(tokens)):
            token, two_before = tokens[i], ["", "", *tokens][i : i + 2]
            if token and self._is_sign(two_before[1], alphabet) and two_before[0] == "" and not self._is_sign(token, alphabet):
                self.sums, self.added, self.article = [0] * TOPICS, 0, self.article + 1  # a title
            scores = None if self._is_sign(token, alphabet) else self.scores.get(string_hash(token, alphabet))
            if scores is not None:
                self.sums = [s - s // 128 + 256 * score for s, score in zip(self.sums, scores, strict=True)]
                self.added += 1
                if self.added < YOUNG or self.added % TOPIC_STEP == 0:
                    self.now = self.sums.index(max(self.sums))
        self.tokens = list(tokens)
        return self.now

    def _is_sign(self, token: str, alphabet: Alphabet) -> bool:
        return token == "=" and string_hash("=", alphabet) in self.labels


def word_features(tokens: list[str], alphabet: Alphabet, classes: ClassesTwin) -> dict[str, object]:
    """The word features after these (simplified, known) tokens without their separators: words, and empty strings where there is no word."""
    words = [token for token in tokens if token]
    digits = [w for w in words if char_class(w[0]) == "digit"]
    capitals = [w for w in words if char_class(w[0]) == "upper"]
    lowered = [lower_word(w, alphabet) for w in words[-2:]]
    # "the last three characters": a shorter word is all of its own; before it there is nothing, for which RARE stands
    endings = [(RARE * 3 + w)[-3:] for w in words[-2:]]
    return {
        **{f"w{n}": last(words, n) for n in (1, 2, 3, 4)},
        "shapes": tuple(word_shape(w) for w in words[-4:]),
        "number": last(digits, 1),
        "capital": last(capitals, 1),
        "lower1": last(lowered, 1),
        "lower2": last(lowered, 2),
        "suffix": last(endings, 1),
        "suffixes": tuple(e[-2:] for e in endings),
        **{f"k{n}": classes.label(last(words, n), 0, alphabet) for n in (1, 2, 3, 4)},
        **{f"K{n}": classes.label(last(words, n), 1, alphabet) for n in (1, 2)},
        "topic": classes.topic(tokens, alphabet),
    }


def string_hash(word: str, alphabet: Alphabet) -> int:
    h = 0
    for c in word:
        h = ((h + symbol(c, alphabet) + 1) * B) & M64
        h ^= h >> 32
    return h


def shape_number(shape: tuple, alphabet: Alphabet) -> int:
    first, rest = shape
    return 128 + symbol(rest, alphabet) if first == "other" else 4 * ("space", "lower", "upper", "digit").index(first) + rest


def feature_number(field: str, value: object, alphabet: Alphabet) -> int:
    """The 64-bit number that stands for a feature's value; 0 for none."""
    if value is None or value == ():
        return 0
    if field == "shapes":
        packed = 0
        for shape in value:
            packed = packed << 8 | shape_number(shape, alphabet)
        return packed
    if field[0] in "kK":
        kind, what = value
        return 1 + (what if kind == "class" else (SMALL if field[0] == "k" else LARGE) + shape_number(what, alphabet))
    if field == "topic":
        return 1 + value
    if field == "suffix":
        return pack([symbol(c, alphabet) for c in value]) + 1
    if field == "suffixes":
        packed = 0
        for ending in value:
            packed = packed << 16 | pack([symbol(c, alphabet) for c in ending]) + 1
        return packed
    return string_hash(value, alphabet)


def word_context_hash(mask: int, features: dict[str, object], alphabet: Alphabet) -> int:
    h = (SEED + mask) & M64
    for j, name in enumerate(FIELDS):
        if mask >> j & 1:
            h = mix64(h ^ feature_number(name, features[name], alphabet))
    return h


def word_context(context: Context, features: dict[str, object]) -> tuple:
    return tuple(features[name] for j, name in enumerate(FIELDS) if context.param >> j & 1)


def word_counts(text: str, history: str, alphabet: Alphabet, context: Context, classes=None) -> tuple[Counts, dict[tuple, int]]:
    """(context -> how often each known token of `text` came in it, the identity of each of those contexts)."""
    twin = ClassesTwin(classes)
    counts: Counts = defaultdict(Counter)
    identities: dict[tuple, int] = {}
    words: list[str] = []
    end = 0
    for token in tokens(simplify(history + text, alphabet)):
        end += len(token)
        if end > len(history):
            features = word_features(words, alphabet, twin)
            where = word_context(context, features)
            counts[where][known_word(token)] += 1
            identities[where] = word_context_hash(context.param, features, alphabet) >> 24
        words.append(known_word(token[:-1]))
    return counts, identities


def vocabulary(text: str, alphabet: Alphabet) -> list[str]:
    """All known tokens, by their symbols."""
    known = {known_word(t) for t in tokens(simplify(text, alphabet))}
    return sorted(known, key=lambda w: [symbol(c, alphabet) for c in w])


# A table as dictionaries, read through its public methods.


def table_dict(table) -> dict[int, dict[int, int]]:
    """identity -> {symbol or word id: count}."""
    starts, symbols, counts = table.starts().tolist(), table.symbols().tolist(), table.counts().tolist()
    return {
        identity: dict(zip(symbols[a:b], counts[a:b], strict=True))
        for identity, a, b in zip(table.context_identities().tolist(), starts[:-1], starts[1:], strict=True)
    }


def trie_words(trie) -> list[tuple[int, ...]]:
    """The words of a trie, by id, as tuples of symbols: a walk that checks every node's first id on the way."""
    words: list[tuple[int, ...]] = []

    def walk(node: int, prefix: tuple[int, ...]) -> None:
        assert int(trie.first_id[node]) == len(words)
        children = range(int(trie.first_child[node]), int(trie.first_child[node + 1]))
        symbols = [int(trie.symbol[c]) for c in children]
        assert symbols == sorted(set(symbols))
        if not children and prefix:
            words.append(prefix)
        for child in children:
            walk(child, (*prefix, int(trie.symbol[child])))

    if trie.size:
        walk(0, ())
    return words


# The code tree, from its code.


class TreeTwin:
    """paths[symbol]: the decisions (node, bit); under[node, bit]: the symbols on that side; numbers[node]: breadth first.

    Nodes are named by their path.
    """

    def __init__(self, code: str):
        self.paths: dict[int, list[tuple[str, int]]] = {}
        self.under: dict[tuple[str, int], frozenset[int]] = {}
        n = code.count(".")
        leaf, at = 0, 0

        def read(path: str) -> frozenset[int]:
            nonlocal leaf, at
            at += 1
            if code[at - 1] == ".":
                own = ESCAPE if leaf == n - 1 else leaf
                leaf += 1
                self.paths[own] = [(path[:d], int(path[d])) for d in range(len(path))]
                return frozenset([own])
            for bit in (0, 1):
                self.under[path, bit] = read(path + str(bit))
            return self.under[path, 0] | self.under[path, 1]

        self.symbols = read("")
        self.numbers = {node: i for i, node in enumerate(sorted({node for node, _ in self.under}, key=lambda n: (len(n), n)))}


# The overlay: what was seen, with recent symbols counting more.

UNIT = 4096
FAST, SLOW = 26214, 62259  # 0.4 and 0.95 of 65536
MOST = (1 << 23) - 1
MOST_SEEN = 511


class OverlayTwin:
    """(family, key) -> {symbol: [fast, slow, seen]} in the order of first sight; fast and slow in units of 1/4096."""

    def __init__(self):
        self.counts: dict[tuple, dict[int, list[int]]] = {}

    def observe(self, family: int, key: object, seen: int) -> None:
        here = self.counts.setdefault((family, key), {})
        for s, entry in here.items():
            if s == seen:
                entry[:] = min(entry[0] + UNIT, MOST), min(entry[1] + UNIT, MOST), entry[2] + 1
            else:
                entry[:2] = max(entry[0] * FAST >> 16, 1), max(entry[1] * SLOW >> 16, 1)
        here.setdefault(seen, [UNIT, UNIT, 1])
        if here[seen][2] > MOST_SEEN:
            for entry in here.values():
                entry[2] = (entry[2] + 1) // 2

    def get(self, family: int, key: object) -> dict[int, list[int]]:
        return self.counts.get((family, key), {})


# The match model.

RUN, LONGEST_MATCH = 7, 400


class MatchTwin:
    """Where did the last seven symbols last end, and how did it go on? `ends` is a table of one place per bucket."""

    def __init__(self, table_bits: int = 12):
        self.text: list[int] = []
        self.ends: dict[int, int] = {}
        self.size = 1 << table_bits
        self.pointer, self.length = 0, 0

    def bucket(self, run: Sequence[int]) -> int:
        return ((pack(run) * SEED & M64) >> 40) % self.size

    def resize(self, table_bits: int) -> None:
        """Another table, filled as if it had been there from the start."""
        self.size = 1 << table_bits
        self.ends = {}
        for end in range(RUN, len(self.text) + 1):
            self.ends[self.bucket(self.text[end - RUN : end])] = end

    def expected(self) -> int:
        return self.text[self.pointer] if self.length else -1

    def observe(self, seen: int) -> None:
        if self.length and self.text[self.pointer] == seen:
            self.pointer, self.length = self.pointer + 1, min(self.length + 1, LONGEST_MATCH)
        else:
            self.length = 0
        self.text.append(seen)
        n = len(self.text)
        if n < RUN:
            return
        bucket = self.bucket(self.text[-RUN:])
        if not self.length and bucket in self.ends:
            end = self.ends[bucket]
            same = 0
            while same < min(end, LONGEST_MATCH) and self.text[end - 1 - same] == self.text[n - 1 - same]:
                same += 1
            if same >= RUN:
                self.pointer, self.length = end, same
        self.ends[bucket] = n


def length_bucket(length: int) -> int:
    """Steps of 2 up to 16, of 4 up to 32, of 16 up to 128, then one for the rest."""
    if length < 16:
        return max(0, (length - RUN + 1) // 2)
    return 5 + (length - 16) // 4 if length < 32 else min(15, 9 + (length - 32) // 16)


# The mixture, in float64.

WORD_PLACES = 8


def log_odds(ratio: float, n: float) -> float:
    return math.log((ratio * n + 0.2) / ((1.0 - ratio) * n + 0.2))


def logit(p: float, smallest: float) -> float:
    p = min(max(p, smallest), 1.0 - smallest)
    return math.log(p / (1.0 - p))


TOPIC_BIT = 1 << FIELDS.index("topic")
NESTED = ("p", "p.w1", "p.w1.w2", "p.w1.w2.w3", "p.w1.w2.w3.w4")


class MixtureTwin:
    """A stream on a model, its static counts read through CountTable's public methods, everything else in dictionaries.

    The formulas are written again; the numbers in them that are tuned (edges, priors, rates) are the mixture's own.
    """

    def __init__(self, model, rates=None, experts=0, match=True):
        from charstat.mixers import back_off, evidence, kernels, last_stage, layout, logistic

        self.rates = rates or layout.MixerRates()
        self.count_edges, self.count_typical = evidence.COUNT_EDGES, evidence.COUNT_TYPICAL
        self.ratio_edges, self.ratio_typical = evidence.RATIO_EDGES, (0.0, *evidence.RATIO_TYPICAL, 1.0)
        self.prune, self.chain_prior, self.online_weight = kernels.PRUNE, back_off.CHAIN_PRIOR, back_off.ONLINE_WEIGHT
        self.bias, self.smallest = float(kernels.BIAS), logistic.P_MIN
        self.map_share, self.map_rate, self.refined_from = last_stage.SHARE, last_stage.RATE, last_stage.REFINED_FROM
        self.maps: dict[tuple, float] = {}
        self.hit_levels, self.match_levels = layout.HIT_LEVELS, layout.MATCH_LEVELS

        self.alphabet = model.alphabet
        self.contexts = [c for c in model.contexts if c.name != "o0"] or list(model.contexts)
        self.tables = [table_dict(model.tables[c.name]) for c in self.contexts]
        self.words = trie_words(model.vocabulary)
        self.classes = class_symbols(model.alphabet)
        self.tree = TreeTwin(model.alphabet.tree.code)
        self.families = len(self.contexts)
        self.inputs, self.matches = 2 * self.families + 5 + experts, match
        self.advice = np.zeros((experts, LEAVES))
        self.weights: dict[tuple, np.ndarray] = {}
        self.logits: dict[tuple, float] = {}
        self.overlay, self.match = OverlayTwin(), MatchTwin()
        self.symbols: list[int] = []
        self.word_classes = ClassesTwin(model.classes)
        self.current = ""  # the word being written, as characters
        self.finished: list[str] = []
        self._enter_word()

    def _enter_word(self) -> None:
        self.features = word_features(self.finished, self.alphabet, self.word_classes)
        self.word_rows: list[dict[int, int]] = []
        for context, table in zip(self.contexts, self.tables, strict=True):
            key = word_context_hash(context.param, self.features, self.alphabet) >> 24 if context.is_words else None
            self.word_rows.append(table.get(key, {}))

    def _look_up(self) -> None:
        """The counts of all sources ({symbol: count}), and the rows of weights that are selected."""
        f = self.families
        self.sources: list[dict[int, int]] = [{} for _ in range(2 * f)]
        self.keys: list[object] = [None] * f
        longest_static = longest_online = hits = 0
        for k, context in enumerate(self.contexts):
            if context.is_words:
                at = len(self.current)
                for word_id, count in self.word_rows[k].items():
                    if len(self.words[word_id]) > at:
                        s = self.words[word_id][at]
                        self.sources[k][s] = self.sources[k].get(s, 0) + count
                prefix, features, fields = known_word(self.current), self.features, context.param
                if fields & TOPIC_BIT and self.word_classes.article:
                    features, fields = features | {"topic": ("article", self.word_classes.article)}, fields ^ TOPIC_BIT
                self.keys[k] = (word_context(context, features), prefix if fields else lower_word(prefix, self.alphabet))
                hits += bool(self.sources[k])
            elif len(self.symbols) >= context.reach:
                identity = char_identity(context.kind, context.param, self.symbols[-24:], self.classes)
                self.sources[k] = self.tables[k].get(identity, {})
                self.keys[k] = identity
            seen = self.overlay.get(k, self.keys[k])
            self.sources[f + k] = {s: entry[1 if context.is_words else 0] for s, entry in seen.items()}  # slow for words
            if context.kind == CHARS:
                longest_static = k + 1 if self.sources[k] else longest_static
                longest_online = k + 1 if seen else longest_online
            self.sources[k] = {s: self.sources[k].get(s, 0) + seen.get(s, [0, 0, 0])[2] for s in self.sources[k] | seen}
        before, previous = ([0, 0, *self.symbols])[-2:]
        place = min(len(self.current), WORD_PLACES - 1)
        kind = char_class(self.alphabet.chars[previous]) if previous != ESCAPE else "other"
        matched = (
            1 + min(length_bucket(self.match.length) // 3, self.match_levels - 2) if self.matches and self.match.expected() >= 0 else 0
        )
        self.selected = [
            ("static", longest_static, place),
            ("class", kind, place),
            ("online", longest_online),
            ("previous", previous),
            ("before", before),
            ("hits", min(hits, self.hit_levels - 1), matched),
            ("candidates", *self._candidates()),
            ("open", *self._open()),
            ("class_w1", self.features["k1"]),
            ("class_w2", self.features["k2"]),
            ("topic", self.features["topic"]),
        ]

    def _candidates(self) -> list[int]:
        """Of the three longest nested contexts: how many words can still follow, roughly."""
        rows = [rows for c, rows in zip(self.contexts, self.word_rows, strict=True) if c.name in NESTED][-3:]
        numbers = [sum(len(self.words[word_id]) > len(self.current) for word_id in row) for row in rows]
        return [sum(n >= edge for edge in (1, 2, 4)) for n in numbers]

    def _open(self) -> tuple[str, int]:
        """The quotation or parenthesis that opened last, and how long ago, read anew from all of the text."""
        kind, words = "", 0
        chars = [self.alphabet.chars[s] if s != ESCAPE else "" for s in self.symbols]
        for i, c in enumerate(chars):
            if c and c in '"“”':
                kind, words = "" if kind == '"' else '"', 0
            elif c and c in "([":
                kind, words = "(", 0
            elif c and c in ")]\n":
                kind, words = "", 0
            elif c == " " and i and chars[i - 1] not in (" ", "\n"):
                words += 1
                if words > 60:
                    kind, words = "", 0
        level = sum(words >= edge for edge in (1, 2, 3, 4, 5, 6, 9, 15, 25))
        return (kind, level) if kind else ("", 0)

    def _row(self, name: tuple) -> np.ndarray:
        f = self.families
        if name not in self.weights:
            row = np.zeros(self.inputs)
            if name[0] == "node":
                row[:] = self.rates.initial_evidence / (1.2 * f)
                row[2 * f : 2 * f + 3] = self.rates.initial_chain
                row[2 * f + 5 :] = self.rates.initial_expert
            self.weights[name] = row
        return self.weights[name]

    def _evidence(self, k: int, n1: int, n: int) -> tuple[tuple, float]:
        """The name of a source's state, and the logit that it starts with."""
        steps = int(np.float32(n1) * np.float32(1024) / np.float32(n)) + (n1 > 0)
        ratio = 14 if steps == 1025 else 0 if steps == 0 else 1 + sum((steps - 0.5) / 1024 >= e for e in self.ratio_edges)
        count = n if k < self.families else (n + UNIT // 2) // UNIT
        bucket = sum(count >= e for e in self.count_edges)
        return (k, bucket, ratio), log_odds(self.ratio_typical[ratio], self.count_typical[bucket])

    def _chain(self, p: float, members: range, masses: list[tuple[int, int]]) -> float:
        """Every context corrects the estimate of the shorter ones; in float32, because near 1 the logit of a rounded p is another one."""
        single, p = np.float32, np.float32(p)
        for k in members:
            (ones, n), (online_ones, online_n) = masses[k], masses[self.families + k]
            ones = single(ones) + single(self.online_weight / UNIT) * single(online_ones)
            inverse = single(1.0) / (single(n) + single(self.online_weight / UNIT) * single(online_n) + single(self.chain_prior))
            p = ones * inverse + single(self.chain_prior) * inverse * p
        return p

    def _decide(self, node: str) -> tuple[float, np.ndarray, np.ndarray, dict[int, tuple]]:
        """(P(bit = 1), inputs, weights, the name of each learned input's logit) at a node."""
        f = self.families
        under0, under1 = self.tree.under[node, 0], self.tree.under[node, 1]
        x, names, masses = np.zeros(self.inputs), {}, []
        for k, source in enumerate(self.sources):
            n1 = sum(c for s, c in source.items() if s in under1)
            n = n1 + sum(c for s, c in source.items() if s in under0)
            masses.append((n1, n))
            if n:
                names[k], initial = self._evidence(k, n1, n)
                x[k] = self.logits.setdefault(names[k], initial)
        orders = [k for k, c in enumerate(self.contexts) if c.kind == CHARS]
        nested = [k for k, c in enumerate(self.contexts) if c.name in NESTED]
        others = [k for k, c in enumerate(self.contexts) if c.is_words and k not in nested]
        p = 0.5
        for i, members in enumerate((orders, nested, others)):
            p = self._chain(p, members, masses)
            x[2 * f + i] = logit(float(p), self.smallest)
        expected = self.match.expected() if self.matches else -1
        if expected in under0 | under1:
            bit, strength = int(expected in under1), length_bucket(self.match.length)
            names[2 * f + 3] = ("match", strength, bit)
            x[2 * f + 3] = self.logits.setdefault(names[2 * f + 3], (2 * bit - 1) * math.log(4.0 + 3.0 * strength))
        x[2 * f + 4] = self.bias
        for e, advice in enumerate(self.advice):
            ones, zeros = sum(advice[s] for s in under1), sum(advice[s] for s in under0)
            x[2 * f + 5 + e] = logit(ones / (ones + zeros), self.smallest) if ones + zeros > 1e-12 else 0.0
        w = self._row(("node", node)) + sum(self._row(name) for name in self.selected)
        p = 1.0 / (1.0 + math.exp(-float(w @ x)))
        return min(max(p, self.smallest), 1.0 - self.smallest), x, w, names

    def _points(self, node: str, p: float) -> list[tuple[tuple, float]]:
        """The last stage: [(name, share)] of the points on both sides of p, in both maps."""
        before, previous = ([0, 0, *self.symbols])[-2:]
        hashed = ((mix64(pack([before, previous])) >> 49) + self.tree.numbers[node] * 20251) % (1 << 15)
        place = (min(max(math.log(p / (1.0 - p)), -8.0 + 1e-6), 8.0 - 1e-6) + 8.0) * 2.0
        below = int(place)
        part = place - below
        rows = (("node and previous", node, previous), ("hashed", hashed))
        return [((row, below + side), part if side else 1.0 - part) for row in rows for side in (0, 1)]

    def _refine(self, p: float, points: list[tuple[tuple, float]]) -> float:
        said = sum(share * self._point(name) for name, share in points)
        return (1.0 - 2.0 * self.map_share) * p + self.map_share * said

    def _point(self, name: tuple) -> float:
        return float(self.maps.get(name, np.float32(1.0 / (1.0 + math.exp(8.0 - name[1] / 2.0)))))

    def _learn_point(self, name: tuple, share: float, bit: int) -> None:
        old = self._point(name)
        self.maps[name] = np.float32(old) + np.float32(self.map_rate * share * (bit - old))

    def _walk(self, symbol: int) -> tuple[float, list[tuple]]:
        reach, decided = 1.0, []
        for node, bit in self.tree.paths[symbol]:
            if reach < self.prune:
                ones, zeros = len(self.tree.under[node, 1]), len(self.tree.under[node, 0])
                p = ones / (ones + zeros)
            else:
                decision = self._decide(node)
                p, points = decision[0], []
                if reach >= self.refined_from:
                    points = self._points(node, p)
                    p = self._refine(p, points)
                decided.append((node, bit, points, *decision))
            reach *= p if bit else 1.0 - p
        return reach, decided

    def distribution(self) -> np.ndarray:
        """P(symbol) of all 128."""
        self._look_up()
        out = np.zeros(LEAVES)
        for s in self.tree.symbols:
            out[s] = self._walk(s)[0]
        return out

    def observe(self, char: str) -> float:
        """P(symbol of char), then learn from it."""
        seen, clock, rates = symbol(char, self.alphabet), len(self.symbols), self.rates
        rate = rates.weights * (1.0 + rates.boost * rates.boost_chars / (rates.boost_chars + clock))
        rate /= min(max(clock / rates.settle_chars, 1.0), 2.0)
        self._look_up()
        probability, decided = self._walk(seen)
        total = np.zeros(self.inputs)
        for node, bit, points, p, x, w, names in decided:
            error = bit - p
            for k, name in names.items():
                self.logits[name] += rates.evidence * error * w[k]
            self._row(("node", node))[:] += rate * error * x
            total += rate * error * x
            for name, share in points:
                self._learn_point(name, share, bit)
        for name in self.selected:
            self._row(name)[:] += total
        for k, key in enumerate(self.keys):
            if key is not None:
                self.overlay.observe(k, key, seen)
        self.symbols.append(seen)
        self.advice = np.zeros_like(self.advice)
        self._advance_word(char if char in self.alphabet.chars else RARE)
        self.match.observe(seen)
        return probability

    def _advance_word(self, char: str) -> None:
        if char in " \n":
            self.finished.append(known_word(self.current))
            self.current = ""
            self._enter_word()
            return
        at = len(self.current)
        self.current += char
        seen = symbol(char, self.alphabet)
        self.word_rows = [
            {i: c for i, c in rows.items() if len(self.words[i]) > at and self.words[i][at] == seen} for rows in self.word_rows
        ]
