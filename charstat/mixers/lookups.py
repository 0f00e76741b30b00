"""Finding what every context knows at a position: once per character, before anything is predicted.

    prepare      look up the static rows and the online list of every context, and select the mixer's rows
    advance      move the history on by one symbol

A cache miss takes some 100 ns and a position has two or three dozen contexts, so each kind of memory access has a loop of its own over
all contexts: the misses of a loop wait together instead of one after the other.
"""

from __future__ import annotations

import numpy as np

from charstat.compiled import inlined, kernel
from charstat.mixers.brackets import follow_brackets
from charstat.mixers.last_stage import select_maps
from charstat.mixers.logistic import sum_rows
from charstat.mixers.selectors import select_rows
from charstat.mixers.state import (
    ARTICLE,
    BITS,
    BUCKET_AT,
    CLOCK,
    END,
    END_ID,
    EXPECTED_SYMBOL,
    FIRST_ID,
    KIND,
    LENGTH,
    LIST,
    MATCH_BUCKET,
    MATCH_OFF,
    PARAM,
    PATH_SYMBOL,
    POSITION,
    PREPARED,
    REACH,
    RECORD_AT,
    ROW_AT,
    SLOT,
    START,
    START_BITS,
    TREE_READY,
    TRIE_NODE,
    WIDTH,
    WORD_PLACE,
)
from charstat.ngram.classes import NOTHING, class_features, find_word, follow_topic, topic_number
from charstat.ngram.hashing import CHARS, TOPIC, char_identity, mix64, push_symbol, word_hash, word_identity
from charstat.ngram.match import expected_symbol, length_bucket, match_length
from charstat.ngram.overlay import bring_contexts, find_slot, slot_list
from charstat.ngram.table import find_context
from charstat.ngram.words import (
    FIRST_KIND,
    HASH,
    LAST_THREE,
    LOWER_HASH,
    MAX_WORD,
    NO_NODE,
    ROOT,
    extend_word,
    find_child,
    lower_bound,
    push_word,
    word_shape,
)
from charstat.ngram.words import LENGTH as WORD_LENGTH

U0, U1 = np.uint64(0), np.uint64(1)
TOPIC_BIT = 1 << TOPIC


@kernel
def find_rows(first, end, identities, families, buckets, records, rows, out, touched):
    """out[f] := the rows of the contexts with these identities, for the families first .. end."""
    for f in range(first, end):
        out[f, START] = families[f, BUCKET_AT] + np.int64(identities[f] >> np.uint64(families[f, WIDTH] - families[f, BITS]))
    for f in range(first, end):
        out[f, END] = families[f, RECORD_AT] + np.int64(buckets[out[f, START]])
    for f in range(first, end):
        touched[f] = np.int64(records[out[f, END]])
    for f in range(first, end):
        _, start, stop = find_context(
            identities[f], families[f, WIDTH], families[f, BITS], families[f, START_BITS],
            buckets, families[f, BUCKET_AT], records, families[f, RECORD_AT],
        )  # fmt: skip
        out[f, START], out[f, END] = families[f, ROW_AT] + start, families[f, ROW_AT] + stop
    last = rows.shape[0] - 1
    for f in range(first, end if last >= 0 else first):  # a text shorter than all contexts has no rows
        touched[f] = np.int64(rows[min(out[f, START], last)])


@kernel
def start_word(cursor, first_word, identities, features, families, buckets, records, rows, words, word_rows, touched):
    """At the start of a token: the whole vocabulary can follow; look up the rows of every word context."""
    cursor[TRIE_NODE] = ROOT if words > 0 else NO_NODE
    cursor[FIRST_ID], cursor[END_ID] = 0, words
    if words > 0:
        n = families.shape[0]
        for f in range(first_word, n):
            identities[f] = word_identity(word_hash(families[f, PARAM], features))
        find_rows(first_word, n, identities, families, buckets, records, rows, word_rows, touched)


