"""JSON of other programs, whose values can be written down again."""

import json
from math import isfinite
from typing import Any

LARGEST = (1 << 63) - 1  # greater numbers end in errors of whoever counts with them


def load_json(data: bytes | str) -> Any:
    r"""Return the value of a JSON text. Raises ValueError for what is none.

    Halves of surrogate pairs (`"\ud800"`) are no characters: programs and databases
    refuse them, and json.loads does not. Numbers that no 64 bits hold, NaN and
    Infinity are refused, and what is nested more deeply than Python's parser can follow.
    """
    try:
        value = json.loads(data, parse_int=_whole, parse_float=_real, parse_constant=_constant)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None
    raw = data.encode(errors="surrogatepass") if isinstance(data, str) else data
    if b"\\ud" in raw.lower() or b"\xed" in raw:  # the two ways to write one
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _whole(text: str) -> int:
    number = int(text)  # of more than 4,300 digits it is a ValueError itself
    if abs(number) > LARGEST:
        raise ValueError("a number of the JSON is too large")
    return number


def _real(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise ValueError("a number of the JSON is too large")
    return number


def _constant(text: str) -> float:
    raise ValueError(f"{text} is not a number in JSON")
