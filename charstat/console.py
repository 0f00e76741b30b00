"""Around the `charstat` command: signals, terminals of another encoding, pipes that close, and outputs that are full.

    130   interrupted (SIGINT); SIGTERM and SIGHUP end with 128 + their number
    141   whoever read the output has closed it, as `| head` does: 128 + SIGPIPE, and not a word

A signal becomes an exception in the main thread, so that what is half-written is removed. Some places lose such an exception (destructors
and callbacks, where Python only reports it) or turn it into another one (compiled code): there it is sent again, or remembered.
"""

from __future__ import annotations

import codecs
import os
import signal
import sys
import threading
import unicodedata
from collections.abc import Callable
from pathlib import Path
from types import FrameType

INTERRUPTED, CLOSED_PIPE, FAILED_OUTPUT = 130, 141, 2
NARROW = str.maketrans({"—": "-", "–": "-", "−": "-", "µ": "u", "·": "*", "…": ".", "␣": "_", "↵": "$", "≤": "<", "≥": ">"})
ENDING = ("SIGINT", "SIGTERM", "SIGHUP")
RESEND_S = 0.01
_came: list[int] = []


def interrupted() -> bool:
    """Whether a signal has asked this process to end."""
    return bool(_came)


def placed_models() -> list[Path]:
    """Where this process has put models so far."""
    storage = sys.modules.get("charstat.storage")
    return storage.placed_models() if storage else []


def written(since: int = 0) -> str:
    """What to add to an error after models were put in their places, those of the first `since` left out."""
    return "".join(f"; the model at {place} was written, and is complete" for place in placed_models()[since:])


def interrupted_text(since: int = 0) -> str:
    """What an interrupt has left: the models in their places, those of the first `since` left out, or nothing."""
    return f"interrupted{written(since) or '; nothing was changed'}"


def _stop(number: int, frame: FrameType | None) -> None:
    _came.append(number)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + number)


def _lost(unraisable: sys.UnraisableHookArgs) -> None:
    """An exception in a destructor or callback: if it was a signal's, send that again; others are reported as ever.

    subtle: a little later, from a thread, because a signal that is sent here is handled here, where its exception is lost again.
    """
    if _came and issubclass(unraisable.exc_type, KeyboardInterrupt | SystemExit):
        again = threading.Timer(RESEND_S, os.kill, (os.getpid(), _came[-1]))
        again.daemon = True
        again.start()
    else:
        sys.__unraisablehook__(unraisable)


def _same_width(error: UnicodeError) -> tuple[str, int]:
    """What stands for characters that the terminal's encoding lacks: as wide as they are, so that tables keep their columns."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    shown = error.object[error.start : error.end].translate(NARROW)
    return "".join(c if c.isascii() else "??" if unicodedata.east_asian_width(c) in "WF" else "?" for c in shown), error.end


codecs.register_error("charstat.same_width", _same_width)


def run(command: Callable[[], object]) -> None:
    """Run a command to its SystemExit, and end the process with its status."""
    sys.unraisablehook = _lost
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            wide = (stream.encoding or "").lower().startswith("utf")  # there only lone surrogates, of names, cannot be written
            stream.reconfigure(errors="backslashreplace" if wide else "charstat.same_width")
    try:
        _catch_signals()
        status = _status_of(command)
        _ignore_signals()
    except (KeyboardInterrupt, SystemExit):  # a signal before the command or after it
        _ignore_signals()
        status = _say(interrupted_text(), INTERRUPTED if _came[-1:] == [signal.SIGINT] else 128 + _came[-1])
    sys.exit(_flushed(status))


def _catch_signals() -> None:
    for name in ENDING:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _stop)


def _ignore_signals() -> None:
    """What is left to do is to end: a signal would only add a traceback."""
    for name in ENDING:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def _status_of(command: Callable[[], object]) -> int:
    """Run a command to its end; the status that it ends with."""
    status = 0
    try:
        command()
    except SystemExit as e:
        status = e.code if isinstance(e.code, int) else 0 if e.code is None else 1
        if type(sys.stdout).__name__.endswith("PacifyFlushWrapper"):  # click's word for a closed pipe
            status = CLOSED_PIPE
        elif status == 1 and _came[-1:] == [signal.SIGINT]:  # click was interrupted between two of our own lines, and said so
            status = INTERRUPTED
    except KeyboardInterrupt:
        status = _say(interrupted_text(), INTERRUPTED)
    except BrokenPipeError:
        status = CLOSED_PIPE
    except OSError as e:
        status = _say(f"the output cannot be written: {e.strerror or e}", FAILED_OUTPUT)
    return status


def _say(message: str, status: int) -> int:
    try:
        print(f"error: {message}", file=sys.stderr, flush=True)
    except OSError:
        pass
    return status


def _flushed(status: int) -> int:
    """The status after the streams were flushed; what they still hold after an error goes nowhere, or Python would report it at its end."""
    for stream in (sys.stdout, sys.stderr):
        if stream is None:
            continue
        try:
            stream.flush()
        except BrokenPipeError:
            status = CLOSED_PIPE if stream is sys.stdout else status
            _silence(stream)
        except (OSError, ValueError) as e:
            if stream is sys.stdout and status == 0:
                status = _say(f"the output cannot be written: {getattr(e, 'strerror', None) or e}", FAILED_OUTPUT)
            _silence(stream)
    return status


def _silence(stream: object) -> None:
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except (OSError, ValueError, AttributeError):
        pass