@kernel
def continue_word(cursor, first_word, symbol, families, rows, first_child, trie_symbol, first_id, word_rows, next_rows):
    """Inside a token: go down the trie, and narrow every word context's rows to the words that go on with the symbol."""
    node = cursor[TRIE_NODE]
    if node == NO_NODE:
        return
    child = find_child(node, symbol, first_child, trie_symbol)
    last = np.int64(first_child[node + 1])
    if child == last or np.int64(trie_symbol[child]) != symbol or first_child[child] == first_child[child + 1]:
        cursor[TRIE_NODE] = NO_NODE  # no word of the training text goes on like this, or all that do are known no further
        return
    first = np.int64(first_id[child])
    end = np.int64(first_id[child + 1]) if child + 1 < last else cursor[END_ID]
    cursor[TRIE_NODE], cursor[FIRST_ID], cursor[END_ID] = child, first, end
    known = cursor[PATH_SYMBOL] == symbol  # masses.fill_word_path has been there
    for f in range(first_word, families.shape[0]):
        lo, hi = word_rows[f, START], word_rows[f, END]
        if known:
            word_rows[f, START], word_rows[f, END] = next_rows[f, START], next_rows[f, END]
        elif lo < hi:
            lo = lower_bound(rows, lo, hi, first)
            word_rows[f, START], word_rows[f, END] = lo, lower_bound(rows, lo, hi, end)


@inlined
def enter_word(fixed, s):
    """start_word for a stream: at the start of a text, and after every separator."""
    t = fixed.tables
    start_word(
        s.cursor, fixed.chains.first_word, s.identities, s.features,
        t.families, t.buckets, t.records, t.rows, t.words, s.word_rows, s.touched,
    )  # fmt: skip


@inlined
def advance(fixed, s, symbol):
    """Move the history on by one symbol: packed characters, the word, the trie node and the rows under its prefix."""
    cursor, word, info = s.cursor, s.word, fixed.info
    push_symbol(s.history, symbol, info.classes[symbol])
    cursor[POSITION] += 1
    cursor[CLOCK] += 1
    cursor[PREPARED] = cursor[TREE_READY] = 0
    follow_brackets(cursor, fixed.brackets[symbol], info.separator[symbol] and word[WORD_LENGTH] > U0)
    if info.separator[symbol]:
        classes, number = fixed.classes, NOTHING
        if word[WORD_LENGTH] > U0:
            length = min(word[WORD_LENGTH], np.uint64(MAX_WORD))
            shape = word_shape(length, word[FIRST_KIND], word[LAST_THREE])
            number = find_word(classes.hashes, word[HASH])
            small, large = class_features(classes.labels, number, shape)
            push_word(s.features, word[HASH], word[LOWER_HASH], shape, word[FIRST_KIND], word[LAST_THREE], small, large)
            number = topic_number(number, word[HASH], info.heading)
            word[:] = U0
        if follow_topic(s.topic, s.features, number, classes.scores):
            cursor[ARTICLE] = cursor[CLOCK]
        cursor[WORD_PLACE] = 0
        enter_word(fixed, s)
        return
    extend_word(word, symbol, info)
    cursor[WORD_PLACE] += 1
    t = fixed.tables
    continue_word(
        cursor, fixed.chains.first_word, symbol, t.families, t.rows, t.first_child, t.trie_symbol, t.first_id, s.word_rows, s.next_rows
    )


