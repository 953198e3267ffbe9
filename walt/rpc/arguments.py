"""Typed arguments of the AMP commands.

Long values need nothing special here: the protocol splits and joins them
(`walt.rpc.base`). Wrong values raise Invalid while parsing, so the caller
gets a clear error and the connection lives on.
"""

from __future__ import annotations

import ipaddress
import json
import math
from typing import Any

from twisted.protocols import amp

from walt.common.errors import Invalid
from walt.common.names import is_mac
from walt.common.texts import LARGEST, load_json
from walt.rpc.shapes import Shape

MAX_DIGITS = 40  # characters of a number
MOST_NAMES = 50_000  # as in a set of devices (docs/limits.md)


class Text(amp.Argument):
    """A text in UTF-8, at most `limit` characters, without NUL."""

    def __init__(self, limit: int = 4096, optional: bool = False) -> None:
        super().__init__(optional=optional)
        self.limit = limit

    def fromString(self, inString: bytes) -> str:
        try:
            text = inString.decode()
        except UnicodeDecodeError:
            raise Invalid("not valid UTF-8") from None
        if len(text) > self.limit or "\0" in text:
            raise Invalid(f"a NUL, or more than {self.limit} characters")
        return text

    def toString(self, inObject: str) -> bytes:
        return inObject.encode(errors="replace")


class Integer(amp.Argument):
    """A whole number of 64 bits."""

    def fromString(self, inString: bytes) -> int:
        number = int(inString) if len(inString) <= MAX_DIGITS else LARGEST + 1
        if abs(number) > LARGEST:
            raise Invalid("the number is too large")
        return number

    def toString(self, inObject: int) -> bytes:
        return b"%d" % inObject


class Float(amp.Argument):
    """A number; neither infinite nor NaN."""

    def fromString(self, inString: bytes) -> float:
        number = float(inString) if len(inString) <= MAX_DIGITS else math.inf
        if not math.isfinite(number):
            raise Invalid("it must be a finite number")
        return number

    def toString(self, inObject: float) -> bytes:
        return repr(float(inObject)).encode()


class Written:
    """A JSON value that is written already: `parts`, in UTF-8."""

    def __init__(self, *parts: bytes) -> None:
        self.parts = parts


class Json(amp.Argument):
    """Any JSON value; tables and lists travel so (design §8). `shape` is that of answers."""

    def __init__(self, shape: Shape | None = None, *, optional: bool = False) -> None:
        super().__init__(optional)
        self.shape = shape

    def fromString(self, inString: bytes) -> Any:
        try:
            return load_json(inString)
        except ValueError:
            raise Invalid("not valid JSON") from None

    def toString(self, inObject: Any) -> bytes | list[bytes]:
        if isinstance(inObject, Written):
            return [*inObject.parts]
        return json.dumps(inObject, separators=(",", ":")).encode()


class Names(Json):
    """A JSON list of texts, at most MOST_NAMES."""

    def fromString(self, inString: bytes) -> list[str]:
        value = super().fromString(inString)
        if (
            not isinstance(value, list) or len(value) > MOST_NAMES
            or not all(isinstance(text, str) and len(text) <= 4096 for text in value)
        ):
            raise Invalid("it must be a list of texts")
        return value


class Texts(Json):
    """A JSON object whose values are texts, at most MOST_NAMES of them."""

    def fromString(self, inString: bytes) -> dict[str, str]:
        value = super().fromString(inString)
        if (
            not isinstance(value, dict) or len(value) > MOST_NAMES
            or not all(isinstance(text, str) and len(text) <= 4096 for text in value.values())
        ):
            raise Invalid("it must be an object whose values are texts")
        return value


class Mac(Text):
    """A MAC address, lower case, colon separated."""

    def fromString(self, inString: bytes) -> str:
        text = super().fromString(inString).lower()
        if not is_mac(text):
            raise Invalid(f"{text[:40]!r} is not a MAC address like 52:54:00:12:34:56")
        return text


class IPAddress(Text):
    """An IPv4 address in dotted form."""

    def fromString(self, inString: bytes) -> str:
        text = super().fromString(inString)
        try:
            return str(ipaddress.IPv4Address(text))
        except ValueError:
            raise Invalid(f"{text[:40]!r} is not an IPv4 address") from None
