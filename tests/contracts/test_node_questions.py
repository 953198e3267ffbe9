"""What every INodeQuestions does: the fake, kept shells of this machine, and by real ssh."""

from __future__ import annotations

import os
import shutil
import signal
from abc import abstractmethod
from collections.abc import Callable
from shlex import quote
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from tests.contracts import ssh_server
from tests.contracts.contract import Contract
from tests.fakes.local_nodes import LocalQuestions
from tests.patience import patient
from walt.common.errors import CommandFailed, Unavailable
from walt.server.adapters.ssh import kept
from walt.server.adapters.ssh.kept import MAX_SHELLS, KeptShells
from walt.server.domain.nodes.interfaces import INodeQuestions
from walt.server.runtime.process import Launcher

HERE, ABSENT = "127.0.0.1", "127.0.0.9"
ODD = "new\nline 'quote' \"double\" `x` $(y) -n \\ é *" + "l" * 4096


class QuestionsContract(Contract):
    """`make` returns an INodeQuestions to which HERE answers and ABSENT does not."""

    short = 0.5  # seconds in which it does answer

    @abstractmethod
    async def make(self) -> INodeQuestions:
        """Given by each implementation; the class tells what."""

    def ask(self, script: str, ip: str = HERE, timeout: float = 20) -> Any:
        return Deferred.fromCoroutine(self.questions.ask(ip, script, timeout=timeout))

    async def test_answers(self) -> None:
        """Any text comes back whole; nothing of a question stays for the next one."""
        self.questions = await self.make()
        verifyObject(INodeQuestions, self.questions)
        for script, expected in (
            (f"printf %s {quote(ODD)}", ODD.encode()),
            ("", b""), ("printf 'a\\0b'; echo no >&2", b"a\0b"),
            ("cd /; X=1; exit 0", b""), ("echo $X; cat; pwd | wc -l", b"\n1\n"),
            ("head -c 1000000 /dev/zero", bytes(1000000)),
        ):
            self.assertEqual(await self.ask(script), expected)
        answers = await gatherResults([self.ask(f"echo {number}") for number in range(10)])
        self.assertEqual(answers, [b"%d\n" % number for number in range(10)])

    async def test_failures(self) -> None:
        """A script that fails is told with what it said; the next one is answered."""
        self.questions = await self.make()
        for script, text in (
            ("echo why >&2; exit 3", "why"), ("exit 3", "3"), ("if (", ""),
            ("cat /nowhere", "nowhere"), ("head -c 2000000 /dev/zero", "too long"),
        ):
            failure = await self.assertFailure(self.ask(script), CommandFailed)
            self.assertIn(text, str(failure))
            self.assertEqual(await self.ask("echo well"), b"well\n")

    async def test_no_answer(self) -> None:
        """An absent node, and a script that does not end: others are not delayed by it."""
        self.questions = await self.make()
        hanging = self.assertFailure(self.ask("exec sleep 30", timeout=self.short), Unavailable)
        await self.assertFailure(self.ask("true", ABSENT, self.short), Unavailable)
        await hanging
        self.assertEqual(await self.ask("echo well"), b"well\n")
        self.questions.close(HERE)
        self.questions.close(ABSENT)
        self.assertEqual(await self.ask("echo well"), b"well\n")


class LocalQuestionsTests(QuestionsContract, TestCase):
    timeout = patient(60)

    async def make(self) -> Any:
        questions = LocalQuestions(reactor)
        questions.down.add(ABSENT)
        return questions


class SshQuestionsTests(QuestionsContract, TestCase):
    timeout = patient(60)
    short = 2.0
    skip = ssh_server.why_not()

    async def make(self) -> Any:
        questions = KeptShells(reactor, Launcher(), await ssh_server.start(self))
        self.addCleanup(questions.stop)
        return questions


class _Shells(Launcher):
    """Starts a shell in place of ssh; `broken` ones end, or hang without a word."""

    words: Any
    started: list[str]

    def __new__(cls, words: Any) -> _Shells:
        return super().__new__(cls)

    def __init__(self, words: Any) -> None:
        super().__init__(None)
        object.__setattr__(self, "words", words)
        object.__setattr__(self, "started", [])

    def command(self, argv: Any, **options: Any) -> list[str]:
        node = argv[argv.index("--") - 1]
        self.started.append(node)
        if node == f"root@{ABSENT}":
            return ["sh", "-c", "echo no route >&2; exit 255"]
        return [*self.words]


