"""Sets of nodes and of images: mappings by name, whose iteration gives the objects."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar, overload

from walt.client.scripting.objects import ApiObject, Item
from walt.client.scripting.shortcuts import shortcuts
from walt.client.scripting.texts import methods, short

TYPE_CHECKING = False  # importing typing costs every script 5 ms
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from walt.client.scripting.texts import Section

One = TypeVar("One", bound=Item)
NOTE = (
    "self.<shortcut> is another way to get a sub-item: names as Python writes them,",
    "found by completion; see self.__shortcut_names__().",
)


class ItemSet(ApiObject, ABC, Generic[One]):
    """Items in the order of their names. What is removed leaves all sets, names follow."""

    _plural = "items"

    def __init__(self, items: Iterable[One]) -> None:
        self._items = list(dict.fromkeys(items))

    @property
    def _title(self) -> str:  # type: ignore[override]
        return f"Set of WalT {self._plural} ({len(self)} items)"

    def _named(self) -> dict[str, One]:
        found = {member.name: member for member in self._items if not member._gone}
        return dict(sorted(found.items()))

    # -- as a mapping -------------------------------------------------------

    def keys(self) -> list[str]:
        """Return the names of the items"""
        return list(self._named())

    def values(self) -> list[One]:
        """Return the items"""
        return list(self._named().values())

    def items(self) -> list[tuple[str, One]]:
        """Return pairs of name and item"""
        return list(self._named().items())

    @overload
    def get(self, k: str) -> One | None: ...
    @overload
    def get(self, k: str, default: One) -> One: ...
    def get(self, k: str, default: One | None = None) -> One | None:
        """Return the item of this name, or the default value"""
        return self._named().get(k, default)

    def __getitem__(self, name: str) -> One:
        return self._named()[name]

    def __len__(self) -> int:
        return sum(not member._gone for member in self._items)

    def __iter__(self) -> Iterator[One]:
        return iter(self.values())

    def __contains__(self, wanted: object) -> bool:
        return wanted in (self._named() if isinstance(wanted, str) else self.values())

    # -- shortcuts ----------------------------------------------------------

    def __shortcut_names__(self) -> list[tuple[str, str]]:
        return list(shortcuts(self.keys()).items())

    def __getattr__(self, name: str) -> One:
        if not name.startswith("_"):
            for item, known in self.__shortcut_names__():
                if known == name:
                    return self[item]
        return self._unknown(name)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *(known for _, known in self.__shortcut_names__())]

    def _ipython_key_completions_(self) -> list[str]:
        return self.keys()

    # -- as a set -----------------------------------------------------------

    def filter(self, **attrs: object) -> ItemSet[One]:
        """Return the items whose attributes have the given values"""
        return type(self)(
            member for member in self._fresh()
            if all(getattr(member, name) == value for name, value in attrs.items())
        )

    def _fresh(self) -> list[One]:
        """Return the items, what is known of them being up to date."""
        return self.values()

    @abstractmethod
    def _others(self, other: object) -> list[One]:
        """Return the items of what an operator is given. Raises TypeError."""

    def __or__(self, other: object) -> ItemSet[One]:
        return type(self)([*self.values(), *self._others(other)])

    def __and__(self, other: object) -> ItemSet[One]:
        wanted = self._others(other)
        return type(self)(member for member in self.values() if member in wanted)

    def __ior__(self, other: object) -> ItemSet[One]:
        self._items = list(dict.fromkeys([*self.values(), *self._others(other)]))
        return self

    def __iand__(self, other: object) -> ItemSet[One]:
        self._items = (self & other).values()
        return self

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ItemSet):
            return NotImplemented
        return self.values() == other.values()

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.values(),)

    # -- as a text ----------------------------------------------------------

    def _sections(self) -> Iterable[Section]:
        yield "methods", methods(type(self))
        found = [f"- self[{name!r}]: {short(item)}" for name, item in self.items()]
        yield "sub-items", found
        yield "note", NOTE if found else ()

    def _repr_html_(self) -> str:
        from html import escape

        rows = "".join(
            f"<tr><td>{escape(name)}</td><td>{escape(short(item))}</td></tr>"
            for name, item in self.items()
        )
        return f"<table><caption>{escape(self._title)}</caption>{rows}</table>"
