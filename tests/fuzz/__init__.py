"""Hostile input: a corpus that every run replays, and targets for a coverage-guided fuzzer.

`python -m tests.fuzz TARGET [options of libFuzzer]` needs the package atheris.
"""
