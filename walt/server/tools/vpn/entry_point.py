"""SSH entry points on other machines: the script that makes one, and the trial of one.

An entry point lets whoever has a certificate of the platform pass on to the server, with an
agent that is forwarded (spec node-protocols §9.6).
"""

from __future__ import annotations

import shlex
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from walt.common.errors import in_words
from walt.server.adapters.vpn.account import ACCOUNT, HOME
from walt.server.domain.vpn.model import PRINCIPAL, SSH_PORT

SCRIPT = "ssh-ep-setup.sh"
TEST_IDENTITY = "ssh-endpoint-test"  # no board has it: it opens no tunnel
LIMIT = 40  # seconds for a trial


def script(settings: dict[str, Any]) -> str:
    """Return the script for an entry point; `settings` are those of ss.vpn.settings."""
    name, port = settings["name"], settings["ssh_port"]
    # The command of a board comes behind `--`: it could be an option of ssh otherwise.
    relay = (
        "ssh -q -T -A -o PreferredAuthentications=publickey -o ConnectTimeout=10 "
        f"-p {port} {ACCOUNT}@{name} -- \\\"$SSH_ORIGINAL_COMMAND\\\""
    )
    keys = "".join(f"[{name}]:{port} {key}\n" for key in settings["host_keys"])
    if port == SSH_PORT:
        keys = "".join(f"{name} {key}\n" for key in settings["host_keys"])
    return f"""\
#!/bin/sh
# Make this machine an ssh entry point of the WalT platform of {name}: boards with a certificate
# of the platform come in as {ACCOUNT}, and are passed on to the server.
set -eu

account={shlex.quote(ACCOUNT)}
if [ "$(id -u)" != 0 ]; then
    echo "this must be run by root" >&2
    exit 1
fi
for place in "/home/$account" {HOME}; do
    if [ -e "$place" ]; then
        echo "$place exists: this machine is an entry point already, or the WalT server itself" >&2
        exit 1
    fi
done
useradd --system --user-group --create-home --home-dir "/home/$account" --shell /bin/sh "$account"
usermod --password '*' "$account" # no password, and not locked either: sshd lets keys in
umask 077
mkdir "/home/$account/.ssh"
cat > "/home/$account/.ssh/authorized_keys" << 'END'
cert-authority,restrict,agent-forwarding,principals="{PRINCIPAL}",command="{relay}" \
{settings["authority"]}
END
cat > "/home/$account/.ssh/known_hosts" << 'END'
{keys}END
chown -R "$account:$account" "/home/$account"
echo "Done. Now let the server know: vpn.ssh-entrypoint in its server.conf."
"""


def try_ssh(
    host: str, port: int, name: str, authority: Path,
    step: Callable[[str], object] = lambda text: None,
) -> str | None:
    """Return why boards could not come in by an entry point, None if they could.

    A throw-away key gets a certificate of a few minutes by the authority's file, and asks for
    the name of the server, which must be `name`.
    """
    with tempfile.TemporaryDirectory(prefix="walt-vpn-test-") as place:
        key = Path(place) / "key"
        step("making a key that is good for 5 minutes")
        for words in (
            ["-q", "-t", "ecdsa", "-b", "384", "-N", "", "-f", str(key)],
            ["-q", "-s", str(authority), "-I", TEST_IDENTITY, "-n", PRINCIPAL, "-V", "-5m:+5m",
             f"{key}.pub"],
        ):
            made = _run(["ssh-keygen", *words])
            if isinstance(made, str):
                return made
        step(f"asking {host} (port {port}) for the name of the server")
        ssh = [
            "ssh", "-F", "/dev/null", "-A", "-T", "-o", "BatchMode=yes",
            "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
            "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=10", "-p", str(port), "-l", ACCOUNT,
            "--", host, "get-server-hostname",
        ]
        # An agent of its own, which ends with its command.
        told = _run([
            "ssh-agent", "sh", "-c", 'ssh-add -q "$0" && exec "$@"', str(key), *ssh
        ])
    if isinstance(told, str):
        return f"{host} (port {port}): {told}"
    found = told.decode(errors="replace").strip()
    if found != name:
        return f"{host} (port {port}) leads to {found[:80]!r}, not to this server ({name})"
    return None


def _run(argv: list[str]) -> bytes | str:
    """Return what a program prints, or what is wrong in one line."""
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{argv[0]}: {in_words(error)}"
    if done.returncode != 0:
        words = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        return f"{argv[0]} failed (status {done.returncode}) {' '.join(words)}".strip()
    return done.stdout
