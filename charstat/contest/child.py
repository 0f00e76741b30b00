"""The child process of the runner: holds the submission, and does step by step what the parent says. Standard library only.

    child.py READ_FD WRITE_FD SUBMISSION CONTRACT        (started by runner.py)

Messages are 8 bytes of length, big endian, a letter, and the payload. The parent's: I import, T the training text, R train, M check what
train() returned, E reset, and then one character at a time, C (predict again afterwards) or L (the last). The child's: O and JSON, F and a JSON error, G and a guess. A guess
is sent before the character that it is for is received: whatever the submission does, it cannot look ahead. What the submission
prints goes to stderr. It is no sandbox: a submission can read files like any other program.
"""

import importlib.util
import inspect
import json
import os
import sys
import traceback
import types
from abc import ABC, abstractmethod

SHORT = 1 << 16  # payloads that are sent together with their head


class Pipe:
    """Messages over two file descriptors. limit: the longest payload that is received."""

    def __init__(self, read_fd: int, write_fd: int, limit: int = 1 << 40):
        self.read_fd, self.write_fd, self.limit = read_fd, write_fd, limit

    def send(self, kind: bytes, payload: bytes = b"") -> None:
        head = len(payload).to_bytes(8, "big") + kind
        if len(payload) < SHORT:
            _write(self.write_fd, head + payload)
        else:
            _write(self.write_fd, head)
            _write(self.write_fd, payload)

    def receive(self) -> tuple[bytes, bytearray]:
        """The next message; EOFError at the end, or if it is none."""
        head = self._read(9)
        size = int.from_bytes(head[:8], "big")
        if size > self.limit:
            raise EOFError("a message that is none")
        return bytes(head[8:]), self._read(size)

    def _read(self, size: int) -> bytearray:
        data = bytearray(size)
        view = memoryview(data)
        while view:
            n = os.readv(self.read_fd, [view])
            if not n:
                raise EOFError("the other end is closed")
            view = view[n:]
        return data


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


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

    def __init__(self, path: str, contract: str):
        self.path, self.contract = path, contract
        self.runner = contest_module(contract)
        self.text = ""
        self.train = self.model = None

    def load(self) -> dict:
        sys.modules["wikitext"] = self.runner
        spec = importlib.util.spec_from_file_location("submission", self.path)
        if spec is None:
            raise ImportError(f"{self.path} is no Python file")
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
        self.text = ""
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
        if kind == b"T":
            child.text = str(payload, "utf-8", "surrogatepass")
            del payload
            pipe.send(b"O", b"{}")
        elif kind in steps:
            pipe.send(b"O", json.dumps(steps[kind]() or {}).encode())
        elif kind == b"E":
            child.model.reset()
            pipe.send(b"G", child.guess().encode("utf-8", "surrogatepass"))
        else:  # subtle: only now, after the guess was sent, is the character known here
            child.model.observe(str(payload, "utf-8", "surrogatepass"))
            if kind == b"C":
                pipe.send(b"G", child.guess().encode("utf-8", "surrogatepass"))
            else:
                pipe.send(b"O", b"{}")


def main() -> None:
    pipe = Pipe(int(sys.argv[1]), int(sys.argv[2]))
    os.dup2(2, 1)
    try:
        serve(pipe, Child(sys.argv[3], sys.argv[4]))
    except EOFError:
        pass
    except BaseException as e:  # noqa: BLE001  SystemExit, too, is the submission's
        if not isinstance(e, Broken):
            traceback.print_exc()
        message = str(e) if isinstance(e, Broken) else f"it raised {type(e).__name__}: {e}"
        try:
            pipe.send(b"F", json.dumps(message).encode())
        except OSError:
            pass
        sys.exit(1)


if __name__ == "__main__":
    main()
