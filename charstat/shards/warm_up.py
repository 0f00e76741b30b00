"""Compile the kernels of a build in shards before it is measured; workers of this machine find them in numba's cache then."""

from __future__ import annotations

import tempfile
from pathlib import Path

from charstat.alphabet import Alphabet
from charstat.counting import CountingPlan
from charstat.model import ModelWriter
from charstat.ngram.words import model_symbol_info
from charstat.shards.assemble import add_table
from charstat.shards.classes import learn, store_classes
from charstat.shards.count import Job, count_shard, summarize, survey_path, survey_shard
from charstat.shards.files import digest_of, shard_name
from charstat.shards.reduce import reduce_part
from charstat.shards.scan import scan_stream, tally_of
from charstat.shards.words import map_words, merge_words
from charstat.storage import MemoryColumns

TEXT = "A text of 19 words, or so.\nOne of \u00e9 and more words.\n" * 9


def warm_up_shards() -> None:
    """Take two shards through every step, in this process."""
    plan = CountingPlan.of(1, "o0,p,p.topic")
    with tempfile.TemporaryDirectory(prefix="charstat-warm-up-") as name:
        folder = Path(name)
        scanned = scan_stream(folder, 0, "warm", [TEXT], len(TEXT) // 2)
        alphabet = Alphabet.from_counts(tally_of([scanned]))
        job = Job(digest_of("warm"), alphabet.to_dict(), [c.name for c in plan.contexts], "cpu", 1, 1 << 20).store(folder)
        shards = [[span] for span in scanned.spans()]
        items = [(folder, job, i, shard, summarize(folder, job, i, shard)) for i, shard in enumerate(shards)]
        surveys = [(survey_path(folder, item[2]), survey_shard(*item)) for item in items]
        classes, states = learn(surveys, model_symbol_info(alphabet).heading, 1)
        store_classes(folder / "words.classes", "warm", classes)
        sizes = [part.size for part in classes]
        facts = [count_shard(*item, ("words.classes", sizes, state.stored())) for item, state in zip(items, states, strict=True)]
        names = [shard_name(i) for i in range(len(shards))]
        words = merge_words(folder, job, 0, 0, names, True)
        ids = [map_words(folder, job, name, words) for name in names]
        for context in plan.contexts:
            tables = [one["tables"][context.name] for one in facts]
            shards = list(zip(names, tables, ids if context.is_words else [None] * len(ids), strict=True))
            add_table(ModelWriter(MemoryColumns()), folder, context, [reduce_part(folder, job, context.name, 0, 0, shards)])
