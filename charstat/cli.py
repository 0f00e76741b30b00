"""The `charstat` command: build, eval, inspect, explain, prune, compress, decompress, bundle, contest, audit.

It parses options, calls the library and shows the result.

    exit status  0    success; eval: the accuracy reaches the gate
                 1    something failed inside charstat; contest: the submission is broken
                 2    an error in what was asked for: one line on stderr says how to fix it (also click's usage errors);
                      contest: the submission is disqualified
                 4    eval: the accuracy is below the gate
                 5    audit: the model was caught
                 130  interrupted; 141 the reader closed the output (console.py)

With --json, stdout holds exactly one JSON object; progress and notes go to stderr. The commands import numba only when they need it,
so that --help and usage errors answer at once.
"""

from __future__ import annotations

import re
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from charstat import __version__, console, kernel_cache
from charstat.auditing.command import audit_command
from charstat.codec.commands import add_commands as add_codec_commands
from charstat.contest.commands import add_commands as add_contest_commands
from charstat.errors import CharstatError, CorpusError, GateMissed, ResourceError, UserError
from charstat.explaining.command import explain_command
from charstat.facts import (
    HUB_NAME,
    MODELS,
    check_out,
    corpus_of,
    default_out,
    describe,
    is_token_model,
    model_facts,
    newest_model,
    peak_rss_bytes,
    text_changed,
)
from charstat.registry import DEFAULT_MODEL, ENTRIES, FORMER_NAMES, check_models, parse_models, use_warm_start
from charstat.tokens.commands import inspect_tokens, with_tokens
from charstat.whole_files import check_page

if TYPE_CHECKING:
    from charstat.explaining.eval_report import Report
    from charstat.model import Model
    from charstat.progress import Steps

DEFAULT_ORDER, DEFAULT_CHARS, DEFAULT_GATE = 8, 60_000, 0.70
ALL_MODELS = f"Choose from {', '.join(entry.name for entry in ENTRIES)}."
SAMPLE_NOTE = "embedded sample, NOT WikiText: these numbers say nothing about WikiText-103"


class Failure(click.ClickException):
    """An error as one line on stderr, with its exit status."""

    def __init__(self, message: str, exit_code: int):
        super().__init__(" ".join(message.splitlines()))
        self.exit_code = exit_code

    def show(self, file=None) -> None:
        click.echo(f"error: {self.message}", file=file, err=file is None)


class CharstatGroup(click.Group):
    """Turns exceptions into one line and an exit status; with --debug the traceback comes first."""

    def make_context(self, *args, **kwargs) -> click.Context:
        try:
            return super().make_context(*args, **kwargs)
        except KeyboardInterrupt:
            raise Failure("interrupted; nothing was changed", console.INTERRUPTED) from None

    def invoke(self, ctx: click.Context) -> object:
        self._placed = len(console.placed_models())
        try:
            if kernel_cache.temporary:
                click.echo(
                    "note: no place to keep compiled kernels in; this run compiles its own (NUMBA_CACHE_DIR=DIR keeps them)", err=True
                )
            return super().invoke(ctx)
        except (click.ClickException, click.Abort, click.exceptions.Exit, BrokenPipeError):
            raise  # click knows these; a pipe that was closed is silent
        except KeyboardInterrupt:
            raise self._interrupted() from None
        except Exception as e:
            if console.interrupted():  # compiled code made something else of it
                raise self._interrupted() from None
            if ctx.params.get("debug"):
                traceback.print_exc()
            raise self._failure(e) from e

    def _written(self) -> str:
        return console.written(self._placed)

    def _interrupted(self) -> Failure:
        return Failure(console.interrupted_text(self._placed), console.INTERRUPTED)

    def _failure(self, e: Exception) -> Failure:
        if isinstance(e, CharstatError):
            return Failure(str(e), e.exit_code)
        if isinstance(e, MemoryError):
            return Failure("not enough memory: try a smaller --limit or --memory, or fewer --contexts", ResourceError.exit_code)
        if isinstance(e, OSError):
            return Failure(f"{e.strerror or e}{f': {e.filename!r}' if e.filename else ''}{self._written()}", ResourceError.exit_code)
        return Failure(f"unexpected {type(e).__name__}: {e} (set CHARSTAT_DEBUG=1 to see the traceback)", CharstatError.exit_code)


