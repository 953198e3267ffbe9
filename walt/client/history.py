"""History ranges (spec user-surface §1.4)."""

from __future__ import annotations

from walt.client.errors import Failure, Refused

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
HINT = "See `walt help show log-history`."


def parse_range(session, text):
    """Return (start, end) in epoch seconds, None for an open bound.

    Raises Failure for a malformed range, an unknown checkpoint, or a start after the end.
    """
    if text.lower() == "full":
        return None, None
    start, colon, end = text.partition(":")
    if not colon or ":" in end:
        raise Failure(f"invalid HISTORY_RANGE: {text!r}. {HINT}")
    bounds = _bound(session, start), _bound(session, end)
    if None not in bounds and bounds[0] > bounds[1]:
        raise Failure(f"the start of this range is after its end: invalid HISTORY_RANGE. {HINT}")
    return bounds


def _bound(session, text):
    if not text:
        return None
    if text.startswith("-"):
        return float(session.call("cs.server.time")[b"time"]) - seconds(text)
    try:
        return float(session.call("cs.logs.checkpoint_time", name=text)[b"time"])
    except Refused as error:
        raise Failure(f"{error}: invalid HISTORY_RANGE. {HINT}") from None


def seconds(text):
    """Return the seconds of a relative date like -5m. Raises Failure."""
    number, unit = text[1:-1], text[-1:]
    if not (number.isascii() and number.isdigit()) or unit not in UNITS:
        raise Failure(
            f"{text!r} is not a relative date; write for example -30s, -5m, -2h or -1d. {HINT}"
        )
    return int(number) * UNITS[unit]
