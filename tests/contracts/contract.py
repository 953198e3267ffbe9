"""What contract suites are: mixed into test cases, whose methods they use."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted.trial.unittest import TestCase as Contract
else:

    class Contract:
        """Nothing of its own: a suite is run by the case of each implementation."""