class Size(click.ParamType):
    """Bytes, with an optional suffix K, M, G or T in powers of 1024: 6G, 512M, 1.5GiB."""

    name = "size"

    def __init__(self, least: int = 1 << 20, why: str = "counting needs at least 1M"):
        self.least, self.why = least, why

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*", str(value), re.IGNORECASE | re.ASCII)
        if match is None:
            self.fail(f"{value!r} is not a size such as 6G or 512M", param, ctx)
        size = int(min(float(match[1]), 1e19) * 1024 ** " KMGT".index(match[2].upper() or " "))
        if size > 1 << 60:
            self.fail(f"{value!s:.20} is more than there is", param, ctx)
        if size < self.least:
            self.fail(f"{value!r} is too small: {self.why}", param, ctx)
        return size


def _check_gate(ctx: click.Context, param: click.Parameter, value: float) -> float:
    if not 0 <= value <= 1:  # not so for nan either
        raise click.BadParameter(f"{value:g} is not an accuracy from 0 to 1")
    return value


_data = click.option(
    "--data", metavar="TEXT",
    help="wikitext-103 (from the hub), a directory with wiki.*.raw, a UTF-8 text file, or sample; or many files (a directory, or a glob in "
    "quotes: .txt, .raw, .jsonl, .parquet, and .gz or .zst of them), hub:OWNER/NAME, or - (standard input).",
)  # fmt: skip
_text_field = click.option(
    "--text-field", metavar="NAME", help="The field of JSON lines, Parquet files and data sets that holds the text.  [default: text]"
)
_max_bytes = click.option(
    "--max-bytes", type=Size(1, "a model takes more"), metavar="SIZE",
    help="Cut the model to this size on disk, such as 2G or 16M: what is worth least per byte goes.",
)  # fmt: skip
_min_count = click.option("--min-count", type=click.IntRange(1), default=1, show_default=True, metavar="N",
                          help="Leave out contexts that were seen fewer than N times.")  # fmt: skip
_packed = click.option("--packed/--mapped", "packed", default=None,
                       help="One file, decoded when it is loaded, or arrays that are mapped.  [default: packed if --max-bytes is below 40 MB]")  # fmt: skip
_json = click.option("--json", "as_json", is_flag=True, help="Print a single JSON object on stdout.")


@click.group(cls=CharstatGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="charstat")
@click.option("--debug", is_flag=True, envvar="CHARSTAT_DEBUG", help="Show tracebacks; CHARSTAT_DEBUG=1 does the same.")
def cli(debug: bool) -> None:
    """Statistical character language models: count one text, then predict another, character by character."""


@cli.command()
@_data
@_text_field
@click.option("--skip-bad-files", is_flag=True, help="Leave out files that are damaged or repeated, and list them.")
@click.option("--order", default=DEFAULT_ORDER, show_default=True, metavar="K", help="Highest character order, 1 to 24.")
@click.option("--contexts", metavar="NAMES",
              help="Presets or contexts, separated by commas; `charstat inspect --contexts` lists them.  [default: what the models read]")  # fmt: skip
@click.option("--models", default=DEFAULT_MODEL, show_default=True, metavar="NAMES",
              help=f"Models to build for, separated by commas; eval opens the first. {ALL_MODELS}")  # fmt: skip
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Use only the first N characters of train.")
@click.option("--held-out", type=click.IntRange(0), default=0, show_default=True, metavar="N",
              help="Hold out the last N characters: the mixture learns its warm start from them, and they are not counted.")  # fmt: skip
@click.option("--start", type=click.Path(), metavar="MODEL",
              help="Begin with the warm start of another model, as far as it fits; --held-out goes on from there.")  # fmt: skip
