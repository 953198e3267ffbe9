"""The host keys of ssh servers, asked by ssh-keyscan (spec node-protocols §9.2), and kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from twisted.internet.defer import DeferredLock
from zope.interface import implementer

from walt.common.errors import Unavailable
from walt.server.domain.vpn.interfaces import IHostKeys
from walt.server.runtime.placing import put_in_place
from walt.server.runtime.process import ProcessRunner

FILE = "entry-point-keys"  # below STATE-DIR/vpn-server; lines `HOST:PORT TYPE KEY`
KEPT = 5.0  # seconds
PATIENCE = 5  # seconds for an ssh server to answer
MOST = 16  # keys of one server


class _Scan(NamedTuple):
    where: str
    since: float
    lines: str
    fault: str


@implementer(IHostKeys)
class ScannedHostKeys:
    """Asks once for all who ask within `KEPT` seconds, be it in vain; `now` counts seconds.

    Boards learn keys from here that they trust for good. So the first ones that a server showed
    are kept in `file`, and others are refused until an administrator takes them out of it: who is
    between cannot show keys of his own later. `tell` logs one sentence.
    """

    def __init__(
        self, runner: ProcessRunner, now: Callable[[], float], file: Path,
        tell: Callable[[str], object],
    ) -> None:
        self._runner, self._now = runner, now
        self._file, self._tell = file, tell
        self._lock = DeferredLock()
        self._known: _Scan | None = None

    async def of(self, host: str, port: int) -> str:
        """Return the lines for a file of known hosts. Raises Unavailable."""
        where = f"{host}:{port}"
        async with self._lock:
            known = self._known
            if known is None or known.where != where or self._now() - known.since >= KEPT:
                known = self._known = await self._scan(host, port, where)
        if known.fault:
            raise Unavailable(known.fault)
        return known.lines

    async def _scan(self, host: str, port: int, where: str) -> _Scan:
        done = await self._runner.run(
            ["ssh-keyscan", "-H", "-T", str(PATIENCE), "-p", str(port), "--", host],
            timeout=6.0 * PATIENCE, network="host", check=False,
        )
        shown = _keys(done.stdout.decode(errors="replace"))
        fault = ""
        if not shown:
            fault = f"the ssh entry point {host} (port {port}) does not answer"
        else:
            kept = self._kept(where) or await self._keep(where, list(shown))
            types = {key.split()[0] for key in kept}
            if any(key not in kept and key.split()[0] in types for key in shown) or not (
                kept & set(shown)
            ):
                fault = (
                    f"the ssh entry point {host} (port {port}) shows other keys than it did; if"
                    f" they are right, remove the lines of {where} from {self._file}"
                )
                self._tell(fault)
            shown = {key: line for key, line in shown.items() if key in kept}
        return _Scan(where, self._now(), "".join(shown.values()), fault)

    def _kept(self, where: str) -> set[str]:
        if not self._file.exists():
            return set()
        lines = [line.split() for line in self._file.read_text(errors="replace").splitlines()]
        return {" ".join(words[1:]) for words in lines if len(words) == 3 and words[0] == where}

    async def _keep(self, where: str, keys: list[str]) -> set[str]:
        """Keep keys; boards learn them when a power failure cannot take them any more."""
        before = self._file.read_text(errors="replace") if self._file.exists() else ""
        self._file.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        beside = self._file.with_name(f".{self._file.name}.new")
        beside.unlink(missing_ok=True)
        beside.touch(0o600)
        beside.write_text(before + "".join(f"{where} {key}\n" for key in keys))
        await put_in_place(self._runner, beside, self._file)
        self._tell(f"the ssh entry point {where} has shown its keys, which are kept from now on")
        return set(keys)


def _keys(text: str) -> dict[str, str]:
    """Return the lines of a file of known hosts by type and key (sshd(8)).

    Names are hashed in another way each time.
    """
    lines = [line for line in text.splitlines() if len(line.split()) == 3 and line[0] != "#"]
    return {line.split(maxsplit=1)[1]: line + "\n" for line in lines[:MOST]}
