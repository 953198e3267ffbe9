"""Public keys of ssh in one line, as files `*.pub` have them (sshd(8), AUTHORIZED_KEYS)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections import namedtuple

# What ssh servers of nodes may know (RFC 5656, 8332, 8709; the last two need a touch of a token).
TYPES = (
    "ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521",
    "ssh-rsa", "sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com",
)
LEAST_RSA = 2048  # bits
MAX_LINE = 4096  # characters
MAX_COMMENT = 100
# The end of each line that walt/node/walt-user-keys writes into authorized_keys of a node.
USER_KEY = b" walt-user-key"
_LINE = re.compile(r"(\S+)[ \t]+(\S+)(?:[ \t]+(.*))?")


class PublicKey(namedtuple("PublicKey", ("algorithm", "data", "comment"))):
    """One key: its algorithm, its bytes in base 64, and what its owner calls it."""

    __slots__ = ()

    @property
    def text(self) -> str:
        """The key without its comment: two words."""
        return f"{self.algorithm} {self.data}"

    @property
    def fingerprint(self) -> str:
        """What ssh-keygen -l prints of it: SHA256:…"""
        digest = hashlib.sha256(base64.b64decode(self.data)).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def without_user_keys(data: bytes) -> bytes:
    """Return the content of a file authorized_keys without what WalT put there for one node.

    An image made of it must not let the same people in elsewhere.
    """
    return b"".join(
        line for line in data.splitlines(keepends=True) if not line.rstrip().endswith(USER_KEY)
    )


def parse(line: str) -> PublicKey:
    """Return the key that a line holds. Raises ValueError with a sentence.

    Options before the key (command="…", from="…") are refused: they would act on nodes.
    """
    text = line.strip()
    if "PRIVATE KEY" in text:
        raise ValueError("this is a private key: keep it, and give the file that ends with .pub")
    if len(text) > MAX_LINE:
        raise ValueError(f"a public key has {MAX_LINE} characters at most")
    if any(ord(char) < 32 and char != "\t" for char in text):
        raise ValueError("a public key is one line")
    found = _LINE.fullmatch(text)
    if found is None:
        raise ValueError("this is not a public key: a line like `ssh-ed25519 AAAA… name`")
    algorithm, data, comment = found[1], found[2], found[3] or ""
    if algorithm not in TYPES:
        raise ValueError(
            f"{algorithm[:40]!r} is not a kind of key that nodes take, which are"
            f" {', '.join(TYPES[:5])}; options before the key are refused"
        )
    _check(algorithm, data)
    shown = "".join(char for char in comment if char.isprintable()).strip()
    return PublicKey(algorithm, data, shown[:MAX_COMMENT])


def _check(algorithm: str, data: str) -> None:
    """Raise ValueError unless the data are a key of this algorithm (RFC 4253 §6.6)."""
    try:
        raw = base64.b64decode(data, validate=True)
        parts = _strings(raw)
    except (binascii.Error, ValueError):
        raise ValueError("the key is damaged: its second word is not a key") from None
    if base64.b64encode(raw).decode() != data or not parts or parts[0] != algorithm.encode():
        raise ValueError("the key is damaged: its two words do not belong together")
    if algorithm == "ssh-rsa":
        bits = int.from_bytes(parts[2], "big").bit_length() if len(parts) == 3 else 0
        if bits < LEAST_RSA:
            raise ValueError(f"RSA keys need {LEAST_RSA} bits at least, this one has {bits}")
    elif len(parts) < 2 or not all(parts):
        raise ValueError("the key is damaged: it has no key in it")


def _strings(raw: bytes) -> list[bytes]:
    """Return the strings of a blob, each after its length (RFC 4251 §5). Raises ValueError."""
    found = []
    while raw:
        size = int.from_bytes(raw[:4], "big")
        if len(raw) < 4 + size:
            raise ValueError("cut off")
        found.append(raw[4:4 + size])
        raw = raw[4 + size:]
    return found