@click.option("--backend", type=click.Choice(["auto", "cpu", "gpu"]), default="auto", show_default=True, help="Where to count.")
@click.option("--threads", type=click.IntRange(1, 4096), metavar="N", help="Number of CPU threads.  [default: all]")
@_max_bytes
@_min_count
@_packed
@click.option("--memory", type=Size(), metavar="SIZE", help="Memory for counting buffers, such as 6G.  [default: 60 % of free memory]")
@click.option(
    "--out", type=click.Path(), metavar="DIR", help=f"Model directory to write.  [default: {MODELS}/<text>-o<order>..., see above]"
)
@click.option("--bytes", "of_bytes", is_flag=True,
              help="Count bytes instead of characters, any bytes; of a file as they are, of other texts in UTF-8. --limit and --held-out count bytes.")  # fmt: skip
@click.option("--engine", type=click.Choice(["local", "dask"]), default="local", show_default=True,
              help="dask: count in shards, on workers of this machine or of a cluster, each within its memory.")  # fmt: skip
@click.option("--scheduler", metavar="ADDRESS", help="dask: the scheduler of a cluster, such as tcp://host:8786.  [default: this machine]")
@click.option("--workers", type=click.IntRange(1, 1024), metavar="N", help="dask: workers on this machine.  [default: one a core]")
@click.option("--worker-memory", type=Size(), metavar="SIZE", help="dask: memory of each worker.  [default: 70 % of free memory, shared]")
@click.option("--work-dir", type=click.Path(), metavar="DIR",
              help="dask: a directory that all workers see, for the text and the shards.  [default: the model's, with .work]")  # fmt: skip
@click.option(
    "--shard-chars", type=click.IntRange(1), metavar="N", help="dask: characters in a shard.  [default: what a worker has memory for]"
)
@click.option("--resume", is_flag=True, help="dask: go on from what an earlier build has left in the work directory.")
@click.option("--report", type=click.Path(dir_okay=False), metavar="FILE", help="dask: write dask's performance report, an HTML page.")
@_json
@with_tokens
def build(
    data: str | None, text_field: str | None, skip_bad_files: bool, order: int, contexts: str | None, models: str, limit: int | None,
    held_out: int, start: str | None, backend: str, threads: int | None, max_bytes: int | None, min_count: int, packed: bool | None,
    memory: int | None, out: str | None, of_bytes: bool, engine: str, as_json: bool, **dask: Any,
) -> None:  # fmt: skip
    """Count a text and write a model directory.

    Without --data, the text is WikiText-103 from the hub. If the hub cannot be reached, build says so and counts the embedded sample
    instead: real English, but not WikiText.

    By default, build counts the contexts that the models read. It also computes the weights of a context tree for the models that use
    them. Other models can be opened on the same tables later, if the tables have what they read.

    The directory appears when it is complete, and replaces an earlier model there. The default --out names every option that is not
    at its default, as in models/wikitext-103-o8-words-first-1000000.
    """
    from charstat.corpus import HubUnavailable, open_corpus
    from charstat.progress import Steps, note, note_skipped
    from charstat.report import show_build
    from charstat.shards.command import Options, run_build

    options = Options(**dask)
    options.check(engine, memory)
    if engine == "dask" and of_bytes:
        raise click.UsageError("--bytes: shards are counted in characters, so not with --engine dask yet")
    corpus = open_corpus(HUB_NAME if data is None else data, text_field, skip_bad_files)
    steps = Steps()
    with steps("loading the compiled kernels"):
        from charstat.counting import CountingPlan, SizeLimits, build_model, choose_backend, energy_meter
        from charstat.storage import DirectoryColumns

    size = SizeLimits.of(max_bytes, min_count, packed)
    begun = None if start is None else _load(start, steps)
    plan = CountingPlan.of(order, contexts, _models(models), held_out, size, begun)
    contexts, wanted = plan.preset, list(plan.models)
    if plan.learns and not use_warm_start(wanted):
        given = " and ".join(option for option, value in (("--held-out", held_out), ("--start", start)) if value)
        users = " and ".join(use_warm_start(entry.name for entry in ENTRIES))
        note(f"{given}: only {users} use the warm start, and this model is built for {', '.join(wanted)}")
    counter, _ = choose_backend(backend, threads, memory)

    def place() -> Path:
        target = check_out(
            default_out(corpus, order, contexts, limit, held_out, wanted, size, of_bytes, begun) if out is None else out,
            describe(corpus)["path"],
        )
        DirectoryColumns(target).discard()  # fails before the text is read if the place cannot be written
        return target

    def read() -> tuple[str | bytes, dict]:
        with steps.reading(corpus.name) as progress, energy_meter(counter) as meter:
            text = corpus.data("train", limit) if of_bytes else corpus.text("train", limit, progress)
        return text, meter.report().as_phase("read")

    target, started = place(), time.perf_counter()
    with steps("preparing (the first run compiles)"):
        from charstat.warm_up import warm_up

        warm_up(counter, order, contexts, wanted, bool(held_out), size, begun)
        if engine == "dask":
            from charstat.shards.warm_up import warm_up_shards

            warm_up_shards()
    if engine == "dask":
        return show_build(run_build(corpus, plan, target, options, backend, threads, limit, steps), as_json)
    prepare_s, started = time.perf_counter() - started, time.perf_counter()
    try:
        text, reading = read()
    except HubUnavailable as e:
        if data is not None:
            raise
        note(f"{e}. Counting the {SAMPLE_NOTE}")
        corpus = open_corpus("sample")
        target = place()
        text, reading = read()
    read_s = time.perf_counter() - started
    note_skipped(corpus)
    with steps.build(plan.contexts, wanted, held_out / max(1, len(text) - held_out)) as progress:
        model = build_model(
            text, order=order, contexts=contexts, models=wanted, held_out_chars=held_out, backend=backend, threads=threads, memory_bytes=memory,
            max_bytes=max_bytes, min_count=min_count, packed=packed, start=begun,
            out=target, data=describe(corpus) | {"split": "train", "limit": limit}, read=reading, progress=progress,
        )  # fmt: skip
    seconds = time.perf_counter() - started
    show_build({**model_facts(model), "seconds": seconds, "prepare_seconds": prepare_s, "read_seconds": read_s,
                "chars_per_s": model.manifest["text"]["chars"] / seconds, "peak_rss_bytes": peak_rss_bytes()}, as_json)  # fmt: skip


