"""What `charstat audit` shows: the dictionary that --json prints, or tables that a reviewer can paste."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from charstat.auditing.report import CAUGHT, PASSED
from charstat.report import facts_table, new_table, print_json, show

STYLES = {CAUGHT: "bold red", PASSED: "green"}


def show_audit(result: dict[str, Any], as_json: bool) -> None:
    """The result of an audit: AuditReport.to_dict(), and where model and text came from."""
    if as_json:
        return print_json(result)
    place = f"{result['text']['file']}, {result['chars']:,} characters from {result['text']['from']:,} on"
    tokens = "" if result["tokens"] is None else f", {result['tokens']:,} tokens"
    figures = (
        "— (guesses only)"
        if result["bits"] is None
        else f"{result['bits_per_char']:.4f} bits/char, {result['bits_per_byte']:.4f} bits/byte"
    )
    verdict = Text("CLEAN", "bold green") if result["clean"] else Text(f"CAUGHT: {', '.join(result['caught'])}", "bold red")
    rows = [
        ("Model", f"{result['source']} ({result['subject']})"),
        ("Text", f"{place}, {result['bytes']:,} bytes{tokens}"),
        ("SHA-256 of the text", result["text_sha256"]),
        ("Charged", figures),
        ("Verdict", verdict),
        *([("Known cheats that do this", "; ".join(result["suspects"]))] if result["suspects"] else []),
    ]
    table = new_table("Checks", ("Check", "left"), ("Verdict", "left"), ("What was found", "left"))
    for check in result["checks"]:
        table.add_row(check["title"], Text(check["verdict"], STYLES.get(check["verdict"], "")), check["detail"])
    show(facts_table("Audit", False, rows), table)
