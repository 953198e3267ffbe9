"""The product installed in the lab from its wheel, as an administrator does it.

    python -m tests.lab.installed

It is done once for each content of the wheel: the disk that results is kept beside the one
without it, and each test starts on a layer of its own above.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from tests.lab.box import SERVER, Box
from tests.lab.image import ROOT, WHEELS, LabImage, located
from tests.patience import patient
from walt.server.tools.image_recipe import archive_path
from walt.server.tools.recipe import Recipe

CACHE = Path(os.environ.get("WALT_TEST_CACHE", "/var/cache/walt"))
PARTS = ("walt", "twisted", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")
KEPT = 3  # disks: who tries a change goes back to the sources before it
SETUP = "/opt/walt/bin/walt-server-setup"
CHANGES = (
    f"--set network.walt-net.ip={SERVER}/24 --set network.walt-net.raw-device=eth1"
)


def why_not() -> str | None:
    """Return why the lab cannot be used here, None if it can."""
    image = located(CACHE)
    if not image.place.exists():
        return f"{image.place} is missing: python -m tests.lab.image {CACHE} makes it"
    return None


def build_wheel(place: Path) -> Path:
    """Build the wheel of this source tree in a directory; blocking."""
    source = place / "source"
    source.mkdir()
    for name in PARTS:
        one = ROOT / name
        if one.is_dir():
            shutil.copytree(one, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(one, source / name)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check",
         "--no-deps", "--wheel-dir", str(place), str(source)],
        check=True, stdin=subprocess.DEVNULL, timeout=patient(300),
    )
    (wheel,) = place.glob("*.whl")
    return wheel


def digest(wheel: Path) -> str:
    """Return a number of the names and contents in a wheel, whenever it was made."""
    state = hashlib.sha256()
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            state.update(name.encode() + b"\0" + hashlib.sha256(archive.read(name)).digest())
    state.update(CHANGES.encode() + Path(__file__).read_bytes())
    return state.hexdigest()[:12]


async def installed(reactor: Any) -> Box:
    """Return a box, switched off, with the product installed and its service enabled."""
    return Box(reactor, located(CACHE), await installed_disk(reactor))


async def installed_disk(reactor: Any) -> Path:
    """Return the disk that boxes start from, made if it is missing."""
    image = located(CACHE)
    with tempfile.TemporaryDirectory(prefix="wlab-wheel-", dir="/var/tmp") as name:
        wheel = build_wheel(Path(name))
        disk = image.place / f"installed-{digest(wheel)}.qcow2"
        if not disk.exists():
            await _install(reactor, image, wheel, disk)
        _keep(image.place, disk)
    return disk


def _keep(place: Path, disk: Path) -> None:
    """Let the disks go that were used longest ago."""
    os.utime(disk)
    found = sorted(place.glob("installed-*"), key=lambda one: one.stat().st_mtime)
    for old in found[:-KEPT]:
        old.unlink()


async def set_up(box: Box, archive: Path) -> None:
    """Have set-up make a server of a box, with the default image of an archive (its /dev/vdb)."""
    await box.run(f"{SETUP} --mode image-install {CHANGES}", timeout=patient(300))
    await build_node_image(box, archive, "small")
    await box.run(SETUP, timeout=patient(400))
    await box.until_active()
    await box.run(f"{SETUP} --check")


async def _install(reactor: Any, image: LabImage, wheel: Path, disk: Path) -> None:
    archive = archive_path(CACHE, Recipe.load("small"))
    box = Box(reactor, image)
    try:
        await box.start(archive)
        await box.put(f"/root/{wheel.name}", wheel.read_bytes())
        await box.run(
            f"/opt/walt/bin/pip install --no-index --find-links {WHEELS}"
            f" '/root/{wheel.name}[server]'", timeout=patient(300),
        )
        await set_up(box, archive)
        await box.power_off()
        unfinished = disk.with_suffix(".new")
        shutil.move(box.disk, unfinished)
        unfinished.rename(disk)
    finally:
        await box.close()


async def build_node_image(box: Box, archive: Path, variant: str) -> None:
    """Import an image that nodes boot; its archive is what the box was started with."""
    cached = f"/var/cache/walt/default-images/{archive.name}"
    await box.run(f"mkdir -p $(dirname {cached}) && cp /dev/vdb {cached}", timeout=patient(120))
    await box.run(
        f"/opt/walt/bin/walt-image-build-default --variant {variant}"
        " --config /etc/walt/server.conf", timeout=patient(300),
    )


async def main(reactor: Any) -> None:
    """Make the disk for these sources."""
    print(f"lab: {await installed_disk(reactor)}")


if __name__ == "__main__":
    react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
