"""Several people who use one platform at random for some minutes, and what must hold afterwards.

`python -m tests.crowd --seed 7 --minutes 10` runs one crowd and prints how long its
commands took; `tests.system.test_crowd` is a short one.
"""
