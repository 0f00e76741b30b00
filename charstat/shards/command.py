"""`charstat build --engine dask`: the options that only it has, and what the command does with them."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from charstat import __version__
from charstat.errors import UserError
from charstat.facts import describe, model_facts, peak_rss_bytes

if TYPE_CHECKING:
    from distributed import Client

    from charstat.corpus import Corpus
    from charstat.counting import CountingPlan
    from charstat.progress import Steps


class Options(NamedTuple):
    """The options of the command that are good for --engine dask alone."""

    scheduler: str | None
    workers: int | None
    worker_memory: int | None
    work_dir: str | None
    shard_chars: int | None
    resume: bool
    report: str | None

    def check(self, engine: str, memory: int | None) -> None:
        """UsageError for options of the other engine, and for two that exclude each other."""
        given = [f"--{name.replace('_', '-')}" for name, value in self._asdict().items() if value]
        if given and engine != "dask":
            raise click.UsageError(f"{', '.join(given)}: only with --engine dask")
        if memory is not None and engine == "dask":
            raise click.UsageError("--memory is for one process: with --engine dask, say --worker-memory")
        if self.scheduler and self.workers:
            raise click.UsageError("--workers starts workers on this machine; a --scheduler has its own: choose one")


def build_key(corpus: Corpus, plan: CountingPlan, limit: int | None) -> str:
    """What tells a build in shards from others: its options, and the names, sizes and times of its files."""
    from charstat.shards.files import digest_of

    about = describe(corpus)
    files = corpus.collection.files if corpus.collection else [Path(about["path"])] if about["path"] else []
    stats = [(str(f), s.st_size, s.st_mtime_ns) for f, s in ((f, _stat(f)) for f in files) if s]
    contexts = [context.name for context in plan.contexts]
    names = [about[key] for key in ("name", "kind")], about.get("text_field"), about.get("skip_bad_files")
    return digest_of([__version__, names, stats, contexts, plan.held_out_chars, limit])


def _stat(path: Path) -> os.stat_result | None:
    raw = path / "wiki.train.raw"
    try:
        return os.stat(raw if raw.is_file() else path)
    except OSError:  # reading it will say why
        return None


def run_build(
    corpus: Corpus, plan: CountingPlan, target: Path, options: Options, backend: str, threads: int | None, limit: int | None, steps: Steps
) -> dict:
    """Build in shards; what show_build prints. Errors: those of ShardedBuild, cluster.open_cluster and files.open_folder."""
    from charstat.progress import note, note_skipped
    from charstat.shards.build import ShardedBuild, check_plan
    from charstat.shards.cluster import open_cluster
    from charstat.shards.files import MARK, clear_folder, hold_folder, open_folder

    for text in check_plan(plan):
        note(text)
    folder = Path(os.path.abspath(options.work_dir or f"{target}.work"))
    key, handle = build_key(corpus, plan, limit), hold_folder(folder)
    started = time.perf_counter()
    try:
        if not open_folder(folder, key, options.resume) and options.resume:
            note(f"--resume: there is nothing to go on from in {folder}; this build starts afresh")
        with ExitStack() as stack:
            with steps("starting the workers"):
                opened = open_cluster(
                    folder, MARK, options.scheduler, options.workers, options.worker_memory, threads, bool(options.report)
                )
                cluster = stack.enter_context(opened)
            prepare_s, started = time.perf_counter() - started, time.perf_counter()
            note(f"{cluster.about}{f'; dashboard: {cluster.dashboard}' if cluster.dashboard else ''}")
            tell = stack.enter_context(steps.labelled("counting"))
            stack.enter_context(performance_report(options.report, cluster.client))
            work = ShardedBuild(cluster, folder, plan, key, backend, limit, options.shard_chars, tell)
            model = work.run(corpus, target, lambda: describe(corpus) | {"split": "train", "limit": limit})
    except BaseException:
        if any(folder.glob("text-*.json")):
            note(f"what is finished stays in {folder}: the same command with --resume goes on from there")
        elif (folder / MARK).is_file():
            clear_folder(folder)
        raise
    finally:
        if handle is not None:
            os.close(handle)
    note_skipped(corpus)
    seconds = time.perf_counter() - started
    built = model.manifest["build"]
    return {
        **model_facts(model), "engine": "dask", "seconds": seconds, "prepare_seconds": prepare_s,
        "read_seconds": work.tasks.seconds.get("scan", work.read_seconds), "chars_per_s": model.manifest["text"]["chars"] / seconds,
        "peak_rss_bytes": peak_rss_bytes(), "worker_peak_rss_bytes": work.tasks.peak_rss_bytes, "worker_limit_bytes": cluster.limit_bytes,
        "notes": built["notes"], "hosts": built["merged"],
    }  # fmt: skip


@contextmanager
def performance_report(path: str | None, client: Client):
    """dask's own report of the build, as a page; nothing without a path. UserError without bokeh, which draws it."""
    if path is None:
        yield
        return
    try:
        import bokeh  # noqa: F401
        from distributed import performance_report as report
    except ImportError as e:
        raise UserError(f"--report draws with bokeh ({e}): pip install bokeh") from e
    with client.as_current(), report(filename=path):
        yield