@kernel
def find_static(
    cursor,
    first_word,
    identities,
    keys,
    history,
    features,
    prefix,
    lower_prefix,
    families,
    buckets,
    records,
    rows,
    slots,
    static_rows,
    word_rows,
    touched,
):
    """Static rows and overlay key of every context.

    The overlay key of p alone ignores case: "The" and "the" share what the stream has seen. With case, the character orders know it already.
    In an article, the overlay keys of contexts with a topic have the article in its place: what else is said of the topic, the tables know.
    Returns (longest character order with rows, plus 1; word contexts with rows).
    """
    n = families.shape[0]
    position, in_word = cursor[POSITION], cursor[TRIE_NODE] != NO_NODE
    mask = np.uint64(slots.shape[1] - 1)
    for f in range(first_word):
        identities[f] = char_identity(families[f, KIND], families[f, PARAM], history)
        keys[f] = mix64(identities[f] + U1) if position >= families[f, REACH] else U0
    for f in range(first_word, n):
        fields, article = families[f, PARAM], U0
        if cursor[ARTICLE] > 0 and fields & TOPIC_BIT:
            fields, article = fields ^ TOPIC_BIT, mix64(np.uint64(cursor[ARTICLE]))
        keys[f] = word_hash(fields, features) ^ article ^ (prefix if fields else lower_prefix)
    for f in range(n):  # so that the overlay's slots are on their way from memory
        touched[f] = np.int64(slots[f, (keys[f] >> np.uint64(20)) & mask, 0])
    find_rows(0, first_word, identities, families, buckets, records, rows, static_rows, touched)
    longest, word_hits = 0, 0
    for f in range(first_word):
        if keys[f] == U0:
            static_rows[f, END] = static_rows[f, START]
        elif families[f, KIND] == CHARS and static_rows[f, END] > static_rows[f, START]:
            longest = f + 1
    for f in range(first_word, n):
        static_rows[f, START] = word_rows[f, START]
        static_rows[f, END] = word_rows[f, END] if in_word else word_rows[f, START]
        word_hits += static_rows[f, END] > static_rows[f, START]
    return longest, word_hits


@kernel
def find_online(online, keys, families, overlay, touched):
    """Overlay slot and list of every context; returns the longest character order with a list, plus 1."""
    slots, pool, longest = overlay.slots, overlay.pool, 0
    if overlay.base_slots.shape[1] > 0:  # subtle: here and not in prepare, which is inlined into everything, where a branch costs much
        bring_contexts(overlay, keys, touched)
    for f in range(families.shape[0]):
        online[f, LIST] = online[f, LENGTH] = 0
        if keys[f] != U0:
            p = find_slot(slots, f, keys[f])
            online[f, SLOT] = p
            online[f, LIST], online[f, LENGTH] = slot_list(slots, f, p)
            if families[f, KIND] == CHARS and online[f, LENGTH] > 0:
                longest = f + 1
    for f in range(families.shape[0]):
        touched[f] = np.int64(pool[online[f, LIST]])
    return longest


@inlined
def prepare(fixed, s):
    """Find the counts of all sources for the current history, and select the mixer's rows; nothing if that is done."""
    cursor = s.cursor
    if cursor[PREPARED]:
        return
    t, slots = fixed.tables, s.overlay.slots
    static_order, word_hits = find_static(
        cursor, fixed.chains.first_word, s.identities, s.keys, s.history, s.features, mix64(s.word[HASH]), mix64(s.word[LOWER_HASH]),
        t.families, t.buckets, t.records, t.rows, slots, s.static_rows, s.word_rows, s.touched,
    )  # fmt: skip
    online_order = find_online(s.online, s.keys, t.families, s.overlay, s.touched)
    cursor[EXPECTED_SYMBOL] = np.int64(-1) if cursor[MATCH_OFF] else expected_symbol(s.match)
    cursor[MATCH_BUCKET] = length_bucket(match_length(s.match))
    select_rows(
        s.selected, fixed.first_rows, cursor, s.history, s.features, fixed.info.kind, static_order, online_order, word_hits,
        s.static_rows, fixed.chains,
    )  # fmt: skip
    select_maps(s.map_rows, s.history)
    sum_rows(s.mixer.weights, s.selected, s.base)
    cursor[PATH_SYMBOL] = -1
    cursor[PREPARED] = 1
