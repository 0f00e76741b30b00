"""A dask cluster to build on: one of this machine, or one that runs already; and whether its workers can do the work.

Tasks go through dask's scheduler, which gives them to workers, runs them again when a worker is lost, and shows them on its dashboard; each
worker's memory limit is dask's. Results are a few hundred bytes each: what is large lies in the work directory.
"""

from __future__ import annotations

import logging
import os
import platform
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from charstat.counting import free_memory_bytes
from charstat.errors import CharstatError, ResourceError, UserError
from charstat.facts import peak_rss_bytes
from charstat.shards.files import refused

if TYPE_CHECKING:
    from distributed import Client, Future

CONNECT_S = 10.0
WORKERS_S = 60.0
RETRIES = 2  # of a task that failed for another reason than a user's mistake
MEMORY_SHARE = 0.7  # of the free memory, for all workers of a local cluster
REST_BYTES = 330 << 20  # of a worker at rest, kernels compiled
LEAST_BYTES = 64 << 20  # for a task, beside that
QUIET = {  # of dask's own work beside tasks of minutes: 2.2 CPU seconds in 20 s of two idle workers and the scheduler, 0.5 with these
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "2s",
    "distributed.worker.memory.monitor-interval": "250ms",
}
USED_SHARE = 0.75  # of a worker's limit: dask pauses a worker at 0.8, and ends it at 0.95


def distributed():
    """The module. UserError if it is not installed."""
    try:
        import distributed
    except ImportError as e:
        raise UserError(f'--engine dask needs dask ({e}): pip install "charstat[dask]"') from e
    return distributed


@contextmanager
def ignored_interrupts() -> Iterator[None]:
    """Processes that are started here ignore Ctrl-C, which a terminal sends to all: it is the building process that ends them."""
    if threading.current_thread() is not threading.main_thread():  # only the main one may say so
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


class WorkerFacts(NamedTuple):
    """What a worker says of itself."""

    host: str
    charstat: str
    numba: str
    numpy: str
    python: str
    sees_folder: bool
    why_not: str


def worker_facts(folder: str, token: str) -> WorkerFacts:
    """Run on every worker: its versions, and whether it sees the work directory and can write there."""
    import numba
    import numpy

    from charstat import __version__

    sees, why = True, ""
    try:
        (Path(folder) / token).stat()
        probe = Path(folder) / f".{socket.gethostname()}.{os.getpid()}.charstat-tmp"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as e:
        sees, why = False, e.strerror or str(e)
    versions = __version__, numba.__version__, numpy.__version__, ".".join(platform.python_version_tuple()[:2])
    return WorkerFacts(socket.gethostname(), *versions, sees, why)


@dataclass(frozen=True)
class Cluster:
    """A client, and what its workers can do: `slots` tasks at a time, of budget_bytes each beside what a worker takes at rest."""

    client: Client
    workers: dict[str, WorkerFacts]  # by address
    slots: int
    limit_bytes: int  # of a task's process, divided by the tasks that it runs at a time
    threads: int
    dashboard: str

    @property
    def budget_bytes(self) -> int:
        return int(USED_SHARE * self.limit_bytes) - REST_BYTES

    @property
    def about(self) -> str:
        hosts = {facts.host for facts in self.workers.values()}
        plural = "" if len(hosts) == 1 else "s"
        return (
            f"{len(self.workers)} worker{'' if len(self.workers) == 1 else 's'} on {len(hosts)} host{plural}, {self.slots} tasks at a time"
        )