@cli.command("eval")
@click.option("--model", "path", type=click.Path(), metavar="DIR", help=f"Model directory.  [default: the newest in {MODELS}/]")
@_data
@_text_field
@click.option("--split", default="val", show_default=True, metavar="NAME", help="train, val or test.")
@click.option("--chars", type=click.IntRange(0), default=DEFAULT_CHARS, show_default=True, metavar="N",
              help="Score the first N characters; 0: all.")  # fmt: skip
@click.option("--gate", type=float, default=DEFAULT_GATE, show_default=True, metavar="A", callback=_check_gate,
              help="Accuracy to reach; below it, the exit status is 4.")  # fmt: skip
@click.option("--models", metavar="NAMES", help=f"Compare these models, separated by commas, on the same tables. {ALL_MODELS}")
@click.option("--ablate", is_flag=True, help="Also show what each source of the mixture is worth.")
@click.option("--report", type=click.Path(), metavar="FILE",
              help="Also write an HTML page: accuracy curve, calibration, bits by kind of character.")  # fmt: skip
@click.option("--force", is_flag=True, help="Overwrite a report that is there.")
@_json
@click.pass_context
def evaluate_command(
    ctx: click.Context, path: str | None, data: str | None, text_field: str | None, split: str, chars: int, gate: float,
    models: str | None, ablate: bool, report: str | None, force: bool, as_json: bool,
) -> None:  # fmt: skip
    """Predict a text character by character and report the accuracy.

    Each character is predicted first, then the model learns from it. The gate is the accuracy that the contest asks for.

    Without --data, eval uses the text that the model was built from; without --models, the predictor that it was built for, usually
    the mixture. With --models or --ablate it prints a table of models or sources, one row each, and the gate is passed if any of the
    models passes it.
    """
    from charstat.corpus import normalise_split, open_corpus
    from charstat.progress import Steps
    from charstat.report import show_eval, start_text

    if report is not None:
        check_page(report, force)
    split = normalise_split(split)
    chosen = None if models is None else _models(models)
    corpus = None if data is None else open_corpus(data, text_field)
    path = newest_model() if path is None else path
    steps = Steps()
    model = _load(path, steps)
    built_from = model.manifest.get("data") or {}
    chosen = parse_models(model.models[:1]) if chosen is None else chosen
    check_models(chosen, model.contexts, model.pruned)
    if report is not None and model.alphabet.of_bytes:
        raise UserError("--report sorts characters by kind, and this is a model of bytes: leave it out")
    corpus = corpus_of(built_from, path) if corpus is None else corpus
    with steps.reading(corpus.name) as progress:
        text = corpus.data(split, chars or None) if model.alphabet.of_bytes else corpus.text(split, chars or None, progress)
    if not text:
        raise CorpusError(f"the {split} split of {corpus.name!r} is empty: choose another --split or --data")
    notes = [SAMPLE_NOTE] if corpus.kind == "sample" else []
    if len(text) < chars:
        notes.append(f"the split has only {len(text):,} of the {chars:,} characters asked for")
    if split == "train":
        notes.append("the model may have counted this very text, so the accuracy says little about new text")
    changed = text_changed(model, corpus)
    if changed and data is None:
        raise CorpusError(f"{changed}: build the model again, or name the text with --data to evaluate on it as it is now")
    if changed:
        notes.append(f"{changed}: the model may have counted what is scored")
    if model.warm_start_chars and use_warm_start(chosen):
        sources = ", except in the table of sources" if ablate else ""
        origin = model.manifest["start"].get("from")
        notes.append(f"the mixture has a warm start, {start_text(model.warm_start_chars, origin)}{sources}")
    facts = {
        "model": str(path), "data": describe(corpus), "split": split, "chars": len(text), "gate": gate,
        "sample": corpus.kind == "sample", "built_from": built_from, "order": model.order,
        "preset": model.manifest.get("preset"), "notes": notes, "char_model": chosen[0] if models is None else None, "charstat_version": __version__,
    }  # fmt: skip
    page = None
    if report is not None:
        from charstat.explaining.eval_report import Report

        page = Report(text, report, force, lambda name: steps(f"calibrating: {name}", total=len(text)))
        facts["report"] = report
    if models is not None or ablate:
        if not _compare(model, chosen, text, facts, ablate, steps, as_json, page):
            ctx.exit(GateMissed.exit_code)
        return
    from charstat.charmodel_api import evaluate

    stream = model.char_model()
    with steps("preparing (the first run compiles)"):
        stream.reset()
        stream.guess_and_score(text[:64])  # compiles what is timed below; evaluate() resets
    with steps("predicting", total=len(text)) as progress:
        result = evaluate(stream, text, progress)
    if page:
        page.see(chosen[0], stream, result)
        page.save(facts)
    passed = result.accuracy >= gate
    show_eval({**facts, **result.to_dict(), "passed": passed}, result.correct, as_json)
    if not passed:
        ctx.exit(GateMissed.exit_code)


