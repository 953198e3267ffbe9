"""How objects of the API show themselves (spec user-surface §2.7)."""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing costs every script 5 ms
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Section = tuple[str, Iterable[str]]

MAX_TITLE = 30
MAX_VALUE = 70


class Shown:
    """What has a title."""

    _title: str


def block(title: str, sections: Iterable[Section]) -> str:
    """Return `< … >` with a title and those sections that have lines."""
    parts = [f"< -- {title} --", ""]
    for label, lines in sections:
        found = list(lines)
        if found:
            parts += [f"  {label}:", *(f"  {line}" for line in found), ""]
    if parts[-1] == "":
        parts.pop()
    return "\n".join([*parts, ">"])


def attributes(values: Mapping[str, str]) -> list[str]:
    """Return a line for each attribute and its short text, in alphabetical order."""
    return [f"- self.{name}: {text}" for name, text in sorted(values.items())]


def short(value: object) -> str:
    """Return the short text of a value."""
    if isinstance(value, Shown):
        title = value._title
        return f"<{title if len(title) <= MAX_TITLE else title[:MAX_TITLE - 1] + '…'}>"
    if isinstance(value, list):
        return f"[{', '.join(map(short, value))}]"
    text = repr(value)
    return text if len(text) <= MAX_VALUE else text[:MAX_VALUE - 3] + "..."


def short_of(item: object, name: str) -> str:
    """Return the short text of an attribute; of a failure its words."""
    try:
        return short(getattr(item, name))
    except Exception as error:
        return f"<{error}>"


def methods(kind: type) -> list[str]:
    """Return a line for each public method of a class: its parameters, and what it is for."""
    from inspect import Parameter, getmembers, isfunction, signature

    lines = []
    for name, function in getmembers(kind, isfunction):
        if name.startswith("_"):
            continue
        known = signature(function)
        bare = known.replace(
            parameters=[
                parameter.replace(annotation=Parameter.empty)
                for parameter in known.parameters.values()
            ],
            return_annotation=known.empty,
        )
        summary = (function.__doc__ or "").strip().partition("\n")[0]
        lines.append(f"- self.{name}{bare}: {summary}")
    return lines
