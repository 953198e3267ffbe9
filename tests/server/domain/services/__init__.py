"""Tests. Examples have no time limit: other work on the machine proves nothing."""

from hypothesis import settings

settings.register_profile("walt", deadline=None)
settings.load_profile("walt")
