"""SSH keys of the platform: the host key of all nodes, the server's key to them."""

from __future__ import annotations

from pathlib import Path

from walt.common.files import write_atomic
from walt.server.runtime.placing import put_in_place
from walt.server.runtime.process import ProcessRunner

HOST_KEY = "ssh_host_ecdsa_key"
DROPBEAR_KEY = "dropbear_ecdsa_host_key"
HOST_ALIAS = "walt.node"


class PlatformKeys:
    """The keys below the directories of the platform, known once `prepare` made or read them.

    `keys` is the directory of the host key of nodes, `state` that of the server.
    """

    def __init__(self, runner: ProcessRunner, keys: Path, state: Path) -> None:
        self._runner = runner
        self._keys = keys
        self._state = state
        self._node_key = self._host_line = ""

    async def prepare(self) -> None:
        """Make what is missing, and read the rest. Raises CommandFailed or Unavailable."""
        await ensure_host_keys(self._runner, self._keys)
        self._node_key = await ensure_node_key(self._runner, self._state)
        self._host_line = known_hosts_line(self._keys)

    def write_known_hosts(self) -> None:
        """Write the file by which the server knows nodes."""
        write_known_hosts(self._keys, self._state / "ssh" / "known_hosts.nodes")

    def node_key(self) -> str:
        """Return the public half of the key to nodes, in one line."""
        return self._node_key

    def host_line(self) -> str:
        """Return the line of known hosts that is true for all nodes."""
        return self._host_line


async def ensure_host_keys(runner: ProcessRunner, keys: Path) -> None:
    """Make the common host key of nodes in directory `keys`, once, in both formats.

    OpenSSH and dropbear images of one node must show the same key, so the second
    is converted from the first. Raises CommandFailed or Unavailable.
    """
    keys.mkdir(parents=True, exist_ok=True)
    key = keys / HOST_KEY
    if not (key.exists() and Path(f"{key}.pub").exists()):
        beside = keys / f".{HOST_KEY}.new"
        for left in (beside, Path(f"{beside}.pub")):
            left.unlink(missing_ok=True)
        await runner.run([
            "ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-C", "root@walt.node", "-f", str(beside),
        ])
        await put_in_place(runner, beside, key)
        await put_in_place(runner, Path(f"{beside}.pub"), Path(f"{key}.pub"))
    dropbear = keys / DROPBEAR_KEY
    if not dropbear.exists():
        beside = keys / f".{DROPBEAR_KEY}.new"
        beside.unlink(missing_ok=True)
        await runner.run(["dropbearconvert", "openssh", "dropbear", str(key), str(beside)])
        beside.chmod(0o600)
        await put_in_place(runner, beside, dropbear)


def node_key(state: Path) -> Path:
    """Return where the key is by which nodes know the server; it serves nothing else."""
    return state / "ssh" / "nodes.key"


async def ensure_node_key(runner: ProcessRunner, state: Path) -> str:
    """Return the public half of the key to nodes in one line; the key is made if missing.

    ECDSA: the oldest images have an ssh server without Ed25519. Raises CommandFailed or
    Unavailable.
    """
    key = node_key(state)
    key.parent.mkdir(parents=True, exist_ok=True)
    if not key.exists():
        beside = key.with_name(f".{key.name}.new")
        for left in (beside, Path(f"{beside}.pub")):
            left.unlink(missing_ok=True)
        await runner.run([
            "ssh-keygen", "-q", "-t", "ecdsa", "-b", "256", "-N", "", "-C", "walt-server",
            "-f", str(beside),
        ])
        Path(f"{beside}.pub").unlink()
        await put_in_place(runner, beside, key)
    result = await runner.run(["ssh-keygen", "-y", "-f", str(key)])
    return result.stdout.decode().strip()


def known_hosts_line(keys: Path) -> str:
    """Return the line of `known_hosts.nodes`: every node has the alias `walt.node`."""
    algorithm, key, *_ = (keys / f"{HOST_KEY}.pub").read_text().split()
    return f"{HOST_ALIAS} {algorithm} {key}\n"


def write_known_hosts(keys: Path, path: Path) -> None:
    """Write `known_hosts.nodes` at `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text() != known_hosts_line(keys):
        write_atomic(path, known_hosts_line(keys))
