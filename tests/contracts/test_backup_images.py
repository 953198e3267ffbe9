"""Images of a backup are what they were, whatever formats they have."""

from __future__ import annotations

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.storage import TestStorage, why_not
from walt.server.tools.backup import images


class BackupImagesTests(TestCase):
    skip = why_not()
    timeout = patient(120)

    async def test_there_and_back(self) -> None:
        """One of OCI, and one on top of it with docker's formats, as `walt image shell` makes."""
        from twisted.internet import reactor

        first, second = TestStorage(reactor), TestStorage(reactor)
        for one in (first, second):
            self.addCleanup(one.close)
        await first.make_image("ann/plain:latest")
        context = first.base / "context"
        context.mkdir()
        (context / "Containerfile").write_text(
            "FROM docker.io/ann/plain:latest\nCOPY Containerfile /more\nHEALTHCHECK CMD true\n"
        )
        await first.podman(
            "build", "--quiet", "--pull=never", "--isolation", "chroot", "--format", "docker",
            "--tag", "docker.io/ann/edited:latest", str(context),
        )
        layout = first.base / "oci"
        known = await deferToThread(images.names, first.storage)
        self.assertEqual(known.keys(), {"ann/plain:latest", "ann/edited:latest"})
        for name in known:
            await deferToThread(images.save, first.storage, name, layout, first.base)
        for name in known:
            await deferToThread(images.load, second.storage, name, layout, second.base)
        self.assertEqual(await deferToThread(images.names, second.storage), known)
        self.assertEqual(await deferToThread(images.differing, second.storage, known), [])
