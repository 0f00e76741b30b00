"""The exceptions of charstat, in one tree. Each class carries the exit status of the command line.

CharstatError                  1  something failed inside charstat; BrokenSubmission (contest/channel.py)
├── UserError                  2  an error in what was asked for: no traceback is shown
│   ├── ArgumentError             an argument of the wrong type, or a value that has no meaning
│   ├── CorpusError               text that is missing, unreadable, or not UTF-8; HubUnavailable (corpus.py)
│   ├── ContextError              an order, preset or context name that does not exist
│   ├── FormatError               a model or compressed file that is foreign, truncated or damaged
│   ├── MergeError                models that cannot be added up
│   ├── BackendUnavailable        a backend that this machine cannot run
│   ├── ResourceError             not enough memory, or a disk that is full or read-only
│   └── StateError                stream steps in an order that has no meaning (predict before reset)
├── GateMissed                 4  the model works, but its accuracy is below the gate
└── AuditFailed                5  an audit caught the model charging less than it may

DeviceMemoryError, a MemoryError, stays inside the GPU backend: what does not fit there is counted on the CPU.
"""

DEVICE_PACKAGES = ("cupy", "cupy_backends")


class CharstatError(Exception):
    """Base of every error that charstat raises on purpose."""

    exit_code = 1


class UserError(CharstatError):
    """An error in what the caller asked for; its message says how to fix it."""

    exit_code = 2


class ArgumentError(UserError, TypeError, ValueError):
    """An argument of a type, or with a value, that has no meaning."""


class CorpusError(UserError):
    """Text that is missing, unreadable, or not UTF-8."""


class ContextError(UserError, ValueError):
    """An order, preset or context name that does not exist."""


class FormatError(UserError):
    """A model directory or a compressed file that is foreign, truncated, damaged or tampered with."""


class MergeError(UserError):
    """Models that cannot be added up (other alphabet, contexts or word features)."""


class BackendUnavailable(UserError):
    """A counting backend that this machine cannot run."""


class ResourceError(UserError):
    """Not enough memory, or a disk that is full or read-only."""


class StateError(UserError, RuntimeError):
    """Stream steps in an order that has no meaning, such as predict() before reset()."""


class GateMissed(CharstatError):
    """The accuracy is below the gate."""

    exit_code = 4


class DeviceMemoryError(MemoryError):
    """A GPU has too little memory for a step."""


def raised_by_device(error: BaseException) -> bool:
    """Whether CuPy or CUDA raised it, or the GPU backend for want of device memory.

    Told by where the type comes from, not by what it derives from: a time limit is often a RuntimeError, as CuPy's errors are,
    and must never be taken for one.
    """
    return isinstance(error, (BackendUnavailable, DeviceMemoryError)) or type(error).__module__.split(".")[0] in DEVICE_PACKAGES


class AuditFailed(CharstatError):
    """An audit caught the model: what it charges is not what an honest model may charge."""

    exit_code = 5
