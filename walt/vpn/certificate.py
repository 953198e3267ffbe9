"""What a certificate of OpenSSH says of itself (OpenSSH's PROTOCOL.certkeys)."""

from __future__ import annotations

import base64
import binascii

# The strings of the public key, between the nonce and the serial number, by kind of key.
_PARTS = {
    "ssh-ed25519": 1, "ecdsa-sha2-nistp256": 2, "ecdsa-sha2-nistp384": 2,
    "ecdsa-sha2-nistp521": 2, "ssh-rsa": 2, "rsa-sha2-256": 2, "rsa-sha2-512": 2,
}
_SUFFIX = "-cert-v01@openssh.com"
FOREVER = (1 << 64) - 1


def facts(algorithm: str, data: str) -> tuple[str, float | None]:
    """Return the identity in a certificate, and when it ends in epoch seconds (None: never).

    `data` is in base 64. Raises ValueError for what is no certificate. Nothing is verified.
    """
    parts = _PARTS.get(algorithm.removesuffix(_SUFFIX))
    if parts is None or not algorithm.endswith(_SUFFIX):
        raise ValueError("not a certificate of a kind that is known")
    try:
        rest = base64.b64decode(data, validate=True)
    except binascii.Error:
        raise ValueError("the certificate is damaged") from None
    for _ in range(2 + parts):  # the kind, the nonce, the key
        _, rest = _string(rest)
    identity, rest = _string(rest[12:])  # behind the serial number and the type
    _, rest = _string(rest)  # the principals
    if len(rest) < 16:
        raise ValueError("the certificate is cut off")
    end = int.from_bytes(rest[8:16], "big")
    return identity.decode("utf-8", "replace"), None if end == FOREVER else float(end)


def _string(data: bytes) -> tuple[bytes, bytes]:
    size = int.from_bytes(data[:4], "big")
    if len(data) < 4 + size or len(data) < 4:
        raise ValueError("the certificate is cut off")
    return data[4:4 + size], data[4 + size:]


def of_session(path: str) -> tuple[str, float | None]:
    """Return these facts of the certificate by which a session of sshd was opened.

    `path` is the file of SSH_USER_AUTH (ExposeAuthInfo, sshd_config(5)). Raises ValueError.
    """
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            lines = file.read(1 << 16).splitlines()
    except OSError as error:
        raise ValueError(f"no certificate: {error.strerror}") from None
    for line in lines:
        words = line.split()
        if len(words) >= 3 and words[0] == "publickey":
            return facts(words[1], words[2])
    raise ValueError("this session was not opened with a certificate")
