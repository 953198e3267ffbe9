"""Mounting and unmounting: each image for itself."""

from __future__ import annotations

from collections.abc import Iterable

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.images import FakeMounter
from walt.common.errors import CommandFailed
from walt.server.domain.images.model import StoredImage
from walt.server.domain.images.mounts import ImageMounts
from walt.server.domain.retries import FIRST


def image(digit: str) -> StoredImage:
    return StoredImage(f"u/{digit}:latest", digit * 64)


class SlowMounter(FakeMounter):
    """Unmounting waits for `gate`, when there is one."""

    gate: Deferred[None] | None = None

    async def unmount(self, image_id: str) -> None:
        if self.gate is not None:
            await self.gate
        await super().unmount(image_id)


class ImageMountsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.events: list[str] = []
        self.mounter = SlowMounter(self.events)
        self.mounts = ImageMounts(self.clock, self.mounter)

    def mount(self, digits: str, *, again: bool = False) -> list[str]:
        self.successResultOf(Deferred.fromCoroutine(
            self.mounts.mount([image(one) for one in digits], again=again)
        ))
        return self.taken()

    def keep(self, digits: Iterable[str]) -> list[str]:
        self.mounts.keep_only({one * 64 for one in digits})
        return self.taken()

    def taken(self) -> list[str]:
        events, self.events[:] = self.events[:], []
        return events

    def test_mounted_once(self) -> None:
        """An image that is mounted is not mounted again, unless it is to be prepared again."""
        self.assertEqual(self.mount("ab"), ["mount aa", "mount bb"])
        self.assertEqual(self.mount("ab"), [])
        self.assertEqual(self.mount("a", again=True), ["mount aa"])
        self.assertEqual(self.mounts.ids, {"a" * 64, "b" * 64})

    def test_models_that_start(self) -> None:
        """What an image has to start from is known while it is mounted."""
        self.mounter.models = frozenset({"pc-x86-64"})
        self.mount("a")
        known = [self.mounts.starts("a" * 64, model) for model in ("pc-x86-64", "rpi-4-b", None)]
        self.assertEqual(known, [True, False, False])
        self.keep("")
        self.assertTrue(self.mounts.starts("a" * 64, "rpi-4-b"))

    def test_a_failure_concerns_one_image(self) -> None:
        """A broken image is told, and tried again at its own pace; others are mounted."""
        self.mounter.broken = {"a" * 64}
        self.assertEqual(self.mount("ab"), ["mount aa", "mount bb"])
        self.assertEqual(self.mounts.ids, {"b" * 64})
        self.assertEqual(dict(self.mounts.troubles), {"a" * 64: "cannot mount"})
        self.assertEqual(self.mounts.next_retry(), FIRST)
        self.mounter.broken = set()
        self.assertEqual(self.mount("ab"), [])
        self.clock.advance(FIRST)
        self.assertEqual(self.mount("ab"), ["mount aa"])
        self.assertEqual(dict(self.mounts.troubles), {})
        self.assertIsNone(self.mounts.next_retry())

    def test_an_unexpected_failure(self) -> None:
        """Whatever fails, it concerns that image alone, and is logged with its traceback."""

        async def mount(image: StoredImage) -> None:
            raise ZeroDivisionError

        self.mounter.mount = mount  # type: ignore[assignment]
        self.mount("a")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(set(self.mounts.troubles), {"a" * 64})

    def test_a_broken_image_that_nobody_wants(self) -> None:
        """Failures of an image that is not used any more are forgotten."""
        self.mounter.broken = {"a" * 64}
        self.mount("a")
        self.keep("")
        self.assertIsNone(self.mounts.next_retry())

    def test_busy(self) -> None:
        """An image that something holds delays its own unmounting, and nothing else."""
        self.mount("abc")
        self.mounter.broken = {"a" * 64}
        self.assertEqual(self.keep("c"), ["unmount aa", "unmount bb"])
        self.assertEqual(self.mounts.ids, {"a" * 64, "c" * 64})
        self.assertEqual(self.keep("c"), [])
        self.assertEqual(self.mount("d"), ["mount dd"])
        self.clock.advance(FIRST)
        self.mounter.broken = set()
        self.assertEqual(self.keep("cd"), ["unmount aa"])
        self.assertIsNone(self.mounts.next_retry())

    def test_used_again(self) -> None:
        """A busy image that is used again simply stays."""
        self.mount("a")
        self.mounter.broken = {"a" * 64}
        self.keep("")
        self.keep("a")
        self.assertIsNone(self.mounts.next_retry())
        self.assertEqual(self.mount("a"), [])

    def test_slow_unmounting(self) -> None:
        """Nobody waits for it, but who wants that very image again."""
        self.mount("ab")
        self.mounter.gate = Deferred()
        self.keep("b")
        self.assertEqual(self.mounts.ids, {"b" * 64})
        self.assertEqual(self.mount("c"), ["mount cc"])
        again = Deferred.fromCoroutine(self.mounts.mount([image("a")]))
        self.assertNoResult(again)
        self.mounter.gate.callback(None)
        self.successResultOf(again)
        self.assertEqual(self.taken(), ["unmount aa", "mount aa"])
        self.assertIn("a" * 64, self.mounts.ids)

    def test_left_overs(self) -> None:
        """Mounts of a former server are known, and unmounted like any other."""
        self.mounter.now = {"a" * 64}
        left = self.successResultOf(Deferred.fromCoroutine(self.mounts.left_overs()))
        self.assertEqual(left, {"a" * 64})
        self.assertEqual(self.keep(""), ["unmount aa"])

    def test_stop(self) -> None:
        """A stop waits for what is being unmounted; nothing is mounted any more."""
        self.mount("a")
        self.mounter.gate = Deferred()
        self.keep("")
        stopping = Deferred.fromCoroutine(self.mounts.stop())
        self.assertNoResult(stopping)
        self.mounter.gate.callback(None)
        self.successResultOf(stopping)
        self.taken()
        self.assertEqual(self.mount("b"), [])

    def test_unmount_all(self) -> None:
        """An orderly stop unmounts everything and survives failures."""
        self.mounter.now = {"a" * 64, "b" * 64}
        self.mounter.broken = {"a" * 64}
        self.successResultOf(Deferred.fromCoroutine(self.mounts.unmount_all()))
        self.assertEqual(self.events, ["unmount aa", "unmount bb"])
        self.assertEqual(self.flushLoggedErrors(CommandFailed), [])
