"""The person or program on whose behalf something is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from zope.interface import Attribute, Interface, implementer

# The user whose call is being served; None: the platform does something by itself. What a call
# starts inherits it (Twisted's coroutines keep their context).
acting: ContextVar[str | None] = ContextVar("acting", default=None)


@contextmanager
def by_itself() -> Iterator[None]:
    """What is done within is the platform's own deed: it would have seen it without the call."""
    token = acting.set(None)
    try:
        yield
    finally:
        acting.reset(token)


class IRequester(Interface):
    """Where the texts about a request go. Nothing waits, nothing fails."""

    username = Attribute("the WalT user (text)")

    def stdout(text: str) -> None:
        """Show a line on the requester's standard output."""

    def stderr(text: str) -> None:
        """Show a line on the requester's standard error."""

    def busy(label: str) -> None:
        """Change what a busy indicator shows; empty: the default."""

    def progress(text: str) -> None:
        """Tell how a long task goes: a terminal shows the last text, others all of them."""

    def at_end(action: Callable[[], object]) -> None:
        """Call `action` once the requester is gone."""


@implementer(IRequester)
class NobodyWaits:
    """A requester for what the server does by itself."""

    username = ""

    def stdout(self, text: str) -> None:
        """Drop the text: nobody reads it."""

    def stderr(self, text: str) -> None:
        """Drop the text: nobody reads it."""

    def busy(self, label: str) -> None:
        """Drop the label: nobody sees it."""

    def progress(self, text: str) -> None:
        """Drop the text: nobody sees it."""

    def at_end(self, action: Callable[[], object]) -> None:
        """Forget it: the server itself does not leave."""
