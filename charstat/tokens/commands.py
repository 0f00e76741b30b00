"""What `charstat build --tokens` and `charstat inspect` do with token models."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from charstat.tokens.model import TokenModel

COMMON = ("order", "contexts", "held_out", "backend", "threads", "memory", "max_bytes", "min_count", "out", "limit")


def with_tokens(build: Callable[..., None]) -> Callable[..., None]:
    """The build command, with options that make it count token ids instead of text."""

    @click.option("--tokens", multiple=True, type=click.Path(), metavar="FILE",
                  help="Count token ids instead: a .npy array, or a .bin shard of uint16; several count as one text.")  # fmt: skip
    @click.option("--vocab-size", type=int, metavar="N", help="With --tokens: how many ids there are, 2 to 65536.")
    @click.option("--pieces", type=click.Path(), metavar="FILE",
                  help="With --tokens: a JSON list of the bytes of every token in hexadecimal, for contexts of words.")  # fmt: skip
    @wraps(build)
    def command(*args: Any, tokens: tuple[str, ...], vocab_size: int | None, pieces: str | None, **options: Any) -> None:
        if not tokens:
            if vocab_size is not None or pieces is not None:
                raise click.UsageError("--vocab-size and --pieces describe the ids of --tokens: pass that, too")
            return build(*args, **options)
        ctx = click.get_current_context()
        given = {name for name in options if ctx.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE}
        foreign = [option.opts[0] for option in ctx.command.params if option.name in given - {*COMMON, "as_json"}]
        if foreign:
            raise click.UsageError(f"{min(foreign)} is for texts, not for --tokens")
        if vocab_size is None:
            raise click.UsageError("--tokens needs --vocab-size: how many ids there are")
        return _build(tokens, vocab_size, pieces, options["as_json"], {name: options[name] for name in COMMON})

    return command


def _build(files: tuple[str, ...], vocab_size: int, pieces: str | None, as_json: bool, options: dict[str, Any]) -> None:
    import numpy as np

    from charstat.errors import UserError
    from charstat.facts import MODELS, check_out
    from charstat.progress import Steps
    from charstat.tokens.shards import read_ids, read_pieces

    steps = Steps()
    with steps("loading the compiled kernels"):
        from charstat.tokens.model import build_tokens

    limit, memory, out = (options.pop(name) for name in ("limit", "memory", "out"))
    name = f"{files[0].rsplit('/', 1)[-1].rsplit('.', 1)[0] or 'tokens'}-o{options['order']}"
    target = check_out(MODELS / name if out is None else out, files[0])
    with steps("reading"):
        ids = np.concatenate([read_ids(file) for file in files])[:limit]
        token_bytes = None if pieces is None else read_pieces(pieces)
    if not ids.size:
        raise UserError(f"there are no tokens in {', '.join(files)}")
    started = time.perf_counter()
    data = {"name": ", ".join(files)[:1000], "limit": limit}
    with steps("counting"):
        model = build_tokens(ids, vocab_size, token_bytes=token_bytes, memory_bytes=memory, out=target, data=data, **options)
    show_tokens(token_facts(model) | {"seconds": time.perf_counter() - started}, as_json)


def inspect_tokens(path: str, as_json: bool) -> None:
    """Check a token model's directory and show what it holds."""
    from charstat.progress import Steps
    from charstat.tokens.model import TokenModel

    with Steps()("loading and checking the model"):
        model = TokenModel.load(path)
    show_tokens(token_facts(model), as_json)


def token_facts(model: TokenModel) -> dict[str, Any]:
    """What the commands report about a token model; JSON values only."""
    from charstat.storage import disk_bytes

    about = model.manifest
    built, text = about.get("build") or {}, about.get("text") or {}
    return {
        "kind": "tokens", "data": about.get("data") or {}, "tokens": model.tokens, "text_sha256": text.get("sha256"), "vocab_size": model.vocab_size,
        "token_bytes": model.token_bytes is not None, "deepest": int(model.tree.depth.max()),
        "contexts": {
            name: {"contexts": t.n_contexts, "rows": t.n_rows, "bytes": t.n_bytes} for name, t in model.tables.items()
        },
        "warm_start_tokens": model.start.tokens if model.start else 0, "bytes": disk_bytes(about) if "arrays" in about else model.n_bytes,
        "backend": built.get("backend"), "device": built.get("device"), "counting_seconds": built.get("seconds"), "phases": built.get("phases"),
        "energy": built.get("energy"), "pruned": about.get("pruned"), "out": model.path, "format_version": about.get("format_version"), "charstat_version": about.get("charstat_version"),
    }  # fmt: skip


def show_tokens(result: dict[str, Any], as_json: bool) -> None:
    """A token model: one JSON object, or its tables."""
    from charstat.report import energy_table, facts_table, format_bytes, format_seconds, new_table, phases_table, print_json, show

    if as_json:
        return print_json(result)
    rows = [
        ("Token model", f"{result['out']}, format {result['format_version']}, charstat {result['charstat_version']}; checksums match"),
        ("Tokens counted", f"{result['tokens']:,}"),
        ("Ids SHA-256", result["text_sha256"] or "—"),
        ("Vocabulary", f"{result['vocab_size']:,} ids, {'with' if result['token_bytes'] else 'without'} their bytes"),
        ("Tree", f"{result['deepest']} decisions at most"),
        ("Size", format_bytes(result["bytes"])),
    ]
    if result["warm_start_tokens"]:
        rows.append(("Warm start", f"learned from {result['warm_start_tokens']:,} tokens that were not counted"))
    if (cut := result["pruned"]) is not None:
        limit = f"at most {cut['max_bytes']:,} bytes: " if cut["max_bytes"] else ""
        was = {key: sum(t[key] for t in cut["tables"].values()) for key in ("contexts", "rows")}
        left = {key: sum(t[key] for t in result["contexts"].values()) for key in ("contexts", "rows")}
        shares = ", ".join(f"{left[key] / max(1, was[key]):.1%} of the {key}" for key in was)
        rows.append(("Cut to", f"{limit}contexts seen {cut['min_count']:,} times or more, {shares}"))
        if (cost := cut.get("held_out")) is not None:
            on = f"{cost['before']:.4f} -> {cost['after']:.4f} bits per token on {cost['tokens']:,} held-out tokens"
            rows.append(("Cost of the cut", f"{cost['after'] - cost['before']:+.4f}: {on}"))
    if result["device"]:
        rows.append(("Counted on", f"{result['device']} ({result['backend']} backend), {format_seconds(result['counting_seconds'])}"))
    table = new_table("Tables", ("Context", "left"), ("Contexts", "right"), ("Rows", "right"), ("Size", "right"))
    for name, t in result["contexts"].items():
        table.add_row(name, f"{t['contexts']:,}", f"{t['rows']:,}", format_bytes(t["bytes"]))
    show(facts_table("Token model", False, rows), table, phases_table(result), energy_table(result))
