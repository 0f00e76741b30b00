"""Entering cybertronai/wikitext: one self-contained submission.py with its README.md, and a runner with the contest's rules.

presets.py       what a submission counts
sources.py       the definitions that the entry reaches: what a submission carries of the package
bundle.py        writes submission.py from template.py, with the sources in it, and README.md (statement.py, measured.json)
environment.py   in the submission: numba, installed into a private directory where it is missing; and CuPy (cuda.py)
entry.py         in the submission: warm-up, train(), and the model that the contest's runner drives
runner.py        `charstat contest`: drives a submission in a child process (channel.py, child.py) and meters it from outside (carbon.py)
articles.py      another way to choose text, for bench/gate_sweep.py
"""
