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
    units = f"{result['chars']:,} characters" if result["tokens"] is None else f"{result['tokens']:,} tokens"
    place = f"{result['text']['file']}, {units} from {result['text']['from']:,} on"
    tokens = "" if result["tokens"] is None or not result["chars"] else f", {result['chars']:,} characters"
    figures = (
        "— (guesses only)"
        if result["bits"] is None
        else f"{result['bits'] / result['tokens']:.4f} bits/token (the model does not know the bytes of its tokens)"
        if not result["chars"]
        else f"{result['bits_per_char']:.4f} bits/char, {result['bits_per_byte']:.4f} bits/byte"
    )
    verdict = Text("CLEAN", "bold green") if result["clean"] else Text(f"CAUGHT: {', '.join(result['caught'])}", "bold red")
    rows = [
        ("Model", f"{result['source']} ({result['subject']})"),
        ("Text", f"{place}, {result['bytes']:,} bytes{tokens}" if result["chars"] else place),
        ("SHA-256 of the text", result["text_sha256"]),
        ("Charged", figures),
        ("Verdict", verdict),
        *([("Known cheats that do this", "; ".join(result["suspects"]))] if result["suspects"] else []),
    ]
    table = new_table("Checks", ("Check", "left"), ("Verdict", "left"), ("What was found", "left"))
    for check in result["checks"]:
        table.add_row(check["title"], Text(check["verdict"], STYLES.get(check["verdict"], "")), check["detail"])
    show(facts_table("Audit", False, rows), table)
