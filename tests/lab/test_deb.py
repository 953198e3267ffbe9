"""The Debian package in a Debian: installed, set up, removed, purged, installed again."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from scripts import make_deb
from tests.lab.box import Box
from tests.lab.image import WHEELS, located
from tests.lab.installed import CACHE, CHANGES, SETUP, set_up, why_not
from tests.lab.test_install import LEFT, STATE, booted
from tests.patience import patient
from tests.places import ON_DISK
from walt.server.tools.image_recipe import archive_path
from walt.server.tools.recipe import Recipe

APT = "DEBIAN_FRONTEND=noninteractive apt-get -o Dpkg::Use-Pty=0 --yes"
# But for what is gone after a reboot, homes of people, and what dpkg and apt keep of any package.
FILES = (
    "find / -xdev ( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp"
    " -o -path /root -o -path /var/lib/dpkg -o -path /var/lib/apt -o -path /var/cache/apt"
    " -o -path /var/log ) -prune -o -print"
).replace("(", r"\(").replace(")", r"\)")
CONTENTS = "find /etc -xdev -type f -exec sha256sum {} + | sort --key=2"
STAYS = (
    # Data: Debian's policy leaves to the package what a purge does with them (6.8), this one
    # tells people where they are.
    STATE,
    # Services of Debian that set-up has disabled stay so: whether somebody wants them is not
    # known. These are the links of their scripts, by which systemd knows it.
    *(f"/etc/rc{level}.d/K01" for level in range(2, 6)),
    # Of other packages: podman's memory of registries, which it shares among all its storages,
    # and what Debian's named wrote when the machine started.
    "/var/lib/containers/cache", "/var/cache/bind/managed-keys.bind",
)
GOES = (
    # See above.
    *(f"/etc/rc{level}.d/S01" for level in range(2, 6)), "/etc/systemd/system/",
    # Of lldpd, which does not run any more.
    "/var/tmp/systemd-private-",
)
# Accounts stay, so that nobody else is given what they own (policy 9.2.2); each file has a former
# version beside it.
CHANGES_IN_ETC = {
    f"/etc/{name}{former}" for name in ("passwd", "shadow", "group", "gshadow")
    for former in ("", "-")
}


class PackageTests(TestCase):
    skip = why_not()
    timeout = patient(1800)

    async def test_package(self) -> None:
        """A platform comes and goes with it; what people did is there when it comes back."""
        from twisted.internet import reactor

        place = Path(tempfile.mkdtemp(prefix="wlab-deb-", dir=ON_DISK))
        self.addCleanup(shutil.rmtree, place)
        package = await deferToThread(make_deb.make, place)
        archive = archive_path(CACHE, Recipe.load("small"))
        self.box = box = Box(reactor, located(CACHE))
        self.addCleanup(box.close)
        await box.start(archive)
        await box.run(f"rm -rf /opt/walt {WHEELS}")
        # All services have made their files.
        await box.run("systemctl is-system-running --wait || true", timeout=patient(200))
        before = await self.files()
        await box.put(f"/root/{package.name}", package.read_bytes())
        told = await self.install(package.name)
        self.assertIn("walt-server-setup --help", told)
        await set_up(box, archive)
        board = box.board()
        board.boot()
        node = await booted(box, board.mac)
        await board.cut()

        await box.run(f"{APT} remove walt-server", timeout=patient(200))
        await self.nothing_runs()
        await box.run(f"test -e {STATE}/postgres -a -e /etc/walt/server.conf")
        self.assertEqual(await box.run("ls -d /opt/walt /usr/local/bin/walt* || true"), "")
        told = await box.run(f"{APT} purge walt-server", timeout=patient(100))
        self.assertIn(f"stay in {STATE}", told)
        self.assertEqual(await box.run("dpkg-query --show walt-server 2>/dev/null || true"), "")
        await box.run("test ! -e /run/walt -a ! -e /var/log/walt")
        after = await self.files()
        more, less = after.keys() - before.keys(), before.keys() - after.keys()
        self.assertEqual(sorted(one for one in more if not one.startswith(STAYS)), [])
        self.assertEqual(sorted(one for one in less if not one.startswith(GOES)), [])
        changed = {one for one in before.keys() & after.keys() if before[one] != after[one]}
        self.assertEqual(changed - CHANGES_IN_ETC, set())

        await self.install(package.name)
        await box.run(f"{SETUP} {CHANGES}", timeout=patient(400))
        await box.until_active()
        devices = json.loads(await box.ok("device", "show", "--json"))
        self.assertIn((board.mac, node), [(row["mac"], row["name"]) for row in devices["known"]])

    async def install(self, name: str) -> str:
        """Install the package; return what was told."""
        return await self.box.run(f"{APT} install /root/{name}", timeout=patient(200))

    async def files(self) -> dict[str, str]:
        """Return the paths of the machine's files, those of /etc with a number of their content."""
        paths = await self.box.run(FILES, timeout=patient(60))
        found = dict.fromkeys(paths.splitlines(), "")
        for line in (await self.box.run(CONTENTS, timeout=patient(60))).splitlines():
            number, _, path = line.partition("  ")
            found[path] = number
        return found

    async def nothing_runs(self) -> None:
        """No process, mount, export, interface or rule of the server is left."""
        for what, command in LEFT.items():

            async def gone(command: str = command) -> bool:
                return not (await self.box.try_to(command)).stdout

            await self.box.until(gone, f"no {what} is left", patient(60))
