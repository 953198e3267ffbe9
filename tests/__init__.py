"""Tests; each of them also fails when the server blocks its reactor (see tests.guard)."""

from hypothesis import settings

from tests.guard import install_under_trial

install_under_trial()
# Timing is never asserted: a busy machine is no failure.
settings.register_profile("walt", deadline=None)
settings.load_profile("walt")
