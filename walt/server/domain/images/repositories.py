"""Addresses of git repositories that people may have the server read."""

from __future__ import annotations
from typing import NamedTuple

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import unquote

from walt.common.errors import Invalid

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MAX_URL = 2000
# A name, or an address in brackets: what each reader of an address takes in the same way.
# ssh gets account, host and path as arguments: none of them may look like an option.
_HOST = r"(?P<host>[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}|\[[0-9A-Fa-f:.]{2,45}\])"
_URL = re.compile(
    r"(?P<scheme>git|https?|ssh)://(?:(?P<user>[A-Za-z0-9._~!$&'()*+,;=:][^\s\x00-\x1f/?#@\\]*)@)?"
    + _HOST + r"(?::(?P<port>[0-9]{1,5}))?(?P<path>/[^\s\x00-\x1f]*)"
)
_SHORT = re.compile(
    r"(?P<user>[A-Za-z0-9_.][A-Za-z0-9._-]*)@(?P<host>[A-Za-z0-9][A-Za-z0-9.-]{0,252})"
    r":[^\s\x00-\x1f-][^\s\x00-\x1f]*"
)
PORTS = {"git": 9418, "http": 80, "https": 443, "ssh": 22}
# One text for all reasons: what answers where is nobody's business.
NOT_FETCHED = (
    "the repository cannot be fetched: nothing answers at this address, or no git repository"
    " that everybody may read. The server follows no redirection, and reads nothing from itself"
    " nor from the network of the nodes, unless server.conf (images.git-networks) says so"
)


class Repository(NamedTuple):
    """A repository: how it is reached, and where; `port` is None for the usual one.

    `url` is without the account of HTTP, which `login` and `password` are.
    """

    url: str
    scheme: str
    host: str  # without brackets
    port: int | None
    login: str = ""
    password: str = ""

    @property
    def where(self) -> str:
        """Host and port, as known_hosts(5) names them."""
        return self.host if self.port is None else f"[{self.host}]:{self.port}"

    def at(self, address: Address) -> str:
        """Return the URL with an address in place of the name of the host."""
        match = _URL.fullmatch(self.url)
        assert match is not None
        start, end = match.span("host")
        text = f"[{address}]" if address.version == 6 else str(address)
        return self.url[:start] + text + self.url[end:]


def parse_repository(url: str) -> Repository:
    """Return a repository. Raises Invalid."""
    match = None
    if len(url) <= MAX_URL:
        match = _URL.fullmatch(url) or _SHORT.fullmatch(url)
    if match is None or int(match.groupdict().get("port") or 1) not in range(1, 65536):
        raise Invalid(
            f"{url[:200]!r} is not the address of a git repository"
            " (https://…, http://…, git://…, ssh://… or user@host:path)"
        )
    found = match.groupdict()
    scheme, port, account = found.get("scheme") or "ssh", found.get("port"), found["user"] or ""
    login, colon, password = account.partition(":")
    if scheme in ("http", "https") and account:
        start, end = match.span("user")
        url = url[:start] + url[end + 1:]  # the @, too
        login, password = _word(login), _word(password)
    elif colon:
        raise Invalid(f"a password cannot be given in an address of {scheme}")
    else:
        login = ""
    return Repository(
        url, scheme, found["host"].strip("[]"), None if port is None else int(port),
        login, password,
    )


def _word(text: str) -> str:
    """Return a part of an account, decoded; it must be one word of netrc(5). Raises Invalid."""
    word = unquote(text)
    if not re.fullmatch(r"[!-~]*", word) or '"' in word or "\\" in word:
        raise Invalid(
            "names and passwords in addresses may have neither spaces nor quotes, nor letters"
            " beyond those of English"
        )
    return word


def may_be_read(
    address: Address, closed: Iterable[Network], own: Sequence[Address],
    allowed: Iterable[Network],
) -> bool:
    """Tell whether a repository may be read from an address.

    Not from this machine (`own` are its addresses), links and multicast, nor from `closed`
    networks; from `allowed` ones whatever they are.
    """
    plain = _unwrapped(address)
    if any(plain in network for network in allowed):
        return True
    return not (
        plain.is_loopback or plain.is_link_local or plain.is_unspecified or plain.is_multicast
        or plain in own or any(plain in network for network in closed)
    )


def _unwrapped(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 one stands for, if it does (mapped, 6to4, NAT64)."""
    if isinstance(address, IPv4Address):
        return address
    embedded = address.ipv4_mapped or address.sixtofour
    if embedded is None and address in _NAT64:
        embedded = IPv4Address(int(address) & 0xFFFFFFFF)
    return embedded or address


_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052 §2.1


def parse_addresses(text: str) -> list[Address]:
    """Return the addresses at the start of lines (getent(1) ahosts), each once, in order."""
    found: dict[Address, None] = {}
    for line in text.splitlines():
        word = line.split()[0].split("%")[0] if line.strip() else ""
        try:
            found[ip_address(word)] = None
        except ValueError:
            continue
    return list(found)
