"""What all objects of the API share: attributes that are read, a text, identity."""

from __future__ import annotations

from abc import ABC, abstractmethod

from walt.client.scripting.texts import Shown, attributes, block, methods, short_of

TYPE_CHECKING = False  # importing typing costs every script 5 ms
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, NoReturn

    from walt.client.scripting.texts import Section

SELF = "  # yourself"
FREE = "  # node is free"


class ApiObject(Shown):
    """An object whose properties can be read, and nothing be assigned to it."""

    def __setattr__(self, name: str, value: object) -> None:
        if name.startswith("_"):
            object.__setattr__(self, name, value)
        elif isinstance(getattr(type(self), name, None), property):
            raise AttributeError(f"{name!r} of {self._title} can only be read")
        else:
            self._unknown(name)

    def _unknown(self, name: str) -> NoReturn:
        raise AttributeError(f"{self._title} has no attribute {name!r}")

    @classmethod
    def _readable(cls) -> list[str]:
        """Return the names of the attributes that its text shows."""
        return [
            name for name in dir(cls)
            if not name.startswith("_") and isinstance(getattr(cls, name), property)
        ]

    def _comments(self) -> dict[str, str]:
        """Return what is added after attributes, by name."""
        return {}

    def _sections(self) -> Iterable[Section]:
        comments = self._comments()
        values = {
            name: short_of(self, name) + comments.get(name, "") for name in self._readable()
        }
        yield "read-only attributes", attributes(values)
        yield "methods", methods(type(self))

    def __repr__(self) -> str:
        return block(self._title, self._sections())


class Item(ApiObject, ABC):
    """A node or an image: one object each, so that equal names are the same object."""

    _gone = False
    _kind = "item"

    @property
    @abstractmethod
    def name(self) -> str:
        """Its name, which may change."""

    def _check(self) -> None:
        if self._gone:
            raise ReferenceError(f"this {self._kind} was removed")

    def __copy__(self) -> Item:
        return self

    def __deepcopy__(self, memory: dict[int, Any]) -> Item:
        return self
