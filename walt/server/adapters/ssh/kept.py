"""Shells kept open on nodes, for short questions (spec node-protocols §5.3).

One `sh` a node, behind one ssh client. A question is a script that a subshell
evaluates, so that nothing of it stays. Its output lies between two lines with a
random marker, which no name of a file can know; a marker ends its error output, too.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Sequence
from shlex import quote
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from walt.common.errors import CommandFailed, Unavailable, WaltError
from walt.server.adapters.ssh.shell import UNREACHABLE
from walt.server.domain.nodes.interfaces import INodeQuestions
from walt.server.runtime.keeping import Keeping, Kept
from walt.server.runtime.process import Launcher, environment, exit_status, give
from walt.server.runtime.reactors import IReactor

IDLE = 180.0  # seconds without question after which a shell ends (N-096)
MAX_ANSWER = 1 << 20  # bytes
MAX_WAITING = 50  # questions to one node
MAX_SHELLS = 32  # kept without question
MAX_ERRORS = 4096  # bytes of error output that are kept


class _Lost(Exception):
    """The shell ended before it answered; the argument is what to tell."""

    def __init__(self, error: WaltError) -> None:
        super().__init__(str(error))
        self.error = error


class _Shell(ProcessProtocol):
    """One ssh client with a shell at its other end."""

    def __init__(self) -> None:
        self.gone: Deferred[None] = Deferred()
        self.ended = False
        self._marker = b""
        self._out = bytearray()
        self._err = bytearray()
        self._answer: Deferred[bytes] | None = None

    def ask(self, script: str) -> Deferred[bytes]:
        """Run a script; the Deferred fails with CommandFailed or _Lost.

        It is for one question at a time; one that is cancelled leaves a shell to kill.
        """
        marker = secrets.token_hex(16)
        self._marker = marker.encode()
        self._out.clear()
        self._err.clear()
        answer = self._answer = Deferred()
        text = (
            f"printf '\\n%s\\n' {marker}; (eval {quote(script)}) </dev/null; "
            f"printf '\\n%s %d\\n' {marker} $?; printf '\\n%s\\n' {marker} >&2\n"
        )
        assert self.transport is not None
        give(self.transport, text.encode(errors="surrogateescape"))
        return answer

    def outReceived(self, data: bytes) -> None:
        self._received(self._out, data)

    def errReceived(self, data: bytes) -> None:
        if len(self._err) + len(data) > MAX_ERRORS:
            data = (bytes(self._err) + data)[-MAX_ERRORS:]
            self._err.clear()
        self._received(self._err, data)

    def _received(self, store: bytearray, data: bytes) -> None:
        if self._answer is None or self._answer.called:
            return  # nobody asked; what a question that was given up says
        store += data
        if len(self._out) > MAX_ANSWER + 200:
            self.kill()
            self._settle(Failure(CommandFailed("the answer of the node is too long")))
        else:
            self._look_for_end()

    def _look_for_end(self) -> None:
        if not self._err.endswith(b"\n%s\n" % self._marker):
            return
        end = self._out.rfind(b"\n%s " % self._marker)
        if end < 0 or not self._out.endswith(b"\n"):
            return
        start = self._out.find(b"\n%s\n" % self._marker) + len(self._marker) + 2
        status = self._out[end + len(self._marker) + 2:-1]
        if status == b"0":
            self._settle(bytes(self._out[start:end]))
            return
        said = self._said(self._err[:-len(self._marker) - 2])
        self._settle(Failure(CommandFailed(
            said or f"the node answered status {status.decode(errors='replace')}"
        )))

    @staticmethod
    def _said(errors: bytearray) -> str:
        return errors.decode(errors="replace").strip()[-1000:]

    def _settle(self, result: bytes | Failure) -> None:
        answer, self._answer = self._answer, None
        if answer is not None and not answer.called:
            answer.callback(result)

    def processEnded(self, reason: Failure) -> None:
        self.ended = True
        said, status = self._said(self._err), exit_status(reason)
        error: WaltError
        if status == UNREACHABLE or status > 128:
            error = Unavailable(f"the node is unreachable ({said or 'cut off'}); retry later")
        else:
            error = CommandFailed(said or f"the shell of the node ended with status {status}")
        self._settle(Failure(_Lost(error)))
        self.gone.callback(None)

    def kill(self) -> None:
        """End the ssh client at once; its shell goes with the connection."""
        self.ended = True
        transport: Any = self.transport
        with contextlib.suppress(ProcessExitedAlready):
            transport.signalProcess("KILL")
        transport.loseConnection()  # others may hold the ends of its pipes


def _end(kept: Kept[_Shell]) -> None:
    """End the shell, if there is one; a question under way loses it."""
    kept.stay()
    shell, kept.held = kept.held, None
    if shell is not None:
        shell.kill()


@implementer(INodeQuestions)
class KeptShells:
    """Runs ssh clients with these options towards nodes; `most` shells are kept."""

    def __init__(
        self, reactor: IReactor, launcher: Launcher, options: Sequence[str], *,
        most: int = MAX_SHELLS,
    ) -> None:
        self._places = Keeping[_Shell](reactor, IDLE, most, self._end_idle)  # by address
        self._reactor = reactor
        self._launcher = launcher
        self._options = options
        self._running: set[_Shell] = set()
        self._stopped = False

    async def ask(self, ip: str, script: str, *, timeout: float) -> bytes:
        """Run a short script on a node; see INodeQuestions."""
        place = self._places.used(ip)
        if len(place.queue.waiting) >= MAX_WAITING:
            raise Unavailable("too many questions wait for this node; retry later")
        asking = Deferred.fromCoroutine(self._in_turn(ip, place, script))
        try:
            return await asking.addTimeout(timeout, self._reactor)
        except TimeoutError:
            raise Unavailable(
                f"the node did not answer within {timeout:g} s; retry later"
            ) from None
        finally:
            self._forget_unused(ip)

    async def _in_turn(self, ip: str, place: Kept[_Shell], script: str) -> bytes:
        async with place.queue:
            place.stay()
            while True:
                if self._stopped:
                    raise Unavailable("the server is stopping")
                if place.held is not None and place.held.ended:
                    place.held = None  # it died while nobody asked
                fresh = place.held is None
                shell = place.held = place.held or self._open(ip)
                try:
                    return await shell.ask(script)
                except _Lost as lost:
                    if fresh:
                        raise lost.error from None
                    # The connection may have been dead for long: another one can tell.
                except CancelledError:
                    shell.kill()
                    raise
                finally:
                    if shell.ended and place.held is shell:
                        place.held = None
                    self._places.leave(place)

    def _end_idle(self, place: Kept[_Shell]) -> None:
        _end(place)
        self._places.forget(place)

    def _forget_unused(self, ip: str) -> None:
        place = self._places.get(ip)
        if place is not None and place.held is None and not place.queue.locked:
            self._places.forget(place)

    def _open(self, ip: str) -> _Shell:
        argv = self._launcher.command(["ssh", *self._options, f"root@{ip}", "--", "exec sh"])
        shell = _Shell()
        self._running.add(shell)
        self._reactor.spawnProcess(shell, argv[0], argv, environment())
        shell.gone.addCallback(lambda _: self._running.discard(shell))
        return shell

    def close(self, ip: str) -> None:
        """End the shell of a node; see INodeQuestions."""
        place = self._places.get(ip)
        if place is not None:
            _end(place)
            self._forget_unused(ip)

    async def stop(self) -> None:
        """End every shell, and return when they are gone."""
        self._stopped = True
        for place in self._places.all():
            _end(place)
        for shell in list(self._running):
            shell.kill()
            await shell.gone