class KeptShellsTests(QuestionsContract, TestCase):
    timeout = patient(60)
    words: tuple[str, ...] = ("sh",)

    async def make(self) -> Any:
        self.clock: Any = reactor
        return self.with_clock(reactor)

    def with_clock(self, clock: Any, most: int = MAX_SHELLS) -> KeptShells:
        """Return shells whose limits count by a clock."""
        self.launcher = _Shells(self.words)
        spawner: Any = _Reactor(clock)
        self.questions = KeptShells(spawner, self.launcher, [], most=most)
        self.addCleanup(self.questions.stop)
        return self.questions

    def mktemp(self) -> str:
        """Return a path that shells know too."""
        return os.path.abspath(super().mktemp())

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition, as long as the test may last."""
        while not condition():
            await deferLater(reactor, 0.01)

    async def test_one_shell_a_node(self) -> None:
        """It is opened at the first question, and ends after 180 s without any."""
        clock = Clock()
        self.with_clock(clock)
        first = await self.ask("echo $PPID")
        clock.advance(kept.IDLE - 1)
        self.assertEqual(await self.ask("echo $PPID"), first)
        clock.advance(kept.IDLE - 1)
        self.assertEqual(await self.ask("echo"), b"\n")
        self.assertEqual(len(self.launcher.started), 1)
        clock.advance(kept.IDLE)
        self.assertEqual(clock.getDelayedCalls(), [])
        await self.ask("echo")
        self.assertEqual(len(self.launcher.started), 2)

    async def test_dead_shells_are_replaced(self) -> None:
        """One that died while nobody asked, one that dies of a question, one that is closed."""
        self.with_clock(reactor)
        os.kill(int(await self.ask("echo $$")), signal.SIGKILL)
        await self.until(lambda: not self.questions._running)
        self.assertEqual(await self.ask("echo well"), b"well\n")
        self.assertEqual(len(self.launcher.started), 2)
        for number, end in enumerate(("kill $$", "kill -9 $$")):
            await self.assertFailure(self.ask(end), Unavailable)
            self.assertEqual(await self.ask("echo well"), b"well\n")
            self.assertEqual(len(self.launcher.started), 4 + 2 * number)
        asked, go = self.mktemp(), self.mktemp()
        under_way = self.ask(
            f"touch {asked}; while ! test -e {go}; do sleep 0.05; done; echo well"
        )
        await self.until(lambda: os.path.exists(asked))
        self.questions.close(HERE)
        os.mkdir(go)
        self.assertEqual(await under_way, b"well\n")

    async def test_queue(self) -> None:
        """Who waits too long leaves; too many are refused; the others have their turns."""
        self.with_clock(reactor)
        await self.ask("true")
        first = self.ask("sleep 0.4")
        late = self.ask("true", timeout=0.2)
        others = [self.ask("echo x") for _ in range(kept.MAX_WAITING - 1)]
        await self.assertFailure(self.ask("true"), Unavailable)
        await self.assertFailure(late, Unavailable)
        self.assertEqual(await first, b"")
        self.assertEqual(set(await gatherResults(others)), {b"x\n"})
        self.assertEqual(len(self.launcher.started), 1)

    async def test_many_nodes(self) -> None:
        """Only some shells are kept: the one that waits longest goes."""
        self.with_clock(reactor, most=2)
        for ip in ("10.0.0.1", "10.0.0.2", "10.0.0.1", "10.0.0.3", "10.0.0.1", "10.0.0.2"):
            await self.ask("true", ip)
        self.assertEqual(
            [one.rpartition(".")[2] for one in self.launcher.started], ["1", "2", "3", "2"]
        )

    async def test_stop(self) -> None:
        """No shell is left, nobody waits for ever, nothing starts any more."""
        self.with_clock(reactor)
        await self.ask("true", "10.0.0.1")
        asked = self.mktemp()
        waiting = [
            self.assertFailure(self.ask(f"touch {asked}; sleep 20"), Unavailable)
            for _ in range(2)
        ]
        await self.until(lambda: os.path.exists(asked))
        await self.questions.stop()
        await gatherResults(waiting)
        await self.assertFailure(self.ask("true"), Unavailable)
        self.assertEqual(len(self.launcher.started), 2)


class BusyboxShellsTests(KeptShellsTests):
    words = ("busybox", "sh")
    skip = None if shutil.which("busybox") else "busybox is not installed"


class _Reactor:
    """Processes of the real reactor, time of a clock."""

    def __init__(self, clock: Any) -> None:
        self.callLater = clock.callLater
        self.seconds = clock.seconds
        self.spawnProcess = reactor.spawnProcess  # type: ignore[attr-defined]
