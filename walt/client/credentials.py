"""Accounts at registries: in the configuration file, or in a store of the system.

`walt.credential-helper: NAME` in the file makes the program `docker-credential-NAME` keep
the passwords (secretservice, pass, osxkeychain…): the protocol of the helpers of Docker,
one JSON object on standard input and output.
"""

from __future__ import annotations

import json
import re
import subprocess

from walt.client import config_file, settings
from walt.client.errors import Failure
from walt.common.errors import in_words

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Iterable

    Known = dict[str, dict[str, str]]

HELPER = "walt.credential-helper"
PATIENCE = 60.0  # seconds: the store may ask somebody to unlock it
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,40}")


def stored(labels: Iterable[str]) -> Known:
    """Return the accounts that are known, by label of their registry. Raises Failure."""
    values = settings.configured()
    found: Known = {}
    for label in labels:
        user = values.get(f"registries.{label}.username")
        hidden = values.get(f"registries.{label}.password")
        if user and hidden:
            password = _unmasked(hidden)
        elif user and values.get(HELPER):
            password = _from_helper(values[HELPER], label)
        else:
            continue
        if password is not None:
            found[label] = {"username": str(user), "password": password}
    return found


def keep(label: str, account: dict[str, str]) -> None:
    """Keep an account for the next time. Raises Failure."""
    helper = settings.configured().get(HELPER)
    hidden = None
    if helper:
        _run(helper, "store", json.dumps({
            "ServerURL": _place(label), "Username": account["username"],
            "Secret": account["password"],
        }))
    else:
        hidden = config_file.masked(account["password"].encode()).hex()
    config_file.update({
        f"registries.{label}.username": account["username"],
        f"registries.{label}.password": hidden,
    }, f"Credentials of {label} were")
    settings.forget_configuration()


def _unmasked(hidden: str) -> str | None:
    try:
        return config_file.masked(bytes.fromhex(hidden)).decode()
    except ValueError:
        return None


def _place(label: str) -> str:
    return f"https://{label}.registry.walt"


def _from_helper(helper: str, label: str) -> str | None:
    try:
        answer = json.loads(_run(helper, "get", _place(label)))
        return str(answer["Secret"])
    except (Failure, ValueError, KeyError, TypeError):
        return None  # it does not know this one: it is asked again


def _run(helper: str, action: str, text: str) -> str:
    if not _NAME.fullmatch(helper):
        raise Failure(f"{HELPER} in {config_file.path()} must be a word, not {helper[:80]!r}")
    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run(
            [program, action], input=text, capture_output=True, text=True, timeout=PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failure(
            f"{program} does not work: {in_words(error)}; see {config_file.path()}"
        ) from None
    if done.returncode != 0:
        reason = (done.stdout + done.stderr).strip()[:500]
        raise Failure(f"{program} refused: {reason}; see {HELPER} in {config_file.path()}")
    return done.stdout
