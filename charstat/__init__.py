"""Statistical (non-neural, compressor-style) character language models."""

__version__ = "0.1.0"
