"""Does a model charge honestly for the text that it predicts? See checks.py for what is asked, subject.py for what can be asked."""
