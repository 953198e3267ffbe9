"""Make the disk of the lab: Debian 12 with what the server needs, but for the server itself.

    python -m tests.lab.image CACHE

Everything blocks. What was made is kept below CACHE, under a key of what it was made from;
the guest has no way to a network, so that everything is packed here.
"""

from __future__ import annotations

import configparser
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.programs import parse_variable
from walt.common.errors import Unavailable, WaltError
from walt.server.tools import recipe

ROOT = Path(__file__).resolve().parents[2]
RELEASE = "bookworm"
DISK_SIZE = 12 << 30  # bytes; a sparse file
PYTHON = "/usr/bin/python3"  # that of Debian 12, as in the guest
WHEELS = "/opt/wheels"
DISK, KERNEL, INITRD, KEY = "pristine.img", "vmlinuz", "initrd.img", "key"
# An initial RAM disk with few modules: it unpacks slowly in an emulated machine.
_INITRAMFS = """
mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/etc/initramfs-tools/hooks"
echo MODULES=list > "$1/etc/initramfs-tools/conf.d/lab"
printf '%s\\n' '#!/bin/sh' '[ "$1" = prereqs ] && exit 0' \
    '. /usr/share/initramfs-tools/hook-functions' \
    'manual_add_modules virtio_pci virtio_blk virtio_net ext4' \
    > "$1/etc/initramfs-tools/hooks/lab"
chmod 755 "$1/etc/initramfs-tools/hooks/lab"
"""
_FILES = {
    "etc/hostname": "lab\n",
    "etc/hosts": "127.0.0.1 localhost\n127.0.1.1 lab\n",
    "etc/fstab": "/dev/vda / ext4 defaults 0 1\n",
    "etc/machine-id": "",
    "etc/systemd/network/eth0.network": "[Match]\nName=eth0\n[Network]\nDHCP=yes\n",
}
_UNITS = ("systemd-networkd", "systemd-resolved", "serial-getty@ttyS0", "ssh")


@dataclass(frozen=True)
class LabImage:
    """Where the parts of the lab are."""

    place: Path

    @property
    def disk(self) -> Path:
        """The disk, a raw image that nothing writes to."""
        return self.place / DISK

    @property
    def kernel(self) -> Path:
        """Debian's kernel."""
        return self.place / KERNEL

    @property
    def initrd(self) -> Path:
        """Its initial RAM disk."""
        return self.place / INITRD

    @property
    def key(self) -> Path:
        """The private ssh key of root there."""
        return self.place / KEY


def requirements() -> list[str]:
    """Return what the server needs of the Python package index."""
    found = configparser.ConfigParser()
    found.read(ROOT / "setup.cfg")
    return found["options.extras_require"]["server"].split()


def packages() -> list[str]:
    """Return the Debian packages of the guest."""
    lists = (ROOT / "scripts/packages.mk").read_text()
    return sorted({
        one for name in ("BASE_PACKAGES", "SERVER_PACKAGES", "LAB_GUEST")
        for one in parse_variable(lists, name)
    })


def located(cache: Path) -> LabImage:
    """Return where the lab of this source tree is, made or not."""
    state = hashlib.sha256("\n".join([*packages(), *requirements()]).encode())
    state.update(Path(__file__).read_bytes())
    return LabImage(cache / "lab" / state.hexdigest()[:12])


def make(image: LabImage) -> None:
    """Make it, if it is not there; what was made of other sources goes. Raises WaltError."""
    if image.place.exists():
        return
    if recipe.suite() != RELEASE:
        raise Unavailable(f"the lab is made on Debian 12 ({RELEASE})")
    parent = image.place.parent
    parent.mkdir(parents=True, exist_ok=True)
    for old in parent.iterdir():
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    with tempfile.TemporaryDirectory(prefix=".new-", dir=parent) as name:
        work = Path(name)
        root, made = work / "root", work / "made"
        made.mkdir()
        _say("Debian packages")
        _bootstrap(root)
        _say("Python packages")
        _install_python(root, work)
        _say("settings and disk")
        _furnish(root, made)
        _pack(root, made)
        made.rename(image.place)


def _say(text: str) -> None:
    print(f"lab: {text}", flush=True)


def _run(*argv: str | Path) -> str:
    return recipe.run([str(one) for one in argv])


def _bootstrap(root: Path) -> None:
    _run(
        "unshare", "--mount", "--propagation=slave", "mmdebstrap", "--quiet", "--mode=root",
        "--format=directory", "--variant=minbase", "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/man/*", *recipe.proxies(),
        f"--essential-hook={_INITRAMFS}", f"--include={','.join(packages())}",
        RELEASE, root, *recipe.apt_sources(),
    )


def _install_python(root: Path, work: Path) -> None:
    """Put the packages that the server needs into /opt/walt of the guest."""
    wheels = root / WHEELS.lstrip("/")
    _run(PYTHON, "-m", "venv", work / "venv")
    # Sources that have a setup.py alone would need the package `wheel` in this environment.
    _run(work / "venv/bin/pip", "wheel", "--quiet", "--use-pep517", "--wheel-dir", wheels,
         *requirements())
    _run("chroot", root, "python3", "-m", "venv", "/opt/walt")
    _run(
        "chroot", root, "/opt/walt/bin/pip", "install", "--quiet", "--no-index", "--find-links",
        WHEELS, *requirements(),
    )


def _furnish(root: Path, made: Path) -> None:
    for name, text in _FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", made / KEY)
    authorized = root / "root/.ssh/authorized_keys"
    authorized.parent.mkdir(mode=0o700, exist_ok=True)
    shutil.copyfile(made / f"{KEY}.pub", authorized)
    _run("chroot", root, "systemctl", "enable", *_UNITS)


def _pack(root: Path, made: Path) -> None:
    for name in (KERNEL, INITRD):
        found = sorted((root / "boot").glob(f"{name}-*"))
        shutil.copyfile(found[-1], made / name)
    disk = made / DISK
    with open(disk, "wb") as stream:
        os.truncate(stream.fileno(), DISK_SIZE)
    _run("mke2fs", "-q", "-t", "ext4", "-d", root, disk)


def main(words: Sequence[str]) -> int:
    """Run the command; return its status."""
    try:
        make(located(Path(words[0])))
    except WaltError as error:
        print(f"lab: {error}", file=sys.stderr)
        return error.exit_status
    except subprocess.SubprocessError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
