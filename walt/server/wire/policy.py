"""Who may call what: the one table of design D7."""

from __future__ import annotations

from typing import Literal

# `encrypted` is TLS without a certificate: somebody who is about to enrol.
Origin = Literal["unix", "certificate", "revoked", "encrypted", "walt-net", "elsewhere"]

SIDES: dict[Origin, frozenset[str]] = {
    "unix": frozenset({"cs", "ss"}),
    "certificate": frozenset({"cs"}),
    "revoked": frozenset(),
    "encrypted": frozenset({"enrol"}),
    "walt-net": frozenset({"ns", "vs"}),
    "elsewhere": frozenset(),
}

# Origins whose client-only stream requests (logs out, shells) are accepted.
TRUSTED: frozenset[Origin] = frozenset({"unix", "certificate"})

# `security.remote-clients: open` restores the original's behaviour (design D7).
OPEN_SIDES: dict[Origin, frozenset[str]] = {
    **SIDES,
    "encrypted": frozenset({"enrol", "cs"}),
    "walt-net": frozenset({"ns", "vs", "cs"}),
    "elsewhere": frozenset({"cs"}),
}
OPEN_TRUSTED = TRUSTED | {"encrypted", "walt-net", "elsewhere"}


def refusal(origin: Origin) -> str:
    """Return what to tell a peer that calls what it may not."""
    if origin == "revoked":
        return "the certificate was revoked or has expired: enrol again"
    if origin == "unix":
        return "it is for nodes"
    return "clients of other machines need a certificate of this platform"


def sides(origin: Origin, open_to_all: bool) -> frozenset[str]:
    """Return the sides of the schema that a peer may call."""
    return (OPEN_SIDES if open_to_all else SIDES)[origin]


def trusted(origin: Origin, open_to_all: bool) -> bool:
    """Tell whether a peer may make client stream requests."""
    return origin in (OPEN_TRUSTED if open_to_all else TRUSTED)
