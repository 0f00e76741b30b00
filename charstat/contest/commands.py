"""`charstat bundle` and `charstat contest`. As in cli.py, what is slow to import is imported inside the commands."""

from __future__ import annotations

import click

from charstat.facts import describe

DEFAULT_CHARS = 60_000  # what the contest scores
_json = click.option("--json", "as_json", is_flag=True, help="Print a single JSON object on stdout.")


def add_commands(cli: click.Group) -> None:
    """Register this file's commands."""
    cli.add_command(bundle)
    cli.add_command(contest)


@click.command()
@click.option("--out", type=click.Path(file_okay=False), required=True, metavar="DIR", help="Where submission.py and README.md go.")
@click.option("--preset", type=click.Choice(["gate", "full"]), default="gate", show_default=True,
              help="gate: qualify with the least energy; full: the best accuracy within the time limit.")  # fmt: skip
@click.option("--backend", type=click.Choice(["auto", "cpu", "gpu"]), default="cpu", show_default=True,
              help="What counts in train(); auto: a GPU where one works, otherwise the CPU.")  # fmt: skip
@click.option("--author", required=True, metavar="@HANDLE", help="Who submits it: the handle in the contest's table.")
@click.option("--expert", type=click.Path(exists=True, dir_okay=False), metavar="FILE",
              help="A Python file whose train(text) returns a model of your own, such as a neural net: it is trained in train(), "
              "and advises the mixture.")  # fmt: skip
@_json
def bundle(out: str, preset: str, backend: str, author: str, expert: str | None, as_json: bool) -> None:
    """Write a contest submission: submission.py, with the sources that it needs in it, and README.md."""
    from charstat.contest.bundle import write_bundle
    from charstat.contest.show import show_bundle

    show_bundle(write_bundle(out, preset, backend, author=author, expert=expert), as_json)


@click.command()
@click.argument("submission", type=click.Path(exists=True, dir_okay=False))
@click.option("--data", required=True, metavar="TEXT", help="A directory with wiki.{train,valid}.raw, or what build's --data takes.")
@click.option("--contract", type=click.Choice(["main", "dev"]), default="main", show_default=True, help="The contest's branch.")
@click.option("--chars", type=click.IntRange(0), default=DEFAULT_CHARS, show_default=True, metavar="N",
              help="Score the first N characters; 0: all.")  # fmt: skip
@click.option("--limit-train", type=click.IntRange(1), metavar="N", help="Hand train() only the first N characters.")
@_json
@click.pass_context
def contest(
    ctx: click.Context, submission: str, data: str, contract: str, chars: int, limit_train: int | None, as_json: bool
) -> None:  # fmt: skip
    """Run a submission by the contest's rules, in a separate process.

    Only train() is metered, as in the contest; import, warm-up and evaluation are shown separately. Exit status: 0 qualified,
    2 disqualified, 1 broken.
    """
    from charstat.contest.runner import exit_status, run_contest
    from charstat.contest.show import show_contest
    from charstat.corpus import open_corpus
    from charstat.progress import Steps

    corpus, steps = open_corpus(data), Steps()
    with steps.reading(corpus.name) as progress:
        train_text, val_text = corpus.text("train", limit_train, progress), corpus.text("val", chars or None)
    with steps("running", total=len(val_text)) as progress:
        result = run_contest(submission, train_text, val_text, contract=contract, progress=lambda step, done: progress(done))
    show_contest(result | {"data": describe(corpus) | {"path": None, "limit_train": limit_train}}, as_json)
    ctx.exit(exit_status(result))
