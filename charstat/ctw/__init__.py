"""Context-tree weighting over symbol contexts with binary decomposition."""

from charstat.ctw.model import TUNED as CTW_TUNED
from charstat.ctw.model import ContextTreeWeighting

__all__ = ["CTW_TUNED", "ContextTreeWeighting"]
