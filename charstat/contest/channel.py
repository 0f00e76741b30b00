"""The parent's end of the runner: starts the child that holds a submission, asks it for one step after the other, and ends it.

Every step has a time limit, which is enforced here: nothing that comes through the pipe, or fails to come, blocks beyond it. What the child
says is believed only if it is the answer to what was asked (child.py), of a sensible length and form; anything else is a broken submission.

On Linux, in addition: whatever the submission started is ended with it, in its process group or not (an orphan becomes a child of
this process, which ends those that it did not have before); this process's memory and files cannot be read by it; and the command
line of this process, which names the texts, is blank meanwhile.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from charstat.contest.child import HEAD, NONCE, head, message
from charstat.errors import CharstatError

LONGEST_ANSWER = 1 << 20
START_S, END_S = 60.0, 5.0  # how long Python may take to start; how long processes that were killed are waited for
PR_SET_DUMPABLE, PR_GET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 4, 3, 36
LOST = "its process ended"


class BrokenSubmission(CharstatError):
    """A submission that raises, ends, hangs, or does not keep the contract: exit status 1."""

    exit_code = 1


def broken(reason: str) -> BrokenSubmission:
    return BrokenSubmission(f"broken submission: {reason}")


class Submission:
    """The child process that holds a submission; on leaving, it and what it started are ended."""

    def __init__(self, path: Path, contract: str):
        self._path, self._contract = path.absolute(), contract

    def __enter__(self) -> Self:
        self._before = child_pids()
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(Path(__file__).with_name("child.py")), str(theirs_in), str(theirs_out)], cwd=self._path.parent,
                pass_fds=(theirs_in, theirs_out), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        except BaseException:
            os.close(self._in), os.close(self._out)
            raise
        finally:
            os.close(theirs_in), os.close(theirs_out)
        os.set_blocking(self._in, False)
        os.set_blocking(self._out, False)
        self._guard = guarded()  # the submission's own code runs only when it is asked for
        self._guard.__enter__()
        try:
            self.ask(b"S", json.dumps([str(self._path), self._contract]).encode(), what="starting Python", limit_s=START_S)
        except BaseException as e:
            self.__exit__(type(e), e, None)
            if isinstance(e, TimeoutError):
                raise broken(f"its process takes longer than {START_S:g} s to start") from None
            raise
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._out)  # the child then ends by itself, atexit functions included
        if error[0] is None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(1)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        end_children(self._before)
        os.close(self._in)
        self._guard.__exit__(None, None, None)

    def cpu_s(self) -> float | None:
        """CPU seconds of the child so far, all threads, and of what it started and waited for (Linux; None elsewhere)."""
        try:
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
            return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
        except (OSError, ValueError):
            return None

    def ask(self, step: bytes, payload: bytes = b"", *, what: str, limit_s: float) -> dict[str, Any]:
        """Have a step done; what the child says of it. TimeoutError after limit_s; BrokenSubmission."""
        until = time.monotonic() + limit_s
        self._send(step, payload, until)
        try:
            said = json.loads(self._answer(b"O", until, what))
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict):
            raise broken(f"what it answered to {what} is none of the runner's messages")
        return said

    def guess(self, step: bytes, char: str, limit_s: float) -> str:
        """Have it observe a character, unless the step is reset (E), and predict the next one."""
        until = time.monotonic() + limit_s
        self._send(step, char.encode("utf-8", "surrogatepass"), until)
        try:
            return str(self._answer(b"G", until, "predict()"), "utf-8", "surrogatepass")
        except UnicodeDecodeError:
            raise broken("what it answered to predict() is none of the runner's messages") from None

    def _send(self, kind: bytes, payload: bytes, until: float) -> None:
        self._nonce = os.urandom(NONCE)
        if len(payload) < LONGEST_ANSWER:
            parts = [message(self._nonce, kind, payload)]
        else:  # not another copy of a long text
            parts = [head(self._nonce, kind, len(payload)), payload]
        for part in parts:
            view = memoryview(part)
            while view:
                self._wait(self._out, select.POLLOUT, until)
                try:
                    view = view[os.write(self._out, view[: 1 << 20]) :]
                except BlockingIOError:
                    continue
                except BrokenPipeError:
                    return  # the reason may still be in the other pipe: the answer says it

    def _answer(self, wanted: bytes, until: float, what: str) -> bytearray:
        start = self._read(HEAD, until, what)
        size = int.from_bytes(start[NONCE + 1 :], "big")
        if bytes(start[:NONCE]) != self._nonce or size > LONGEST_ANSWER:
            raise broken("something other than the runner wrote into the runner's pipe")
        kind, payload = bytes(start[NONCE : NONCE + 1]), self._read(size, until, what)
        if kind == b"F":
            try:
                reason = str(json.loads(payload))
            except (ValueError, RecursionError):
                reason = "it failed, and its reason cannot be read"
            raise broken(reason)
        if kind != wanted:
            raise broken(f"what it answered to {what} is none of the runner's messages")
        return payload

    def _read(self, size: int, until: float, what: str) -> bytearray:
        data = bytearray(size)
        view = memoryview(data)
        while view:
            self._wait(self._in, select.POLLIN, until)
            try:
                n = os.readv(self._in, [view])
            except BlockingIOError:
                if self._process.poll() is not None:  # though something that it started may hold the pipe open
                    raise broken(f"{LOST} (status {self._process.returncode}) in {what}") from None
                continue
            if not n:
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(1)
                raise broken(f"{LOST} (status {self._process.poll()}) or closed its pipe in {what}")
            view = view[n:]
        return data

    def _wait(self, fd: int, event: int, until: float) -> None:
        """Until the pipe is ready or the child has ended. TimeoutError at `until`."""
        poll = select.poll()
        poll.register(fd, event)
        while True:
            left = until - time.monotonic()
            if left <= 0.0:
                raise TimeoutError
            if poll.poll(math.ceil(1000 * min(left, 0.1))) or self._process.poll() is not None:
                return


def child_pids() -> set[int]:
    """The processes whose parent is this one (Linux; none elsewhere)."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            if int(entry.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.add(int(entry.parent.name))
    return found