@contextmanager
def open_cluster(
    folder: Path,
    token: str,
    scheduler: str | None,
    workers: int | None,
    memory_bytes: int | None,
    threads: int | None,
    profile: bool = False,
) -> Iterator[Cluster]:
    """A cluster whose workers were checked. profile: local workers keep dask's profile of what they do, for its report. ResourceError if it
    cannot be reached; UserError if a worker has other versions."""
    dask = distributed()
    from dask import config as settings

    cores = os.cpu_count() or 1
    quiet = logging.getLogger("distributed")
    level = quiet.level
    quiet.setLevel(logging.CRITICAL)
    local = None
    try:
        if scheduler is None:
            workers = cores if workers is None else workers
            free = free_memory_bytes() or 4 << 30
            memory_bytes = int(MEMORY_SHARE * free / workers) if memory_bytes is None else memory_bytes
            threads = max(1, cores // workers) if threads is None else threads
            with ignored_interrupts(), settings.set(QUIET | {"distributed.worker.profile.enabled": profile}):
                local = dask.LocalCluster(
                    n_workers=workers, threads_per_worker=1, processes=True, memory_limit=memory_bytes, dashboard_address="127.0.0.1:0",
                    silence_logs=logging.CRITICAL,
                )  # fmt: skip
        try:
            client = dask.Client(local if local is not None else scheduler, timeout=CONNECT_S, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as e:
            raise ResourceError(
                f"no dask scheduler answers at {scheduler} ({type(e).__name__}): start one with `dask scheduler`, or leave out --scheduler "
                "to build on this machine"
            ) from None
        try:
            yield _checked(client, folder, token, memory_bytes, threads or 1, scheduler)
        finally:
            with suppress(Exception):  # a scheduler that is gone is no reason to fail now
                client.close(timeout=CONNECT_S)
    finally:
        if local is not None:
            with suppress(Exception):
                local.close(timeout=CONNECT_S)
        quiet.setLevel(level)


def _checked(client: Client, folder: Path, token: str, memory_bytes: int | None, threads: int, scheduler: str | None) -> Cluster:
    try:
        client.wait_for_workers(1, timeout=WORKERS_S)
    except TimeoutError:
        raise ResourceError(f"the scheduler at {scheduler} has no workers: start some with `dask worker {scheduler}`") from None
    found = client.run(worker_facts, str(folder), token, on_error="return")
    check_workers(found, folder)
    info = client.scheduler_info(n_workers=-1)["workers"]
    slots = sum(worker["nthreads"] for worker in info.values())
    limits = [worker["memory_limit"] // worker["nthreads"] for worker in info.values() if worker["memory_limit"]]
    if memory_bytes is not None:
        limits.append(memory_bytes)
    if not limits:
        raise UserError("the workers have no memory limit: start them with --memory-limit, or say --worker-memory")
    cluster = Cluster(client, found, slots, min(limits), threads, client.dashboard_link)
    if cluster.budget_bytes < LEAST_BYTES:
        least = int((LEAST_BYTES + REST_BYTES) / USED_SHARE) >> 20
        raise UserError(
            f"a worker has {min(limits) >> 20:,} MB for a task: give it {least:,} or more (--worker-memory {least}M), in one thread"
        )
    return cluster


def check_workers(found: dict[str, Any], folder: Path) -> None:
    """UserError, naming the worker, unless all have this process's versions and see the work directory."""
    own = worker_facts(str(folder), "")
    for address, facts in sorted(found.items()):
        if isinstance(facts, ModuleNotFoundError) or (isinstance(facts, AttributeError) and "charstat" in str(facts)):
            raise UserError(f"the worker {address} has no charstat like this one ({facts}): install charstat {own.charstat} there")
        if isinstance(facts, BaseException):
            raise ResourceError(f"the worker {address} cannot be asked: {type(facts).__name__}: {facts}")
        for name in ("charstat", "numba", "numpy", "python"):
            theirs, ours = getattr(facts, name), getattr(own, name)
            if theirs != ours:
                raise UserError(
                    f"the worker {address} on {facts.host} has {name} {theirs}, and this process {ours}: all must have the same"
                )
        if not facts.sees_folder:
            raise ResourceError(
                f"the worker {address} on {facts.host} cannot use the work directory {folder} ({facts.why_not}): choose one that all workers "
                "share with --work-dir"
            )


class Done(NamedTuple):
    """What a task returns: its result, or the error that it ended with; where, and how long it took."""

    result: Any
    error: CharstatError | None
    host: str
    seconds: float
    peak_rss_bytes: int


def timed(task: Callable, *args: Any) -> Done:
    """Run a task on a worker. A user's mistake, a full disk or too little memory is a result, because doing it again would not help."""
    started, result, error = time.perf_counter(), None, None
    try:
        result = task(*args)
    except CharstatError as e:
        error = e
    except OSError as e:
        error = refused(Path(str(e.filename or args[0])), e)
    except MemoryError:
        error = ResourceError("a worker has too little memory for its task: give the workers more (--worker-memory)")
    return Done(result, error, socket.gethostname(), time.perf_counter() - started, peak_rss_bytes() or 0)


class Tasks:
    """Submits tasks and waits for them; keeps their seconds by stage and by host, and each host's peak memory of a worker."""

    def __init__(self, client: Client):
        self.client, self.build = client, uuid.uuid4().hex[:12]  # a scheduler knows tasks by their names, those of earlier builds, too
        self.seconds: dict[str, float] = {}
        self.host_seconds: dict[str, dict[str, float]] = {}
        self.peak_rss_bytes = 0
        self._futures: list[Future] = []

    def submit(self, stage: str, task: Callable, items: Sequence[tuple], priority: int = 0) -> list[Future]:
        """A future for each tuple of arguments."""
        futures = [
            self.client.submit(timed, task, *args, key=f"{stage}-{self.build}-{i:06}", retries=RETRIES, pure=False, priority=priority)
            for i, args in enumerate(items)
        ]  # fmt: skip
        self._futures += futures
        return futures

    def wait(self, stage: str, futures: Sequence[Future], tell: Callable[[int], object] = lambda done: None) -> list[Any]:
        """Their results, in order; tell(how many are done) after each. The first error is raised; ResourceError for a lost worker."""
        dask = distributed()
        results = {}
        try:
            for future in dask.as_completed(futures, loop=self.client.loop):
                done: Done = future.result()
                self._note(stage, done)
                results[future.key] = done.result
                tell(len(results))
            return [results[future.key] for future in futures]
        except dask.KilledWorker as e:
            raise ResourceError(
                f"a worker was lost {e.allowed_failures + 1} times in {str(e.task).split('-')[0]}: most often it had too little memory "
                "(--worker-memory, or --shard-chars for smaller shards); go on with --resume"
            ) from None
        except (dask.client.FutureCancelledError, dask.comm.CommClosedError, TimeoutError) as e:
            raise ResourceError(f"the connection to the scheduler was lost ({type(e).__name__}): go on with --resume") from None
        except MemoryError:  # raised by dask itself
            raise ResourceError("a worker has too little memory for a task: give the workers more (--worker-memory)") from None

    def _note(self, stage: str, done: Done) -> None:
        if done.error is not None:
            raise type(done.error)(f"{done.error} (on {done.host})" if isinstance(done.error, ResourceError) else str(done.error))
        self.seconds[stage] = self.seconds.get(stage, 0.0) + done.seconds
        host = self.host_seconds.setdefault(done.host, {})
        host[stage] = host.get(stage, 0.0) + done.seconds
        self.peak_rss_bytes = max(self.peak_rss_bytes, done.peak_rss_bytes)

    def cancel(self) -> None:
        """Give up what is not done."""
        with suppress(Exception):
            self.client.cancel(self._futures, force=True)
