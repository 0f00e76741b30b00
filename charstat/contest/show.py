"""What `charstat bundle` and `charstat contest` show: the dictionary that --json prints, or tables of it."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from charstat.contest.bundle import Bundle
from charstat.report import facts_table, format_bytes, format_seconds, new_table, print_json, show

UNMETERED = {"import": "import and warm-up", "evaluation": "evaluation"}


def show_bundle(bundle: Bundle, as_json: bool) -> None:
    """A submission that was written."""
    preset = bundle.preset
    if as_json:
        return print_json({
            "path": str(bundle.path), "preset": preset.to_dict(), "backend": bundle.backend, "author": bundle.author, "bytes": bundle.bytes,
            "files": bundle.files, "sources_sha256": bundle.sha256,
        })  # fmt: skip
    chars = f"the first {preset.chars:,}" + (f" ({preset.gpu_chars:,} on a GPU)" if preset.gpu_chars != preset.chars else "")
    if preset.held_out_chars:
        chars += f"; the last {preset.held_out_chars:,} are not counted, but the mixture learns its start from them"
    show(facts_table("Submission", False, [
        ("File", f"{bundle.path}, {format_bytes(bundle.bytes)}"),
        ("Author", bundle.author),
        ("Preset", preset.name),
        ("Characters", chars),
        ("Order, contexts", f"{preset.order}, {preset.contexts}"),
        ("Backend", bundle.backend),
        ("Sources", f"{bundle.files} files, SHA-256 {bundle.sha256}"),
        ("Beside it", "README.md: read it, it says how to submit"),
    ]))  # fmt: skip


def show_contest(result: dict[str, Any], as_json: bool) -> None:
    """The result of a run: one JSON object, or the verdict and what was not metered."""
    if as_json:
        return print_json(result)
    passed = not result["disqualified"]
    limit = result.get("acc_min", result.get("max_train_seconds"))
    verdict = Text("QUALIFIED", "bold green") if passed else Text(f"DISQUALIFIED: {result['reason']} ({limit:g})", "bold red")
    accuracy = "— (not evaluated)" if result["val_char_accuracy"] is None else f"{result['val_char_accuracy']:.4f}"
    rows = [
        ("Submission", f"{result['submission']} by {result['author'] or '—'}, SHA-256 {result['submission_sha256'][:16]}…"),
        ("Text", result["data"]["description"]),
        ("Characters", f"{result['train_chars']:,} to train on, {result['val_chars']:,} scored"),
        ("Contract", result["contract"]),
        (
            "train()",
            f"{result['training_duration_s']:.3f} s" + (f", {cpu:.2f} s of CPU time" if (cpu := result["train_cpu_s"]) is not None else ""),
        ),
        ("GPU", result["gpu_name"] or f"— ({result['reasons'].get('gpu_name')})"),
        ("Energy, GPU net", _joules(result, "training_energy_J")),
    ]
    if result["contract"] == "dev":
        rows += [("Energy, CPU", f"{_joules(result, 'cpu_energy_J')} ({result['cpu_counted_by']})"),
                 ("Energy, total", Text(_joules(result, "total_energy_J"), "bold"))]  # fmt: skip
        if result["no_op"] is not None:
            rows.append(("A train() of nothing", _no_op(result["no_op"])))
    rows += [("CPU by its counters", _joules(result, "cpu_measured_J")), ("Accuracy", Text(accuracy, "bold")), ("Verdict", verdict)]
    rows += [("Note", Text(note, "yellow")) for note in result["notes"]]
    table = new_table("Not metered by the contest", ("Step", "left"), ("Time", "right"), ("GPU gross", "right"), ("CPU", "right"))
    for step, name in UNMETERED.items():
        window = result["unmetered"][step]
        if window is not None:
            joules = ["—" if window[key] is None else f"{window[key]:,.1f} J" for key in ("gpu_gross_J", "cpu_measured_J")]
            table.add_row(name, format_seconds(window["seconds"]), *joules)
    show(facts_table("Contest", result["data"]["kind"] == "sample", rows), table)


def _joules(result: dict[str, Any], key: str) -> str:
    value = result[key]
    return f"— ({result['reasons'].get(key)})" if value is None else f"{value:,.1f} J" if value >= 10 else f"{value:.3f} J"


def _no_op(figures: dict[str, Any]) -> str:
    gpu = "—" if figures["training_energy_J"] is None else f"{figures['training_energy_J']:,.1f} J"
    total = "—" if figures["total_energy_J"] is None else f"{figures['total_energy_J']:,.1f} J"
    return f"{total} (GPU {gpu}, CPU {figures['cpu_energy_J']:,.1f} J) in {figures['whole_seconds']:.2f} s, CodeCarbon's start included"
