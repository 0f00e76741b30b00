"""The child process of the runner: holds the submission, and does step by step what the parent says. Standard library only.

    child.py READ_FD WRITE_FD        (started by channel.py; everything else comes through the pipe)

A message of the parent's is 16 random bytes, a letter, 8 bytes of length, big endian, and the payload; its answer begins with the same
16 bytes, so that nothing but an answer passes for one. The letters: S submission and contract, I import, T the training text, R train,
M check what train() returned, E reset, and then one character at a time, C (predict again afterwards) or L (the last). The answers': O and JSON,
F and a JSON error, G and a guess. A guess is sent before the character that it is for is received: whatever the submission does, it
cannot look ahead. What the submission prints goes to stderr.
"""

import ctypes
import importlib.util
import inspect
import json
import os
import signal
import sys
import traceback
import types
from abc import ABC, abstractmethod

NONCE, HEAD = 16, 16 + 1 + 8  # bytes
LONGEST_REASON = 2000  # characters
PR_SET_PDEATHSIG = 1


class Pipe:
    """The child's end: requests in, their answers out."""

    def __init__(self, read_fd: int, write_fd: int):
        self.read_fd, self.write_fd = read_fd, write_fd
        self._nonce = b""

    def receive(self) -> tuple[bytes, bytearray]:
        """The next request; Closed at the end."""
        start = self._read(HEAD)
        self._nonce = bytes(start[:NONCE])
        return bytes(start[NONCE : NONCE + 1]), self._read(int.from_bytes(start[NONCE + 1 :], "big"))

    def answer(self, kind: bytes, payload: bytes = b"") -> None:
        """The answer to the request that was received last."""
        data = memoryview(message(self._nonce, kind, payload))
        while data:
            data = data[os.write(self.write_fd, data) :]

    def _read(self, size: int) -> bytearray:
        data = bytearray(size)
        view = memoryview(data)
        while view:
            n = os.readv(self.read_fd, [view])
            if not n:
                raise Closed
            view = view[n:]
        return data


def head(nonce: bytes, kind: bytes, size: int) -> bytes:
    """What comes before a payload of that size."""
    return nonce + kind + size.to_bytes(8, "big")


def message(nonce: bytes, kind: bytes, payload: bytes = b"") -> bytes:
    return head(nonce, kind, len(payload)) + payload


def contest_module(contract: str) -> types.ModuleType:
    """The module `wikitext` of the contest: CharModel alone."""

    class CharModel(ABC):
        @abstractmethod
        def reset(self) -> None: ...

        @abstractmethod
        def predict(self): ...

        @abstractmethod
        def observe(self, char: str) -> None: ...

    CharModel.predict.__annotations__["return"] = str if contract == "dev" else dict[str, float]
    CharModel.__module__ = "wikitext"
    module = types.ModuleType("wikitext", "The contest's contract.")
    module.CharModel = CharModel
    return module


class Child:
    """A submission, from its file to its guesses."""

    def __init__(self) -> None:
        self.path = self.contract = self.text = ""
        self.runner = self.train = self.model = None

    def set_up(self, path: str, contract: str) -> None:
        self.path, self.contract, self.runner = path, contract, contest_module(contract)

    def load(self) -> dict:
        sys.modules["wikitext"] = self.runner
        spec = importlib.util.spec_from_file_location("submission", self.path)
        if spec is None:
            raise ImportError(f"{self.path} is not a Python file")
        module = sys.modules["submission"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self.train = getattr(module, "train", None)
        if not callable(self.train):
            raise Broken("it defines no train()")
        parameters = inspect.signature(self.train).parameters
        author = getattr(module, "__author__", None)
        return {"author": None if author is None else str(author), "wants_valid_text": "valid_text" in parameters}

    def run_train(self) -> None:
        self.model = self.train(self.text)
        synchronize_devices()

    def check_model(self) -> dict:
        if not isinstance(self.model, self.runner.CharModel):
            raise Broken(f"train() returned {type(self.model).__name__}, not the runner's CharModel")
        return {}

    def guess(self) -> str:
        """The committed character, "" for none; by the contract's rules."""
        predicted = self.model.predict()
        if not predicted:
            return ""
        if self.contract == "dev":
            return predicted if isinstance(predicted, str) else ""  # a dict scores nothing there, without an error
        if not isinstance(predicted, dict):
            raise Broken(f"predict() returned {type(predicted).__name__}, not a dict of probabilities")
        return max(predicted, key=predicted.get)


class Closed(Exception):
    """The parent has closed the pipe."""


class Broken(Exception):
    """A submission that does not keep the contract."""


def synchronize_devices() -> None:
    """Wait for work that the submission left on a GPU, so that it is inside the window."""
    torch, cupy = sys.modules.get("torch"), sys.modules.get("cupy")
    try:
        if torch is not None and torch.cuda.is_initialized():
            torch.cuda.synchronize()
        if cupy is not None:
            cupy.cuda.runtime.deviceSynchronize()
    except Exception as e:  # noqa: BLE001  the meter goes on without
        print(f"runner: the device could not be synchronised: {e}", file=sys.stderr)


def serve(pipe: Pipe, child: Child) -> None:
    """Do what the parent says until it closes the pipe."""
    steps = {b"I": child.load, b"R": child.run_train, b"M": child.check_model}
    while True:
        kind, payload = pipe.receive()
        if kind == b"S":
            child.set_up(*json.loads(payload))
            pipe.answer(b"O", b"{}")
        elif kind == b"T":
            child.text = str(payload, "utf-8", "surrogatepass")
            del payload
            pipe.answer(b"O", b"{}")
        elif kind in steps:
            pipe.answer(b"O", json.dumps(steps[kind]() or {}).encode())
        elif kind == b"E":
            child.text = ""
            child.model.reset()
            pipe.answer(b"G", child.guess().encode("utf-8", "surrogatepass"))
        else:  # subtle: only now, after the guess was sent, is the character known here
            child.model.observe(str(payload, "utf-8", "surrogatepass"))
            if kind == b"C":
                pipe.answer(b"G", child.guess().encode("utf-8", "surrogatepass"))
            else:
                pipe.answer(b"O", b"{}")


def die_with_parent() -> None:
    """Have the system end this process when the runner ends, however that ends (Linux)."""
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    except (OSError, AttributeError):
        pass


def main() -> None:
    pipe = Pipe(int(sys.argv[1]), int(sys.argv[2]))
    os.dup2(2, 1)
    die_with_parent()
    try:
        serve(pipe, Child())
    except Closed:
        pass
    except BaseException as e:  # noqa: BLE001  SystemExit, too, is the submission's
        if not isinstance(e, Broken):
            traceback.print_exc()
        reason = str(e) if isinstance(e, Broken) else f"it raised {type(e).__name__}: {e}"
        try:
            pipe.answer(b"F", json.dumps(reason[:LONGEST_REASON]).encode())
        except OSError:
            pass
        sys.exit(1)


if __name__ == "__main__":
    main()