def _compare(
    model: Model, chosen: list[str], text: str, facts: dict, with_ablation: bool, steps: Steps, as_json: bool, page: Report | None
) -> bool:  # fmt: skip
    """Show the table of models and the table of sources; returns whether any of the models passes the gate. page: sees every model."""
    from charstat.comparison import ablate, compare
    from charstat.report import show_comparison

    rows, sources = [], []
    for name in chosen:
        with steps(f"predicting: {name}", total=len(text)) as progress:
            rows += compare(model, [name], text, facts["gate"], progress, page and page.see)
    if with_ablation:
        with steps.share("ablating the mixture") as progress:
            sources += ablate(model, text, progress)
    if page:
        page.save(facts)
    passed = any(row["passed"] for row in rows)
    show_comparison({**facts, "models": rows, "passed": passed, **({"ablation": sources} if with_ablation else {})}, as_json)
    return passed


@cli.command()
@click.argument("path", required=False, metavar="[DIR]", type=click.Path())
@click.option("--contexts", is_flag=True, help="List all contexts and presets instead; needs no model.")
@click.option("--discounts", is_flag=True, help="Print the Kneser-Ney discounts for the model's tables instead.")
@click.option("--mixer", is_flag=True, help="Print the mixer's inputs and selector sets on this model instead.")
@click.option("--classes", is_flag=True, help="Print the word classes and the topics, with examples, instead.")
@_json
def inspect(path: str | None, contexts: bool, discounts: bool, mixer: bool, classes: bool, as_json: bool) -> None:
    """Check a model directory and show what it holds.

    Without DIR, the newest model in models/.
    """
    from charstat.listings import show_classes, show_contexts, show_discounts, show_mixer
    from charstat.progress import Steps
    from charstat.report import show_model

    if contexts + discounts + mixer + classes > 1:
        raise click.UsageError("--contexts, --discounts, --mixer and --classes print different things: choose one")
    if contexts:
        if path is not None:
            raise click.UsageError("--contexts lists all contexts and needs no model: use it without DIR")
        return show_contexts(as_json)
    path = newest_model() if path is None else path
    if is_token_model(path) and not discounts + mixer + classes:
        return inspect_tokens(path, as_json)
    steps = Steps()
    model = _load(path, steps)
    if discounts:
        with steps("counting counts"):
            from charstat.ngram.interpolated import KneserNey

            rows = KneserNey(model).discount_rows()
        return show_discounts(rows, as_json)
    if mixer:
        return show_mixer(model.stream(warm_start=False).layout.describe(), as_json)
    if classes:
        with steps("looking for examples"):
            from charstat.ngram.class_examples import class_rows

            rows = class_rows(model)
        return show_classes(rows, as_json)
    show_model(model_facts(model) | {"checked": True}, as_json)


