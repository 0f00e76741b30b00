"""Texts that come in many files, or from a data set of the hub: listed, ordered, decompressed, and read piece by piece."""
