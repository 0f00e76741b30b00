"""`charstat compress` and `charstat decompress`. As in cli.py, what is slow to import is imported inside the commands."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from charstat import __version__
from charstat.errors import CharstatError, FormatError, UserError
from charstat.whole_files import check_free, write

if TYPE_CHECKING:
    from charstat.model import Model
    from charstat.progress import Steps

_files = click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path())
_out = click.option("-o", "--out", type=click.Path(), metavar="FILE", help="Where the result goes; - is stdout. Only with one file.")
_model = click.option("--model", "path", type=click.Path(), metavar="DIR", help="The model to predict with; decompress needs the same one.")
_force = click.option("--force", is_flag=True, help="Overwrite what is there.")
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object, and nothing else, on stdout.")


def add_commands(cli: click.Group) -> None:
    """Register this file's commands."""
    cli.add_command(compress)
    cli.add_command(decompress)


@click.command()
@_files
@_out
@_model
@click.option("--order", type=int, metavar="K", help="Without a model: the highest character order, 1 to 24.  [default: 14]")
@click.option("--test", is_flag=True, help="Decompress in memory and compare, before anything is written.")
@_force
@_json
def compress(files: tuple[str, ...], out: str | None, path: str | None, order: int | None, test: bool, force: bool, as_json: bool) -> None:
    """Compress files with the mixture's own probabilities. FILE becomes FILE.cst, and is kept. - is stdin.

    Without --model, everything is learned from the file itself: any file will do, and nothing else is needed to decompress it. With
    --model the result is smaller, but only the same model can read it. Speed: some 20 to 80 thousand characters a second, both ways.
    """
    from charstat.codec import files as codec
    from charstat.ngram.contexts import check_order

    if path is not None and order is not None:
        raise click.UsageError("--order is for compressing without a model: a model has its own")
    if order is not None:
        check_order(order)
    places = _places(files, out, codec.compressed_name, as_json)
    for place in places:
        check_free(place, force)
    steps, model = _prepare(path)
    rows = []
    for name, place in zip(files, places, strict=True):
        data, started = codec.read(name), time.perf_counter()
        with _named(name), steps.share(f"compressing {_short(name)}") as progress:
            result = codec.compress(data, model, order, progress)
        seconds = time.perf_counter() - started
        if test:
            with _named(name), steps.share(f"testing {_short(name)}") as progress:
                if codec.decompress(result.data, model, progress) != data:
                    raise CharstatError("it does not decompress to what it was; nothing was written")
        write(place, result.data, name, force)
        rows.append({"file": name, "out": place, "bytes": len(data), "compressed_bytes": len(result.data), "chars": result.chars,
                     "mode": result.mode, "seconds": seconds, "tested": test})  # fmt: skip
    _show(rows, path, as_json)


@click.command()
@_files
@_out
@_model
@click.option("--test", is_flag=True, help="Only check that it decompresses; write nothing.")
@_force
@_json
def decompress(files: tuple[str, ...], out: str | None, path: str | None, test: bool, force: bool, as_json: bool) -> None:
    """Decompress files that `charstat compress` made. FILE.cst becomes FILE, and is kept. - is stdin.

    A file that is damaged, truncated or not charstat's is refused: exit status 2, with the number of the bad block. Files decompress on
    machines where the same versions compute the same floating-point numbers; elsewhere the command says so, and writes nothing.
    """
    from charstat.codec import files as codec

    places = list(files) if test else _places(files, out, codec.original_name, as_json)
    for place in () if test else places:
        if place != codec.STANDARD:  # text may go to a terminal
            check_free(place, force)
    steps, model = _prepare(path)
    rows = []
    for name, place in zip(files, places, strict=True):
        packed, started = codec.read(name), time.perf_counter()
        with _named(name), steps.share(f"decompressing {_short(name)}") as progress:
            data = codec.decompress(packed, model, progress)
        seconds = time.perf_counter() - started
        if not test:
            write(place, data, name, force)
        rows.append({"file": name, "out": None if test else place, "bytes": len(data), "compressed_bytes": len(packed), "seconds": seconds,
                     "tested": test})  # fmt: skip
    _show(rows, path, as_json)


def _places(files: tuple[str, ...], out: str | None, place_of: Callable[[str], str], as_json: bool) -> list[str]:
    """Where each file's result goes. UsageError for a combination that makes no sense."""
    if out is not None and len(files) > 1:
        raise click.UsageError(f"-o names one file, and there are {len(files)} to read: leave it out")
    places = [place_of(name) for name in files] if out is None else [out]
    if len(set(places)) < len(places):
        raise click.UsageError("a file is named twice")
    if as_json and "-" in places:
        raise click.UsageError("--json and the result cannot both go to stdout: say with -o where the result goes")
    return places


def _prepare(path: str | None) -> tuple[Steps, Model | None]:
    from charstat.progress import Steps

    steps, model = Steps(), None
    if path is not None:
        with steps("loading and checking the model"):
            from charstat.model import Model

            model = Model.load(path)
    with steps("preparing (the first run compiles)"):
        from charstat.codec.files import warm_up

        warm_up()
    return steps, model


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Puts the file's name before what is wrong with it."""
    try:
        yield
    except CharstatError as e:
        kind = next(k for k in (FormatError, UserError, CharstatError) if isinstance(e, k))
        raise kind(f"{'stdin' if name == '-' else name}: {e}") from e


def _short(name: str) -> str:
    return Path(name).name[-30:]


def _show(rows: list[dict], path: str | None, as_json: bool) -> None:
    from charstat.codec.show import show_files

    show_files({"files": rows, "model": path, "charstat_version": __version__}, as_json)
