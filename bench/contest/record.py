"""Writes the records of bench/contest/ again, from today's sources, and charstat/contest/measured.json, which a submission's README quotes.

    python bench/contest/record.py DATA [--label TEXT] [--presets gate,full]

DATA has wiki.train.raw and wiki.valid.raw in the contest's layout. For each preset: `charstat bundle`, then `charstat contest --json` (gate: both
contracts; full: main), each record with its stderr beside it; for gate, also the accuracy on every window of 60,000 characters of
val from 120,000 on. It takes some 3 minutes on two idle cores with 135 M characters, 1 for gate alone. Run it with a Python that has
codecarbon; without it, the dev record has a constant for the CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from charstat.charmodel_api import evaluate
from charstat.contest.bundle import write_bundle
from charstat.contest.entry import count
from charstat.contest.presets import PRESETS, Preset
from charstat.contest.statement import MEASURED, load_measured
from charstat.cpu.backend import CPUBackend

HERE = Path(__file__).parent
CONTRACTS = {"gate": ("main", "dev"), "full": ("main",)}
WINDOW, FIRST = 60_000, 120_000
DEV_W = 50.0  # the least that the dev rule charges for a second


def run(submission: Path, data: str, contract: str) -> tuple[dict, str]:
    command = [sys.executable, "-m", "charstat.cli", "contest", str(submission), "--data", data, "--contract", contract, "--json"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=env, check=False, capture_output=True, text=True)
    if done.returncode not in (0, 2):
        raise SystemExit(done.stderr)
    told = [line for line in done.stderr.splitlines() if line.startswith("charstat: ")]
    return json.loads(done.stdout.replace(data, "DATA")), "\n".join(told) + "\n"


def windows(preset: Preset, data: Path) -> dict:
    """Accuracy on windows of val that the contest does not score."""
    text, val = ((data / f"wiki.{split}.raw").read_bytes().decode() for split in ("train", "valid"))
    stream = count(text[: preset.chars], preset, CPUBackend(os.cpu_count() or 1, overlap=True)).stream()
    places = range(FIRST, len(val) - WINDOW + 1, WINDOW)
    return {str(at): evaluate(stream, val[at : at + WINDOW]).accuracy for at in places}


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("data", type=Path)
    p.add_argument(
        "--label", default="a stand-in for WikiText-103's train, 135 M characters of Featured and Good articles; val is the genuine one"
    )
    p.add_argument("--machine", default=f"{os.cpu_count()} CPU cores that other work shared, no GPU")
    p.add_argument("--presets", default="gate,full", type=lambda s: s.split(","))
    a = p.parse_args()
    measured = load_measured()
    with tempfile.TemporaryDirectory() as temp:
        for name in a.presets:
            preset, runs = PRESETS[name], {}
            bundle = write_bundle(Path(temp) / name, name, author="@charstat")
            for contract in CONTRACTS[name]:
                result, log = run(bundle.path, str(a.data), contract)
                runs[contract] = {"label": f"{a.label}; {a.machine}", "sources_sha256": bundle.sha256, **result}
                (HERE / f"{name}-{contract}-cpu.json").write_text(json.dumps(runs[contract], indent=2) + "\n")
                (HERE / f"{name}-{contract}-cpu.log").write_text(log)
                print(name, contract, result["val_char_accuracy"], f"{result['training_duration_s']:.2f} s", flush=True)
            first, dev = runs["main"], runs.get("dev")
            seconds = min(each["training_duration_s"] for each in runs.values())
            counted = min(preset.chars, first["train_chars"]) - preset.held_out_chars
            measured[name] = {
                "sources_sha256": bundle.sha256, "contracts": list(runs), "accuracy": first["val_char_accuracy"], "val_chars": first["val_chars"],
                "counted": f"{counted:,} characters", "text": a.label, "windows": "", "seconds": seconds, "machine": a.machine,
                "cpu_s": min(each["train_cpu_s"] for each in runs.values()),
                "floor_dev_J": DEV_W * seconds, "cpu_dev_J": dev and dev["cpu_energy_J"], "cpu_counted_by": dev and dev["cpu_counted_by"],
                "no_op_s": dev and dev["no_op"] and dev["no_op"]["whole_seconds"],
            }  # fmt: skip
            if name == "gate":
                found = windows(preset, a.data)
                (HERE / "gate-windows.json").write_text(json.dumps({"sources_sha256": bundle.sha256, "accuracy": found}, indent=1) + "\n")
                mean, low, high = sum(found.values()) / len(found), min(found.values()), max(found.values())
                measured[name]["windows"] = f"On {len(found)} other windows of val: {mean:.4f} on average, {low:.4f} to {high:.4f}."
                print(measured[name]["windows"])
    MEASURED.write_text(json.dumps(measured, indent=2) + "\n")


if __name__ == "__main__":
    main()
