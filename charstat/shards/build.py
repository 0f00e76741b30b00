"""The steps of a build in shards, driven by one process: see the package's docstring for what they are.

    with open_cluster(folder, ...) as cluster:
        model = ShardedBuild(cluster, folder, plan, ...).run(corpus, out)

The model equals that of counting.build_model in every array, cut to a size or not. What does not combine, and is left out:

    the weights of a context tree    they need the whole text beside its tables; what opens on the model computes those up to order 8

Word classes are learned in the process that drives the build, with as much memory as that takes on one machine (classes.py).
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from charstat.alphabet import Alphabet
from charstat.corpus import Corpus
from charstat.counting import REPORT_BYTES, CountedText, CountingPlan
from charstat.energy import EnergyReport
from charstat.errors import CorpusError, ResourceError, UserError
from charstat.manifest import MAX_PARTS
from charstat.model import Model, ModelWriter
from charstat.ngram.contexts import EXACT_ORDER, Context
from charstat.ngram.hashing import CHARS
from charstat.ngram.table import MAX_COUNT
from charstat.ngram.words import model_symbol_info
from charstat.pipeline import Watch
from charstat.pruning.levels import Whole
from charstat.pruning.spans import Scratch
from charstat.shards.assemble import add_table
from charstat.shards.classes import learn, store_classes
from charstat.shards.cluster import Cluster, Tasks
from charstat.shards.count import Job, count_shard, summarize, survey_path, survey_shard
from charstat.shards.energy import Measured, add_up, phase_list, place_of, start_meter, stop_meter
from charstat.shards.files import clear_folder, digest_of, read_array, remove_file, shard_name
from charstat.shards.history import carried
from charstat.shards.reduce import BYTES_PER_ROW, Part, part_bits_of, reduce_part
from charstat.shards.scan import (
    PIECE_CHARS,
    Scanned,
    Span,
    first_chars,
    groups_of,
    last_text,
    scan_files,
    scan_stream,
    shards_of,
    span_text,
    tally_after,
    tally_of,
)
from charstat.shards.words import FAN_IN, map_words, merge_words, read_words, vocabulary_of
from charstat.storage import DirectoryColumns
from charstat.texts.collection import Collection
from charstat.texts.parts import PART_BYTES, FilePart, cut_file
from charstat.verify import MAX_TOTAL

BYTES_PER_CHAR = 32  # what counting a shard takes at its peak, for each character (measured at order 14: 30)
COSTS = {
    "scan": 4,
    "history": 2,
    "classes": 12,
    "count": 60,
    "words": 4,
    "reduce": 24,
    "assemble": 6,
    "prune": 12,
}  # shares of the time; only the bar uses them
LEARN_COST = 60 * 50  # of learning from as many characters as are counted
Tell = Callable[[str, float], object]
"""Called with what is being done, and the share of the whole build that is done."""


def check_plan(plan: CountingPlan) -> list[str]:
    """Notes on what a build in shards leaves out."""
    if plan.tree_orders:
        computed = f"what opens on the model computes those of orders up to {EXACT_ORDER}"
        return [f"the weights of the context tree are not part of the model: they need the whole text at once; {computed}"]
    return []


def check_total(tally: np.ndarray, alphabet: Alphabet) -> None:
    """ResourceError unless the counts of order 0, the largest of all contexts, add up within 31 bits."""
    own = [int(tally[ord(char)]) for char in alphabet.chars]
    total = sum(min(n, MAX_COUNT) for n in [*own, int(tally.sum()) - sum(own)])
    if total > MAX_TOTAL:
        raise ResourceError(
            f"the counts of single characters add up to {total:,}; a model has room for {MAX_TOTAL:,}: count less with --limit"
        )


def table_order(contexts: tuple[Context, ...]) -> list[Context]:
    """The order in which cpu/backend.py yields tables, and so that of the columns."""
    exact = [c for c in contexts if c.kind == CHARS and c.param <= EXACT_ORDER]
    rest = [c for c in contexts if c not in exact]
    return [*sorted(exact, key=lambda c: -c.param), *(c for c in rest if not c.is_words), *(c for c in rest if c.is_words)]


@dataclass
class ShardedBuild:
    """One build. shard_chars: characters of a shard, by default as many as the workers' memory allows. key: of the build's options and
    text, as of now: what the work directory is checked for. tell: told of the progress. group_bytes: of input that one task reads."""

    cluster: Cluster
    folder: Path
    plan: CountingPlan
    key: str
    backend: str = "auto"
    limit: int | None = None
    shard_chars: int | None = None
    tell: Tell = lambda label, share: None
    group_bytes: int = PART_BYTES
    _done: dict[str, float] = field(default_factory=dict)
    _submitted: int = 0
    read_seconds: float = 0.0

    def __post_init__(self) -> None:
        self.tasks = Tasks(self.cluster.client)
        if self.shard_chars is None:
            self.shard_chars = max(PIECE_CHARS, self.cluster.budget_bytes // BYTES_PER_CHAR)
        self.piece_chars = min(PIECE_CHARS, self.shard_chars)
        self.min_count = self.plan.size.min_count if self.plan.size else 1
        self._before: dict[str, Whole] = {}
        self._costs = dict(COSTS)
        for name, wanted in (
            ("prune", self.plan.size is not None and self.plan.size.cuts),
            ("classes", any(context.needs_classes for context in self.plan.contexts)),
            ("words", any(context.is_words for context in self.plan.contexts)),
        ):
            if not wanted:
                del self._costs[name]

    def run(self, corpus: Corpus, out: Path, data: Callable[[], dict]) -> Model:
        """The model, written to `out`. data: what its manifest says of the text, asked for when the text was read."""
        started = time.perf_counter()
        columns = self.plan.columns(out)
        try:
            self._start_meters()
            scans, chars = self._scan(corpus)
            self.read_seconds = time.perf_counter() - started
            spans = [span for scanned in scans for span in scanned.spans()]
            if chars == 0:
                raise CorpusError("the training text is empty: there is nothing to count")
            end = chars - self.plan.held_out_chars
            if end <= 0:
                raise UserError(
                    f"cannot hold {self.plan.held_out_chars:,} characters out of a text of {chars:,}: nothing would be left to count"
                )
            if self.plan.held_out_chars:
                self._costs["learn"] = LEARN_COST * self.plan.held_out_chars / end
            held_out = last_text(self.folder, first_chars(spans, chars), self.plan.held_out_chars)
            counted = first_chars(spans, end)
            alphabet = Alphabet.from_counts(tally := tally_of(scans) - tally_after(self.folder, spans, end))
            check_total(tally, alphabet)
            writer = ModelWriter(columns)
            shards = shards_of(counted, self.shard_chars, self.cluster.slots)
            facts, fingerprint = self._count(shards, alphabet, writer)
            self._reduce(facts, writer)
            result = CountedText(self.plan, alphabet, writer, end, held_out)
            self._cut(result, out)
            columns = result.writer.columns
            if self.plan.learns:
                result.learn_warm_start(Watch(1, None, lambda p: self._tell("learn", p.share, "warm start")))
            about = {
                "order": self.plan.order, "preset": self.plan.preset, "models": list(self.plan.models),
                "text": {"chars": end, "sha256": fingerprint, "history_chars": 0}, "data": data(), "build": self._about(facts, started),
            }  # fmt: skip
            if result.pruned:
                about["pruned"] = result.pruned
            if result.learned:
                about["start"] = result.start_facts
            model = result.writer.finish(alphabet, self.plan.contexts, about)
            clear_folder(self.folder)
            return model
        finally:
            self.tasks.cancel()
            if isinstance(columns, DirectoryColumns):
                columns.discard()

    def _tell(self, stage: str, share: float, label: str) -> None:
        self._done[stage] = max(share, self._done.get(stage, 0.0))
        done = sum(cost * self._done.get(name, 0.0) for name, cost in self._costs.items())
        self.tell(label, done / sum(self._costs.values()))

    def _wait(self, stage: str, label: str, futures: list) -> list:
        n = len(futures)
        self._tell(stage, 0.0, f"{label} 0 of {n:,}")
        return self.tasks.wait(stage, futures, lambda done: self._tell(stage, done / n, f"{label} {done:,} of {n:,}"))

    # scan ------------------------------------------------------------------------------------------------------------------

    def _scan(self, corpus: Corpus) -> tuple[list[Scanned], int]:
        """What was read, and how many of its characters are the text: those after them are other splits."""
        many, one = corpus.collection, corpus.train_file()
        if self.limit is None and many is not None:
            many.check_repeated()
            scans = self._scan_groups(groups_of(many.files, self.group_bytes), many)
            return scans, sum(scanned.chars for scanned in scans)
        if self.limit is None and one is not None and one.stop - one.first > 2 * self.group_bytes:
            parts = cut_file(one.path, one.first, one.stop, self.group_bytes, closes=False)
            scans = self._scan_groups(parts, Collection([one.path]))
            return scans, one.chars(sum(scanned.chars for scanned in scans))
        pieces = corpus.pieces("train", self.limit, lambda done, total: self._tell("scan", done / max(1, total), "reading"))
        key = digest_of([self.key, "stream", self.piece_chars])
        scanned = scan_stream(self.folder, 0, key, pieces, self.piece_chars, self.limit)
        return [scanned], scanned.chars

    def _scan_groups(self, groups: Iterable[list[Path] | FilePart], many: Collection) -> list[Scanned]:
        """Read groups of files, and parts of large ones, on the workers. A file with a bad part is left out whole, where bad ones are."""
        items = []
        for number, group in enumerate(groups):
            key = digest_of([self.key, number, self.piece_chars, self.group_bytes])
            part, files = (group, [group.path]) if isinstance(group, FilePart) else (None, group)
            own = Collection(files, many.text_field, many.skip_bad, {p: why for p, why in many.skipped.items() if p in set(files)})
            items.append((self.folder, number, key, own, self.piece_chars, part))
        scans: list[Scanned] = self._wait("scan", "reading", self.tasks.submit("scan", scan_files, items))
        for scanned in reversed(scans):  # of a file with several bad parts, the first counts
            many.skipped.update({Path(name): why for name, why in scanned.skipped.items()})
        return [scanned for scanned in scans if not scanned.part_of or Path(scanned.part_of) not in many.skipped]

    # count -----------------------------------------------------------------------------------------------------------------

    def _count(self, shards: list[list[Span]], alphabet: Alphabet, writer: ModelWriter) -> tuple[list[dict], str]:
        """(what count_shard says of every shard, the checksum of the text)."""
        key = digest_of([self.key, alphabet.to_dict(), shards])
        longest = max(sum(span.chars for span in shard) for shard in shards)
        memory = 3 * 16 * longest  # a third is for keys, of 8 bytes a character: one pass
        job = Job(key, alphabet.to_dict(), [c.name for c in self.plan.contexts], self.backend, self.cluster.threads, memory, self.min_count)
        self._job = job.store(self.folder)
        items = [(self.folder, self._job, number, shard) for number, shard in enumerate(shards)]
        summaries = self._wait("history", "histories", self.tasks.submit("history", summarize, items))
        info = model_symbol_info(alphabet)
        histories = carried([np.frombuffer(one, np.uint8) for one in summaries], info)
        items = [(*item, history.tobytes()) for item, history in zip(items, histories, strict=True)]
        if any(context.needs_classes for context in self.plan.contexts):
            learned = self._learn_classes(items, info.heading, writer)
            items = [(*item, one) for item, one in zip(items, learned, strict=True)]
        futures = self.tasks.submit("count", count_shard, items)
        fingerprint = self._fingerprint([span for shard in shards for span in shard])  # while the workers count
        return self._wait("count", "counting", futures), fingerprint

    def _learn_classes(self, items: list[tuple], heading: np.uint64, writer: ModelWriter) -> list[tuple[str, list[int], bytes]]:
        """Learn word classes, of all shards, and add them to the writer; what count_shard must know of them, shard by shard."""
        sizes = self._wait("classes", "words", self.tasks.submit("survey", survey_shard, items))
        self._tell("classes", 0.5, "word classes")
        started = time.perf_counter()
        classes, states = learn(
            [(survey_path(self.folder, number), size) for number, size in enumerate(sizes)], heading, os.cpu_count() or 1
        )
        path = self.folder / "words.classes"
        store_classes(path, self.key, classes)
        writer.add(classes)
        for number in range(len(sizes)):
            remove_file(survey_path(self.folder, number))
        self.tasks.seconds["classes"] += time.perf_counter() - started
        self._tell("classes", 1.0, "word classes")
        return [(path.name, [part.size for part in classes], state.stored()) for state in states]

    def _fingerprint(self, spans: list[Span]) -> str:
        digest = hashlib.sha256()
        for span in spans[:-1]:
            digest.update(read_array(self.folder / span.file, np.uint8, span.at, span.n_bytes).data)
        digest.update(span_text(self.folder, spans[-1]).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()

    # reduce ----------------------------------------------------------------------------------------------------------------

    def _reduce(self, facts: list[dict], writer: ModelWriter) -> None:
        """Merge the shards' tables and add them to the writer, in its order, while the next are merged."""
        names = [shard_name(number) for number in range(len(facts))]
        chars = [c for c in table_order(self.plan.contexts) if not c.is_words]
        words = [c for c in table_order(self.plan.contexts) if c.is_words]
        row_budget = self.cluster.budget_bytes // BYTES_PER_ROW
        waiting = [(c, self._submit_parts(c, facts, names, [None] * len(names), row_budget)) for c in chars]
        if words:
            ids = self._number_words(names)
            waiting += [(c, self._submit_parts(c, facts, names, ids, row_budget)) for c in words]
            writer.add(vocabulary_of(read_words(self.folder, self._vocabulary)))
        for done, (context, futures) in enumerate(waiting):
            parts: list[Part] = self.tasks.wait("reduce", futures)
            add_table(writer, self.folder, context, parts)
            if self.min_count > 1:
                self._before[context.name] = Whole(*np.sum([part.whole for part in parts], axis=0))
            for part in parts:
                remove_file(self.folder / part.file)
            self._tell("reduce", (done + 1) / len(waiting), f"merging {done + 1} of {len(waiting)}")
        self._tell("assemble", 1.0, "writing the model")

    def _submit_parts(self, context: Context, facts: list[dict], names: list[str], ids: list[str | None], row_budget: int) -> list:
        entries = [one["tables"][context.name] for one in facts]
        bits = part_bits_of(context, entries, row_budget)
        shards = list(zip(names, entries, ids, strict=True))
        items = [(self.folder, self._job, context.name, part, bits, shards) for part in range(1 << bits)]
        self._submitted += 1
        return self.tasks.submit(f"reduce.{context.name}", reduce_part, items, -self._submitted)  # the first tables first

    def _number_words(self, names: list[str]) -> list[str]:
        """Merge the shards' vocabularies; returns the files with the ids of each shard's words."""
        parts, level = names, 0
        while level == 0 or len(parts) > 1:
            groups = [parts[i : i + FAN_IN] for i in range(0, len(parts), FAN_IN)]
            items = [(self.folder, self._job, level, i, group, len(groups) == 1) for i, group in enumerate(groups)]
            parts = self._wait("words", "vocabularies", self.tasks.submit(f"words.{level}", merge_words, items, 1))
            level += 1
        self._vocabulary = parts[0]
        items = [(self.folder, self._job, name, self._vocabulary) for name in names]
        return self._wait("words", "word ids", self.tasks.submit("ids", map_words, items, 1))

    # cut -------------------------------------------------------------------------------------------------------------------

    def _cut(self, result: CountedText, out: Path) -> None:
        """Cut the tables to the plan's size, mapped from disk, with the arrays of the work in files, too."""
        if self.plan.size is None or not self.plan.size.cuts:
            return
        started = time.perf_counter()
        watch = Watch(1, None, lambda progress: self._tell("prune", progress.share, "cutting to size"))
        result.cut(out, watch, Scratch(self.folder), self._before)
        self.tasks.seconds["prune"] = time.perf_counter() - started
        self._tell("prune", 1.0, "cutting to size")

    # report ----------------------------------------------------------------------------------------------------------------

    def _start_meters(self) -> None:
        """One meter for each host, and each set of GPUs of a host."""
        self._meters: dict[tuple[str, str], str] = {}
        for address, (host, gpus) in sorted(self.cluster.client.run(place_of).items()):
            self._meters.setdefault((host, gpus if self.backend != "cpu" else ""), address)
        chosen = list(self._meters.values())
        self.cluster.client.run(start_meter, self.key, self.backend, self.cluster.threads, workers=chosen, on_error="return")

    def _measured(self) -> list[Measured]:
        found = self.cluster.client.run(stop_meter, self.key, on_error="return")
        measured, hosts = [], set()
        for (host, _), address in self._meters.items():
            value = found.get(address)
            report = EnergyReport.from_dict(value) if isinstance(value, dict) else None
            measured.append(Measured(host, report, "" if report else "the worker that measured was lost", host not in hosts))
            hosts.add(host)
        return measured

    def _about(self, facts: list[dict], started: float) -> dict:
        """The build's entry in the manifest: the sums of all workers, and under "merged" those of each host."""
        measured = self._measured()
        seconds = self.tasks.host_seconds
        backends = sorted({one["backend"] for one in facts})
        hosts = []
        for host in sorted(seconds):
            own = [m for m in measured if m.host == host]
            total = sum(seconds[host].values())
            energy = add_up(own, total).to_dict() if own else None
            hosts.append({"device": host, "seconds": total, "phases": phase_list(seconds[host]), "energy": energy})
        total = add_up(measured, sum(self.tasks.seconds.values()))
        total.notes.extend(self.plan.energy_notes)
        notes = [f"{len(facts):,} shards of {self.shard_chars:,} characters at most", *check_plan(self.plan)]
        if len(listed := self._listed(hosts)) < len(hosts):
            notes.append(f"{len(listed)} of {len(hosts):,} hosts are listed")
        return {
            "backend": "+".join(backends),
            "device": f"{self.cluster.about}, {facts[0]['device']} each",
            "reason": "--engine dask",
            "notes": notes,
            "seconds": time.perf_counter() - started,
            "phases": phase_list(self.tasks.seconds),
            "energy": replace(total, phases=phase_list(self.tasks.seconds)).to_dict(),
            "merged": listed,
        }

    def _listed(self, hosts: list[dict]) -> list[dict]:
        """As many hosts as a manifest has room for; that of a model cut to a size has what was set aside for it before."""
        if self.plan.size is None or not self.plan.size.cuts:
            return hosts[:MAX_PARTS]
        sizes = np.cumsum([len(json.dumps(host)) for host in hosts])
        return hosts[: int(np.searchsorted(sizes, REPORT_BYTES // 2, "right"))]
