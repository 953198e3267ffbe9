"""Mount updates: merged, ordered, with a grace time."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.images import FakeMounter
from walt.common.errors import CommandFailed
from walt.server.domain.images.model import StoredImage
from walt.server.domain.images.mounts import GRACE, RECHECK, MountManager


def image(digit: str) -> StoredImage:
    return StoredImage(f"u/{digit}:latest", digit * 64)


class MountManagerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.events: list[str] = []
        self.mounter = FakeMounter(self.events)
        self.use: list[StoredImage] = []
        self.gate: Deferred[None] | None = None
        self.manager = MountManager(
            self.clock, self.mounter, wanted=self.wanted, export=self.export, settled=self.settled
        )

    async def wanted(self) -> dict[str, StoredImage]:
        if self.gate is not None:
            await self.gate
        return {one.image_id: one for one in self.use}

    async def export(self, ids: frozenset[str]) -> None:
        self.events.append(f"export {' '.join(sorted(one[:2] for one in ids))}")

    async def settled(self, ids: frozenset[str]) -> None:
        self.events.append("settled")

    def update(self) -> list[str]:
        self.successResultOf(self.manager.update())
        events, self.events[:] = self.events[:], []
        return events

    def test_mount_then_export(self) -> None:
        """A new image is mounted, then exported, then boot links follow."""
        self.use = [image("a")]
        self.assertEqual(self.update(), ["mount aa", "export aa", "settled"])
        self.assertEqual(self.update(), ["settled"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_grace_then_export_then_unmount(self) -> None:
        """An unused image stays for the grace time, and leaves the exports first."""
        self.use = [image("a"), image("b")]
        self.update()
        self.use = [image("a")]
        self.assertEqual(self.update(), ["settled"])
        self.clock.advance(GRACE - 1)
        self.assertEqual(self.update(), ["settled"])
        self.clock.advance(1 + RECHECK)
        self.assertEqual(self.events, ["export aa", "unmount bb", "settled"])
        self.assertEqual(self.manager.mounted, {"a" * 64})

    def test_use_again_cancels_the_deadline(self) -> None:
        """An image used again within the grace time is never unmounted."""
        self.use = [image("a")]
        self.update()
        self.use = []
        self.update()
        self.clock.advance(GRACE - 1)
        self.use = [image("a")]
        self.update()
        self.clock.advance(10 * GRACE)
        self.assertEqual(self.events, [])

    def test_requests_are_merged(self) -> None:
        """Any number of requests during an update make one more update."""
        self.gate = Deferred()
        first = self.manager.update()
        later = [self.manager.update() for _ in range(5)]
        self.use = [image("a")]
        gate, self.gate = self.gate, None
        gate.callback(None)
        self.successResultOf(first)
        for one in later:
            self.successResultOf(one)
        self.assertEqual(self.events.count("settled"), 2)

    def test_failure_is_told_and_retried(self) -> None:
        """A failing mount fails that request; the next update tries again."""
        self.use = [image("a")]
        self.mounter.broken = {"a" * 64}
        self.failureResultOf(self.manager.update(), CommandFailed)
        self.assertEqual(len(self.flushLoggedErrors(CommandFailed)), 1)
        self.events.clear()
        self.mounter.broken = set()
        self.assertEqual(self.update(), ["mount aa", "export aa", "settled"])

    def test_a_busy_unmount_is_tried_later(self) -> None:
        """An image that cannot be unmounted gets another grace time."""
        self.use = [image("a")]
        self.update()
        self.use = []
        self.update()
        self.mounter.broken = {"a" * 64}
        self.clock.advance(GRACE + RECHECK)
        self.flushLoggedErrors(CommandFailed)
        self.assertEqual(self.events, ["export ", "unmount aa"])
        self.mounter.broken = set()
        self.events.clear()
        self.clock.advance(GRACE + RECHECK)
        self.assertEqual(self.events, ["export ", "unmount aa", "settled"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_left_overs_are_taken_over(self) -> None:
        """Mounts of a previous server are prepared again if used, else expire."""
        self.mounter.now = {"a" * 64, "b" * 64}
        self.use = [image("a")]
        self.assertEqual(self.update(), ["mount aa", "export aa bb", "settled"])
        self.clock.advance(GRACE + RECHECK)
        self.assertIn("unmount bb", self.events)

    def test_suspended_manager_changes_nothing(self) -> None:
        """While the server stops, requests succeed without effect."""
        self.use = [image("a")]
        self.successResultOf(Deferred.fromCoroutine(self.manager.suspend()))
        self.assertEqual(self.update(), [])

    def test_stop_during_an_update(self) -> None:
        """The stop waits for the update, which mounts and exports nothing more."""
        self.gate = Deferred()
        self.use = [image("a")]
        update = self.manager.update()
        stopping = Deferred.fromCoroutine(self.manager.unmount_all())
        self.assertNoResult(stopping)
        self.gate.callback(None)
        self.successResultOf(update)
        self.successResultOf(stopping)
        self.assertEqual(self.events, [])

    def test_unmount_all(self) -> None:
        """An orderly stop unmounts everything and survives failures."""
        self.mounter.now = {"a" * 64, "b" * 64}
        self.mounter.broken = {"a" * 64}
        self.successResultOf(Deferred.fromCoroutine(self.manager.unmount_all()))
        self.assertEqual(self.events, ["unmount aa", "unmount bb"])
