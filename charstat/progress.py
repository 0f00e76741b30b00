"""What the `charstat` command prints on stderr: notes, and progress lines if stderr is a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

if TYPE_CHECKING:
    from charstat.corpus import Corpus
    from charstat.counting import Progress as BuildProgress
    from charstat.ngram.contexts import Context

# Relative cost of each kind of table, measured on 4 M characters (order 14, default contexts, 2 threads). Only the bar uses it.
EXACT_COST, HASHED_COST, CLASSES_COST, SPARSE_COST, WORDS_COST, ENCODE_COST = 2, 13, 5, 4, 4, 2
LEARN_COST = 6400  # of learning from one character, relative to counting one


def note(message: str) -> None:
    """One line on stderr."""
    print(" ".join(message.splitlines()), file=_console().file, flush=True)


def note_skipped(corpus: Corpus) -> None:
    """A note for every bad file that was left out, of the first ten; and how many they are."""
    if corpus.collection is None or not corpus.collection.skipped:
        return
    reasons = [why for _, why in sorted(corpus.collection.skipped.items())]
    note(f"{len(reasons):,} of {len(corpus.collection.files):,} files were left out:")
    for reason in reasons[:10]:
        note(f"  {reason}")


def _console() -> Console:
    return Console(stderr=True, highlight=False, soft_wrap=False)


class _Eta(ProgressColumn):
    """Time left, estimated at the last update, so that it counts down steadily when steps are few and long."""

    def render(self, task: Task) -> Text:
        at, done = task.fields.get("at", 0.0), task.completed
        if not task.total or not done or task.finished:
            return Text("")
        left_s = max(0.0, at * task.total / done - (task.elapsed or 0.0))
        return Text(f"{_clock(left_s)} left", style="cyan")


class Steps:
    """Makes the progress lines of a command: `with steps("reading"): ...`, `with steps("predicting", total=n) as tell: ... tell(done)`."""

    def __init__(self) -> None:
        self._console = _console()

    @contextmanager
    def __call__(self, label: str, total: int | None = None) -> Iterator[Callable[[float], None]]:
        with self._line(label, total) as update:
            yield lambda done: update(label, done)

    @contextmanager
    def share(self, label: str) -> Iterator[Callable[[int, int], None]]:
        """A bar for a callback that takes (done, total)."""
        with self._line(label, 1.0) as update:
            yield lambda done, total: update(label, done / total)

    @contextmanager
    def labelled(self, label: str) -> Iterator[Callable[[str, float], None]]:
        """A bar for a callback that takes what is being done, and the share of the whole that is done."""
        with self._line(label, 1.0) as update:
            yield update

    def reading(self, name: str) -> AbstractContextManager[Callable[[int, int], None]]:
        """A bar for the progress callback of Corpus.text. name: the corpus's name."""
        return self.share(f"reading {Path(name).name[-40:]}")

    @contextmanager
    def build(
        self, contexts: Iterable[Context], models: Iterable[str] = (), held_out_share: float = 0.0
    ) -> Iterator[Callable[[BuildProgress], None]]:
        """A bar for build_model's progress callback. held_out_share: held-out characters per character counted."""
        from charstat.ngram.hashing import CHARS
        from charstat.registry import wants_tree_weights

        contexts = list(contexts)
        costs = {c.name: _cost(c) for c in contexts}
        if wants_tree_weights(models):  # weighing an order takes about as long as counting the next one
            chain = [c for c in contexts if c.kind == CHARS]
            costs |= {f"weights {c.name}": _cost(longer) for c, longer in pairwise(chain)}
        learn_cost = LEARN_COST * held_out_share
        done: set[str] = set()
        learned = 0.0
        with self._line("counting", ENCODE_COST + sum(costs.values()) + learn_cost) as update:

            def tell(progress: BuildProgress) -> None:
                nonlocal learned
                done.update({progress.phase} & set(costs))
                learned = max(learned, progress.share)  # later steps report no share
                at = sum(costs[name] for name in done) + ENCODE_COST * (progress.done > 0) + learn_cost * learned
                update("learning the warm start" if progress.phase == "learn" else f"counting: {progress.phase}", at)

            yield tell

    @contextmanager
    def _line(self, label: str, total: float | None) -> Iterator[Callable[[str, float], None]]:
        if not self._console.is_terminal:
            yield lambda label, done: None
            return
        columns = [SpinnerColumn(), TextColumn("{task.description:<22}", markup=False), BarColumn(30), TimeElapsedColumn()]
        columns += [TaskProgressColumn(), _Eta()] if total else []
        started = time.monotonic()
        with Progress(*columns, console=self._console, transient=True) as bars:
            task = bars.add_task(label, total=total)
            yield lambda label, done: bars.update(task, description=label, completed=done, at=time.monotonic() - started)


def _cost(context: Context) -> int:
    from charstat.ngram.contexts import EXACT_ORDER
    from charstat.ngram.hashing import CHARS, CLASSES_OF, SPARSE

    if context.kind == CHARS:
        return EXACT_COST if context.param <= EXACT_ORDER else HASHED_COST
    return {CLASSES_OF: CLASSES_COST, SPARSE: SPARSE_COST}.get(context.kind, WORDS_COST)


def _clock(s: float) -> str:
    minutes, seconds = divmod(int(s + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
