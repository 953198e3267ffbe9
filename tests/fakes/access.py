"""A certificate authority and a store of certificates, in memory."""

from __future__ import annotations

from zope.interface import implementer

from walt.common.errors import Invalid
from walt.server.domain.access.interfaces import (
    IAuthority,
    ICertificateStore,
    IPeerAccounts,
    IWebSessionStore,
)
from walt.server.domain.access.model import Certificate, Holder, Issued
from walt.server.domain.access.web_model import WebSession


@implementer(IAuthority)
class FakeAuthority:
    """Signs any request that says `request`, or is one in PEM."""

    digest = "0123456789abcdef" * 4

    def __init__(self) -> None:
        self.generation = 1
        self.made = 0

    def fingerprint(self) -> str:
        return self.digest

    def authority(self) -> str:
        return f"authority {self.generation}"

    def issue(self, holder: Holder, request: str, now: float, lifetime: float) -> Issued:
        if "request" not in request.lower():
            raise Invalid("the certificate request cannot be read")
        self.made += 1
        one = Certificate(f"{self.made:x}", holder, now, now + lifetime)
        return Issued(one, "certificate", self.authority())

    def rotate(self, now: float) -> None:
        self.generation += 1


@implementer(ICertificateStore)
class FakeCertificates:
    """Keeps them by serial."""

    def __init__(self) -> None:
        self.kept: dict[str, Certificate] = {}

    async def load(self) -> list[Certificate]:
        return list(self.kept.values())

    async def add(self, certificate: Certificate) -> None:
        self.kept[certificate.serial] = certificate

    async def revoke(self, serials: list[str], moment: float) -> None:
        for serial in serials:
            self.kept[serial] = self.kept[serial]._replace(revoked=moment)


@implementer(IWebSessionStore)
class FakeWebSessions:
    """Keeps them in a list; `kept` may be looked at."""

    def __init__(self) -> None:
        self.kept: list[WebSession] = []

    async def load(self) -> list[WebSession]:
        return list(self.kept)

    async def save(self, sessions: list[WebSession]) -> None:
        self.kept = list(sessions)


@implementer(IPeerAccounts)
class FakePeerAccounts:
    """Knows `open` connections by both ports."""

    def __init__(self) -> None:
        self.open: dict[tuple[int, int], int] = {}

    def uid_of(self, port: int, own_port: int) -> int | None:
        return self.open.get((port, own_port))
