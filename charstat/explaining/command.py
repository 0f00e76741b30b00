"""`charstat explain`: what a model says of a text, character by character, in the terminal, as JSON, or as a page."""

from __future__ import annotations

import click

from charstat import __version__
from charstat.facts import newest_model
from charstat.whole_files import STANDARD, check_page, write

DEFAULT_CHARS, MOST_CHARS = 2000, 10_000  # a page holds about 1.4 kB a character


@click.command("explain")
@click.argument("source", metavar="TEXT|FILE")
@click.option("--model", "path", type=click.Path(), metavar="DIR", help="Model directory.  [default: the newest in models/]")
@click.option("--predictor", metavar="NAME", help="Which model to open on the tables.  [default: the one it was built for]")
@click.option("--chars", type=click.IntRange(1, MOST_CHARS), default=DEFAULT_CHARS, show_default=True, metavar="N",
              help="Explain at most N characters; of a longer text the first ones.")  # fmt: skip
@click.option("--windows", type=click.IntRange(1, 1000), default=1, show_default=True, metavar="K",
              help="Of a longer file, take K evenly spaced windows instead, N characters in all.")  # fmt: skip
@click.option("--text", "as_text", is_flag=True, help="Take the argument as text, even if there is a file of that name.")
@click.option("-o", "--out", type=click.Path(), metavar="FILE.html", help="Write a page for the browser.")
@click.option("--force", is_flag=True, help="Overwrite what is there.")
@click.option("--no-color", is_flag=True, help="Digits under the text instead of colours; the variable NO_COLOR does the same.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, and nothing else, on stdout.")
def explain_command(
    source: str, path: str | None, predictor: str | None, chars: int, windows: int, as_text: bool, out: str | None, force: bool,
    no_color: bool, as_json: bool,
) -> None:  # fmt: skip
    """Show what a model says of a text: bits by character, what it expected, and what each source said.

    The argument is a file, - for stdin, or the text itself. The page needs nothing but a browser: the text as a heat map, and for the
    character under the pointer the five most likely ones and every source's evidence, weight and contribution.
    """
    from charstat.explaining.collect import explain_sample
    from charstat.explaining.page import explain_page
    from charstat.explaining.samples import take
    from charstat.explaining.show import show_explanation
    from charstat.progress import Steps

    if windows > chars:
        raise click.UsageError(f"{windows} windows need {windows} characters or more: raise --chars")
    if out is not None:
        check_page(out, force)
    sample = take(source, chars, windows, as_text)
    path = newest_model() if path is None else path
    steps = Steps()
    with steps("loading and checking the model"):
        from charstat.model import Model

        model = Model.load(path)
    from charstat.registry import check_models, parse_models

    name = parse_models(model.models[:1] if predictor is None else predictor)[0]
    check_models([name], model.contexts)
    with steps.share("explaining") as progress:
        found = explain_sample(model.char_model(name), sample, progress)
    windows_taken = [{"at": w.at, "chars": len(w.text), "lead_chars": len(w.lead)} for w in sample.windows]
    about = {"name": sample.name, "about": sample.about(), "bytes": sample.n_bytes, "whole": sample.whole, "windows": windows_taken}
    result = {
        "model": str(path), "predictor": name, "source": about, "notes": notes(sample), "out": out, **found, "charstat_version": __version__,
    }  # fmt: skip
    if out is not None:
        write(out, explain_page(result).encode(), STANDARD, force)
    show_explanation(result, as_json, no_color)


def notes(sample) -> list[str]:
    """What a reader of the page must know about what was taken."""
    if sample.whole:
        return []
    lead = max(len(window.lead) for window in sample.windows)
    read = f"; before each window the model reads the text that leads up to it, at most {lead:,} characters" if lead else ""
    return [f"A sample: {sample.about()}{read}. All figures are of these characters."]
