"""What `charstat compress` and `charstat decompress` show: the dictionary that --json prints, or a table of it."""

from __future__ import annotations

from typing import Any

from charstat.report import format_bytes, format_seconds, new_table, print_json, show

COLUMNS = (("File", "left"), ("Bytes", "right"), ("Compressed", "right"), ("Bits/byte", "right"), ("Time", "right"), ("Result", "left"))


def show_files(result: dict[str, Any], as_json: bool) -> None:
    """One JSON object, or a row for each file; nothing where a file itself went to stdout."""
    if as_json:
        return print_json(result)
    rows = result["files"]
    if any(row["out"] == "-" for row in rows):
        return
    table = new_table(f"With the model {result['model']}" if result["model"] else "Without a model", *COLUMNS)
    for row in rows:
        bits = f"{8 * row['compressed_bytes'] / row['bytes']:.3f}" if row["bytes"] else "—"
        done = [row["out"]] if row["out"] else []
        done += ["tested"] if row["tested"] else []
        table.add_row(
            row["file"], f"{row['bytes']:,}", format_bytes(row["compressed_bytes"]), bits, format_seconds(row["seconds"]), ", ".join(done)
        )
    show(table)
