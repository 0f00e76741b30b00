"""`charstat audit`: parse the options, make the model, ask, and show what was found."""

from __future__ import annotations

from pathlib import Path

import click

from charstat.auditing import DEFAULT_CHARS, DEFAULT_POSITIONS, DEFAULT_PROBES, DEFAULT_TOLERANCE
from charstat.errors import AuditFailed


@click.command("audit")
@click.argument("source", metavar="MODEL|FILE.py|MODULE:FACTORY")
@click.option(
    "--text",
    "path",
    required=True,
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="UTF-8 text to charge for; for a token model ids, a .npy array or a .bin shard; for a model of bytes any file.",
)
@click.option(
    "--from", "first", type=click.IntRange(0), default=0, show_default=True, metavar="N", help="Start at character N, or byte, or token."
)
@click.option(
    "--chars", type=click.IntRange(2), default=DEFAULT_CHARS, show_default=True, metavar="N", help="Read N characters, or bytes, or tokens."
)
@click.option("--probes", type=click.IntRange(1), default=DEFAULT_PROBES, show_default=True, metavar="N",
              help="Other futures to try; each replays the text.")  # fmt: skip
@click.option("--positions", type=click.IntRange(1), default=DEFAULT_POSITIONS, show_default=True, metavar="N",
              help="Positions where everything that could have come is charged.")  # fmt: skip
@click.option("--tolerance", type=click.FloatRange(0, 1), default=DEFAULT_TOLERANCE, show_default=True, metavar="X",
              help="Of bits, and of sums of probabilities.")  # fmt: skip
@click.option("--seed", type=int, default=1, show_default=True, metavar="N", help="Of the probes.")
@click.option("--predictor", metavar="NAME", help="Which model to open on a model directory.  [default: the one it was built for]")
@click.option(
    "--train",
    "train_path",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="The text to hand to a submission's train().",
)
@click.option("--json", "as_json", is_flag=True, help="Print a single JSON object on stdout.")
@click.pass_context
def audit_command(
    ctx: click.Context, source: str, path: str, first: int, chars: int, probes: int, positions: int, tolerance: float, seed: int,
    predictor: str | None, train_path: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Check that a model charges honestly for a text: causal, normalised, scored before learned, in one pass.

    The model is a model directory, a submission's file (its train() gets --train), or a function that makes a model, as
    package.module:function or file.py:function. It needs reset() and score(text), nll(ids), or predict() and observe().

    Exit status: 0 nothing was caught, 5 something was. It runs the submission's code: audit only code that you trust.
    """
    from charstat.auditing.checks import audit
    from charstat.auditing.show import show_audit
    from charstat.auditing.sources import file_text, file_units, named_source
    from charstat.progress import Steps

    steps = Steps()
    with steps("loading the model"):
        made, name, charges_for = named_source(source, predictor, train_path and (lambda: file_text(train_path, 0, None)))
    text = file_units(charges_for, path, first, chars)
    with steps.share("auditing") as progress:
        report = audit(made, text, probes=probes, positions=positions, tolerance=tolerance, seed=seed, progress=progress)
    show_audit({"source": name, "text": {"file": Path(path).name, "from": first}, **report.to_dict()}, as_json)
    if not report.clean:
        ctx.exit(AuditFailed.exit_code)
