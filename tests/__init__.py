"""Tests; each of them also fails when the server blocks its reactor (see tests.guard)."""

from tests.guard import install_under_trial

install_under_trial()