@cli.command("prune")
@click.argument("path", metavar="MODEL", type=click.Path())
@_max_bytes
@_min_count
@_packed
@click.option("--held-out", "text_path", type=click.Path(exists=True, dir_okay=False), metavar="FILE",
              help="UTF-8 text that was not counted: what the cut costs is measured on it, and a warm start learned anew from it.")  # fmt: skip
@click.option("--out", type=click.Path(), required=True, metavar="DIR", help="Model directory to write.")
@_json
def prune_command(
    path: str, max_bytes: int | None, min_count: int, packed: bool | None, text_path: str | None, out: str, as_json: bool
) -> None:  # fmt: skip
    """Cut a model to a size: write one without what is worth least per byte.

    Contexts, their rows and words go by what they add to the prediction of the shorter context and by how often they will be needed
    (entropy pruning), for all tables together. The new model says what it lacks; its counts are no longer whole, so that it cannot be
    merged, and the models that need all counts do not open on it.
    """
    from charstat.auditing.sources import BYTES, TEXT, file_units
    from charstat.progress import Steps
    from charstat.report import show_model

    if max_bytes is None and min_count == 1:
        raise click.UsageError("nothing to cut: say --max-bytes SIZE, --min-count N or both")
    target = check_out(out)
    steps = Steps()
    model = _load(path, steps)
    held_out = "" if text_path is None else file_units(BYTES if model.alphabet.of_bytes else TEXT, text_path, 0, None)
    with steps("cutting", total=1) as tell:
        from charstat.pruning.cut import prune

        small = prune(
            model, out=target, max_bytes=max_bytes, min_count=min_count, packed=packed, held_out=held_out,
            progress=lambda name, share: tell(share),
        )  # fmt: skip
    show_model(model_facts(small) | {"checked": False}, as_json)


add_contest_commands(cli)
cli.add_command(audit_command)
cli.add_command(explain_command)
add_codec_commands(cli)


def _models(names: str) -> list[str]:
    """The models of a list with commas; a note on stderr for each that was given its former name."""
    from charstat.progress import note

    chosen = parse_models(names)
    for name in dict.fromkeys(map(str.strip, names.split(","))):
        if name in FORMER_NAMES:
            note(f"the model {name} is now called {FORMER_NAMES[name]}; the next version will not know the old name")
    return chosen


def _load(path: str, steps: Steps) -> Model:
    with steps("loading and checking the model"):
        from charstat.model import Model

        return Model.load(path)


def main() -> None:
    """The entry point of the `charstat` command."""
    console.run(lambda: cli(prog_name="charstat"))


if __name__ == "__main__":
    main()
