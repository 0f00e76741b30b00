"""Writes a submission: submission.py (template.py with the settings and the sources that it reaches) and README.md beside it."""

from __future__ import annotations

import ast
import hashlib
import os
import pprint
import re
import tempfile
from pathlib import Path

from charstat import __version__
from charstat.contest.presets import PRESETS, Preset
from charstat.contest.sources import reached_sources
from charstat.contest.statement import Bundle, statement
from charstat.counting import BACKENDS
from charstat.errors import FormatError, ResourceError, UserError
from charstat.ngram.contexts import select_contexts

FILE_NAME, README_NAME = "submission.py", "README.md"
MARK = "made by `charstat bundle`"  # in the first line of both files: what carries it may be overwritten
SEEDS = ("charstat.contest.entry:Entry", "charstat.contest.entry:compile_counting", "charstat.contest.environment:provide_packages")
EXPERT_SEED = "charstat.contest.expert:AdvisedEntry"
EXPERT_PATH = "charstat/submitted_expert.py"  # where a submission carries the expert's file
ENTRY_IMPORT = "from charstat.contest.entry import Entry\n"  # of the template
FROM_OUTSIDE = ("reset", "observe", "predict", "train")  # methods that the runner and template.py call
HANDLE = re.compile(r"@[A-Za-z0-9](?:[A-Za-z0-9-]{0,38})")
UNUSED = ("__copy__", "__deepcopy__")  # nothing copies the model in place
QUOTES = "'''"


def embedded_sources(preset: Preset, backend: str, expert: str | None = None) -> dict[str, str]:
    """{path: source} of what a submission of that preset carries. expert: the source of its expert's file."""
    left_out = ["charstat.ctw", "charstat.ngram.layers", *([] if expert else ["charstat.advice"])]
    if not any(c.needs_classes for c in select_contexts(preset.contexts, preset.order)):
        left_out.append("charstat.cpu.classes")
    if backend == "cpu":
        left_out += ["charstat.gpu", "charstat.counting", "charstat.contest.cuda"]
    if not preset.held_out_chars:
        left_out.append("charstat.mixers.warm_start")
    if expert is None:
        return reached_sources(SEEDS, FROM_OUTSIDE, left_out, UNUSED)
    return {**reached_sources((*SEEDS, EXPERT_SEED), FROM_OUTSIDE, left_out, UNUSED), EXPERT_PATH: expert}


def expert_source(path: str | os.PathLike) -> str:
    """The source of an expert's file. UserError unless it is Python with a function train(text) that can be carried as plain text."""
    try:
        source = Path(path).read_text(encoding="utf-8")
        defined = {node.name: node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}
    except OSError as e:
        raise ResourceError(f"cannot read the expert {path}: {e.strerror or e}") from e
    except (SyntaxError, ValueError) as e:
        raise UserError(f"the expert {path} is not Python: {e}") from e
    if "train" not in defined or len(defined["train"].args.args) != 1:
        raise UserError(
            f"the expert {path} has no function train(text): it must return a model with reset(), observe() and probabilities()"
        )
    if QUOTES in source or "\r" in source:
        raise UserError(f'the expert {path} cannot be carried as it stands: use """ for its docstrings, and line breaks without \\r')
    return source if source.endswith("\n") else source + "\n"


def sources_sha256(sources: dict[str, str]) -> str:
    """One checksum of all files: of their paths and contents, in order."""
    return hashlib.sha256("".join(f"{path}\n{source}" for path, source in sources.items()).encode()).hexdigest()


def submission_source(preset: Preset, backend: str, author: str, expert: str | None = None) -> tuple[str, dict[str, str]]:
    """(submission.py, the sources in it); the same for the same arguments and package. expert: the source of its expert's file."""
    if backend not in BACKENDS:
        raise UserError(f"no backend is named {backend!r}: there are {', '.join(BACKENDS)}")
    if not HANDLE.fullmatch(author):
        raise UserError(f"{author!r} is not a handle: give --author @name, with letters, digits and hyphens")
    sources = embedded_sources(preset, backend, expert)
    parts = []
    for path, source in sources.items():
        assert QUOTES not in source and (not source or source.endswith("\n")), path
        if source:
            parts.append(f"# ---- {path} ----\nFILES[{path!r}] = r{QUOTES}\n{source}{QUOTES}[1:]\n")
        else:
            parts.append(f"FILES[{path!r}] = ''\n")
    values = {
        "author": repr(author),
        "settings": pprint.pformat(preset.to_dict(), width=100, sort_dicts=False),
        "backend": repr(backend),
        "version": repr(__version__),
        "sha256": repr(sources_sha256(sources)),
        "files": "{}\n\n" + "\n".join(parts),
    }
    template = (Path(__file__).parent / "template.py").read_text(encoding="utf-8")
    assert ENTRY_IMPORT in template
    if expert is not None:
        template = template.replace(ENTRY_IMPORT, "from charstat.contest.expert import AdvisedEntry as Entry\n")
    # In one pass, so that no value is searched for the others' places.
    return re.sub(r'"@(\w+)@"', lambda found: values[found[1]], template), sources


def write_bundle(
    out: str | os.PathLike, preset: str | Preset = "gate", backend: str = "cpu", *, author: str, expert: str | os.PathLike | None = None
) -> Bundle:
    """Write out/submission.py and out/README.md; returns what is in them. Files of an earlier bundle are replaced.

    author: the handle in the contest's table, such as "@name". expert: a Python file whose train(text) returns a model that advises the
    mixture (contest/expert.py). UserError for a preset, backend or handle that cannot be; FormatError if
    another submission.py or README.md is there; ResourceError if the directory cannot be written.
    """
    if isinstance(preset, str):
        if preset not in PRESETS:
            raise UserError(f"no preset is named {preset!r}: there are {', '.join(PRESETS)}")
        preset = PRESETS[preset]
    source, sources = submission_source(preset, backend, author, expert and expert_source(expert))
    name = expert and Path(expert).name
    bundle = Bundle(Path(out) / FILE_NAME, preset, backend, author, sources_sha256(sources), len(sources), len(source.encode()), name)
    files = {FILE_NAME: source, README_NAME: statement(bundle)}
    _write_all(Path(out), {name: content.encode() for name, content in files.items()})
    return bundle


def _check_ours(path: Path) -> None:
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise FormatError(f"{path} is there and no plain file: choose another --out")
    if path.exists() and MARK not in path.read_bytes()[:300].decode("utf-8", "replace"):
        raise FormatError(f"{path} is there and no charstat bundle: choose another --out, or remove it")


def _write_all(folder: Path, files: dict[str, bytes]) -> None:
    """Write the files beside their places, and move them there when all are complete."""
    made: list[tuple[str, Path]] = []
    try:
        for name in files:
            _check_ours(folder / name)
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            handle, temp = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
            made.append((temp, folder / name))
            with open(handle, "wb") as f:
                f.write(data)
            os.chmod(temp, 0o644)
        for temp, path in made:
            _check_ours(path)
            os.replace(temp, path)
    except OSError as e:
        raise ResourceError(f"cannot write a submission into {folder}: {e.strerror or e}") from e
    finally:
        for temp, _ in made:
            if os.path.exists(temp):
                os.unlink(temp)
