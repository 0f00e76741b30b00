"""Statistical (non-neural, compressor-style) character language models.

    import charstat

    text = charstat.open_corpus("sample")
    model = charstat.build_model(text.text("train"), order=8)
    result = charstat.evaluate(model.stream(), text.text("val"))

The names in __all__ are the public surface. They are imported on first use, so that `import charstat` costs next to nothing.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from charstat.kernel_cache import drop_stale_kernels, provide_cache

__version__ = "0.1.0"

drop_stale_kernels(Path(__file__).parent)
provide_cache(Path(__file__).parent)

if TYPE_CHECKING:
    from charstat.advice import Advice
    from charstat.alphabet import Alphabet
    from charstat.auditing.checks import audit
    from charstat.auditing.report import AuditReport
    from charstat.charmodel_api import CharModel, EvalResult, evaluate
    from charstat.codec.stream import Decoder, Encoder
    from charstat.corpus import Corpus, HubUnavailable, open_corpus
    from charstat.counting import build_model
    from charstat.energy import EnergyMeter, EnergyReport
    from charstat.errors import (
        ArgumentError,
        AuditFailed,
        BackendUnavailable,
        CharstatError,
        ContextError,
        CorpusError,
        FormatError,
        GateMissed,
        MergeError,
        ResourceError,
        StateError,
        UserError,
    )
    from charstat.hints import tilt
    from charstat.model import Model
    from charstat.ngram.contexts import Context, select_contexts
    from charstat.pipeline import Progress
    from charstat.token_bridge import TokenBridge
    from charstat.tokens.model import TokenModel, build_tokens
    from charstat.tokens.stream import TokenStream

_HOMES = {
    "charstat.tokens.model": ("TokenModel", "build_tokens"),
    "charstat.tokens.stream": ("TokenStream",),
    "charstat.advice": ("Advice",),
    "charstat.alphabet": ("Alphabet",),
    "charstat.auditing.checks": ("audit",),
    "charstat.auditing.report": ("AuditReport",),
    "charstat.charmodel_api": ("CharModel", "EvalResult", "evaluate"),
    "charstat.codec.stream": ("Decoder", "Encoder"),
    "charstat.corpus": ("Corpus", "HubUnavailable", "open_corpus"),
    "charstat.counting": ("build_model",),
    "charstat.energy": ("EnergyMeter", "EnergyReport"),
    "charstat.errors": (
        *("ArgumentError", "AuditFailed", "BackendUnavailable", "CharstatError", "ContextError", "CorpusError", "FormatError"),
        *("GateMissed", "MergeError", "ResourceError", "StateError", "UserError"),
    ),
    "charstat.hints": ("tilt",),
    "charstat.model": ("Model",),
    "charstat.ngram.contexts": ("Context", "select_contexts"),
    "charstat.pipeline": ("Progress",),
    "charstat.token_bridge": ("TokenBridge",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Advice",
    "Alphabet",
    "ArgumentError",
    "AuditFailed",
    "AuditReport",
    "BackendUnavailable",
    "CharModel",
    "CharstatError",
    "Context",
    "ContextError",
    "Corpus",
    "CorpusError",
    "Decoder",
    "Encoder",
    "EnergyMeter",
    "EnergyReport",
    "EvalResult",
    "FormatError",
    "GateMissed",
    "HubUnavailable",
    "MergeError",
    "Model",
    "Progress",
    "ResourceError",
    "StateError",
    "TokenBridge",
    "TokenModel",
    "TokenStream",
    "UserError",
    "audit",
    "build_model",
    "build_tokens",
    "evaluate",
    "open_corpus",
    "select_contexts",
    "tilt",
]


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME_OF[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
