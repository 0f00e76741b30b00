"""Entering cybertronai/wikitext: one self-contained submission.py, and a runner with the contest's rules.

presets.py       what a submission counts, and how it is chosen from the training text
wheel.py         the package as a wheel, the same bytes from the same sources
bundle.py        writes submission.py from template.py, with the wheel in it
environment.py   in the submission: numba and CuPy, installed into a private directory where they are missing
entry.py         in the submission: warm-up, train(), and the model that the contest's runner drives
runner.py        `charstat contest`: drives a submission in a child process (child.py) and meters it from outside
"""