def end_children(before: set[int]) -> None:
    """End the processes that became children of this one since `before`: a submission's, whose own parents have ended. Their children then
    become children of this one, and are ended, too."""
    until = time.monotonic() + END_S
    while (orphans := child_pids() - before) and time.monotonic() < until:
        for pid in orphans:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        time.sleep(0.001)


@contextmanager
def guarded() -> Iterator[None]:
    """This process while a submission runs: orphans come to it, its memory is its own, its command line is blank. Linux; elsewhere nothing."""
    try:
        prctl = ctypes.CDLL(None).prctl
        dumpable = prctl(PR_GET_DUMPABLE, 0, 0, 0, 0)
    except (OSError, AttributeError):
        yield
        return
    shown = blank_command_line()
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    try:
        yield
    finally:
        prctl(PR_SET_DUMPABLE, dumpable, 0, 0, 0)
        prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
        if shown is not None:
            ctypes.memmove(shown[0], shown[1], len(shown[1]))


def blank_command_line() -> tuple[int, bytes] | None:
    """Overwrite what /proc shows as this process's command line; returns (address, what was there), or None where that is not known."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        start, end = int(fields[45]), int(fields[46])  # arg_start and arg_end, numbers 48 and 49 in proc(5)
        shown = Path("/proc/self/cmdline").read_bytes()
        if not 0 < end - start < 1 << 22 or ctypes.string_at(start, end - start) != shown[: end - start]:
            return None
    except (OSError, ValueError, IndexError):
        return None
    ctypes.memset(start, 0, end - start)
    return start, shown[: end - start]
