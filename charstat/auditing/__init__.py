"""Does a model charge honestly for the text that it predicts? See checks.py for what is asked, subject.py for what can be asked."""

DEFAULT_CHARS, DEFAULT_PROBES, DEFAULT_POSITIONS, DEFAULT_TOLERANCE = 2000, 1000, 16, 1e-5
