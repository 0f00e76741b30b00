"""The lists that `charstat inspect` prints instead of the model: contexts, the mixer, discounts, word classes.

As in report.py, each show_*() takes the dictionary that --json prints, or makes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.text import Text

from charstat.report import new_table, print_json, show

if TYPE_CHECKING:
    from charstat.ngram.contexts import Context

PREFIX = "the prefix of the current word"
KIND_TITLES = {"words": " (each reads the prefix of the current word, and what is listed)"}


def show_discounts(rows: list[dict[str, Any]], as_json: bool) -> None:
    """Kneser-Ney's discounts, one row for each order (KneserNey.discount_rows)."""
    if as_json:
        return print_json({"discounts": rows})
    headings = ("Order", "n1", "n2", "n3", "n4", "D1", "D2", "D3+")
    table = new_table("Kneser-Ney discounts, from the counts of counts", *((heading, "right") for heading in headings))
    table.caption = "n1: rows with count 1, and so on. *: plain counts; the other orders use continuation counts"
    table.caption_justify = "left"
    for row in rows:
        order = f"{'*' if row['counts'] == 'plain' else ''}{row['order']}"
        table.add_row(order, *(_quantity(row[f"n{r}"]) for r in (1, 2, 3, 4)), *(f"{row[f'd{r}']:.4f}" for r in (1, 2, 3)))
    show(table)


def show_mixer(layout: dict[str, Any], as_json: bool) -> None:
    """The mixer's inputs and selector sets (MixerLayout.describe)."""
    if as_json:
        return print_json(layout)
    inputs = new_table("Inputs of the mixer", ("Name", "left"), ("What it is", "left"), ("Columns", "right"), ("Initial weight", "right"))
    for group in layout["inputs"]:
        last = group["first_column"] + group["columns"] - 1
        columns = f"{group['first_column']}..{last}" if group["columns"] > 1 else f"{last}" if group["columns"] else "none"
        inputs.add_row(group["name"], group["about"], columns, f"{group['initial_weight']:.3f}")
    sets = new_table(
        "Selector sets: each contributes one row of weights", ("Name", "left"), ("What selects the row", "left"), ("Rows", "right")
    )
    for group in layout["selector_sets"]:
        sets.add_row(group["name"], group["about"], f"{group['rows']:,}")
    size = f"Weights: {layout['rows']:,} rows x {layout['width']} columns. Layout: {layout['digest'][:16]}"
    show(inputs, sets, Text(size))


def show_classes(rows: dict[str, list[dict[str, Any]]], as_json: bool) -> None:
    """The word classes by their most frequent words, and the topics by what marks them (ngram/class_examples.py)."""
    if as_json:
        return print_json(rows)
    tables = []
    for part, title in (("small", "Classes of words, k"), ("large", "Classes of words, K")):
        table = new_table(title, ("Class", "right"), ("Words", "right"), ("Count", "right"), ("The most frequent", "left"))
        for row in rows[part]:
            table.add_row(str(row["class"]), f"{row['words']:,}", _quantity(row["count"]), Text(" ".join(row["examples"])))
        tables.append(table)
    topics = new_table("Topics", ("Topic", "right"), ("What marks it", "left"))
    for row in rows["topics"]:
        topics.add_row(str(row["topic"]), Text(" ".join(row["marks"])))
    show(*tables, topics)


def show_contexts(as_json: bool) -> None:
    """The named contexts: what each reads, and which presets include it."""
    from charstat.ngram.contexts import ORDER_STEPS, PRESETS, WORD_FIELDS, parse_context

    orders = [f"o{k}" for k in ORDER_STEPS]
    named = dict.fromkeys([*orders, *(name for names in PRESETS.values() for name in names)])
    contexts = []
    for context in sorted(map(parse_context, named), key=lambda context: context.kind):
        on = {preset: context.name in names or ("up to --order" if context.name in orders else False) for preset, names in PRESETS.items()}
        contexts.append(
            {"name": context.name, "kind": kind_name(context), "fields": context.fields, "bits": context.identity_width, "presets": on}
        )
    if as_json:
        return print_json({"presets": list(PRESETS), "contexts": contexts, "word_fields": WORD_FIELDS})
    tables = []
    for kind in dict.fromkeys(context["kind"] for context in contexts):
        table = new_table(
            f"Contexts: {kind}{KIND_TITLES.get(kind, '')}", ("Name", "left"), ("Reads", "left"), ("Bits", "left"), ("Presets", "left")
        )
        for column, width in zip(table.columns, (15, 25, 9, 18), strict=True):
            column.min_width = width
        for context in contexts:
            if context["kind"] == kind:
                on = context["presets"]
                presets = "all, up to K" if "up to --order" in on.values() else " ".join(preset for preset in on if on[preset])
                table.add_row(
                    context["name"], context["fields"].removeprefix(PREFIX).removeprefix(", ") or "nothing else", context["bits"], presets
                )
        tables.append(table)
    fields = new_table("Word fields: join them to p with dots, as in p.w1.capital", ("Field", "left"), ("Reads", "left"))
    for name, what in WORD_FIELDS.items():
        fields.add_row(name, what)
    about = (
        "K is the --order: a preset has the orders listed above up to K, and always K itself. --contexts takes presets and names, separated "
        "by commas. A name need not be in a preset: there are o0..o24, c1..c16, s with distances up to 8, and p with word fields. Example: "
        "--contexts words,c10,p.w1.capital"
    )
    show(*tables, fields, Text(about))


def kind_name(context: Context) -> str:
    """The kind of a context, in a word."""
    from charstat.ngram.hashing import CHARS, CLASSES_OF, SPARSE, WORDS

    return {CHARS: "characters", CLASSES_OF: "classes", SPARSE: "sparse", WORDS: "words"}[context.kind]


def _quantity(n: int) -> str:
    """A count to three figures: 512, 29.3 k, 73.7 M."""
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if n >= 0.9995 * scale:
            return f"{n / scale:.3g} {unit}"
    return str(n)
