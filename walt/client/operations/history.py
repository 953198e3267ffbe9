"""History ranges (spec user-surface §1.4)."""

from __future__ import annotations

from walt.client.errors import WRONG_WORDS, Failure, Refused

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from walt.client.calls import Calls

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
HINT = "See `walt help show log-history`."


def parse_range(session: Calls, text: str) -> tuple[float | None, float | None]:
    """Return (start, end) in epoch seconds, None for an open bound.

    Raises Failure for a malformed range, an unknown checkpoint, or a start after the end.
    """
    if text.lower() == "full":
        return None, None
    before, colon, after = text.partition(":")
    if not colon or ":" in after:
        raise Failure(f"invalid HISTORY_RANGE: {text!r}. {HINT}", WRONG_WORDS)
    start, end = _bound(session, before), _bound(session, after)
    if start is not None and end is not None and start > end:
        raise Failure(
            f"the start of this range is after its end: invalid HISTORY_RANGE. {HINT}", WRONG_WORDS
        )
    return start, end


def _bound(session: Calls, text: str) -> float | None:
    if not text:
        return None
    if text.startswith("-"):
        age = seconds(text)
        return float(session.call("cs.server.time")[b"time"]) - age
    try:
        return float(session.call("cs.logs.checkpoint_time", name=text)[b"time"])
    except Refused as error:
        raise Failure(f"{error}: invalid HISTORY_RANGE. {HINT}") from None


def seconds(text: str) -> int:
    """Return the seconds of a relative date like -5m. Raises Failure."""
    number, unit = text[1:-1], text[-1:]
    if not (number.isascii() and number.isdigit() and len(number) < 10) or unit not in UNITS:
        raise Failure(
            f"{text!r} is not a relative date; write for example -30s, -5m, -2h or -1d. {HINT}",
            WRONG_WORDS,
        )
    return int(number) * UNITS[unit]
