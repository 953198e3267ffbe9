"""This machine's files below a layer of their own, with a systemd of their own as first process.

It has namespaces of everything (processes, mounts, network, cgroups), and no kernel of its own:
what needs modules or AppArmor is for the lab (`tests/lab/`). The layer stays between two starts,
as a disk does over a reboot.
"""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.patience import patient
from tests.system.netns import short_dir

SYSTEMD = "/lib/systemd/systemd"
TARGET = """\
[Unit]
Description=what a test needs
Requires=sysinit.target dbus.socket
Wants=systemd-journald.service {wants}
AllowIsolate=yes
"""
# A hierarchy of cgroups with a name alone, below a group of our own: it is its root inside.
OUTSIDE = """\
mount -t tmpfs tmpfs {place}/groups
mount -t cgroup -o none,name=systemd cgroup {place}/groups
mkdir {place}/groups/{name}
echo $$ > {place}/groups/{name}/cgroup.procs
exec unshare --mount --pid --net --ipc --uts --cgroup --fork --kill-child \
 --propagation=private sh -ec {inside}
"""
INSIDE = """\
root={place}/root
mount -t overlay overlay -o lowerdir=/,upperdir={place}/upper,workdir={place}/work $root
mount -t proc proc $root/proc
mount -t sysfs -o ro sysfs $root/sys
mount -t tmpfs -o mode=755 tmpfs $root/dev
for one in null zero full random urandom tty fuse kvm net/tun loop-control; do
    test -e /dev/$one || continue
    mkdir -p $(dirname $root/dev/$one); cp -a /dev/$one $root/dev/$one
done
for one in $(seq 0 63); do mknod -m 660 $root/dev/loop$one b 7 $one; done
mkdir $root/dev/pts $root/dev/shm
mount -t devpts devpts $root/dev/pts
mount -t tmpfs tmpfs $root/dev/shm
mount -t tmpfs -o mode=755 tmpfs $root/run
mount -t tmpfs -o mode=1777 tmpfs $root/tmp
mount -t tmpfs tmpfs $root/sys/fs/cgroup
mkdir $root/sys/fs/cgroup/systemd
mount -t cgroup -o none,name=systemd cgroup $root/sys/fs/cgroup/systemd
ip link set lo up
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin \
 SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1 chroot $root {systemd} --unit=walt-test.target \
 --show-status=no
"""
# What a systemd that was killed leaves: groups without processes.
AFTERWARDS = """\
mount -t cgroup -o none,name=systemd cgroup {place}/groups
test -d {place}/groups/{name} || exit 0
find {place}/groups/{name} -depth -type d -exec rmdir {{}} +
"""


class Booted:
    """One machine; `wants` are units that it starts by itself."""

    def __init__(self, case: Any, wants: str = "") -> None:
        self._place = short_dir(case)
        self._name = f"walt-test-{self._place.name}"
        for one in ("upper/etc/systemd/system", "work", "root", "groups"):
            (self._place / one).mkdir(parents=True)
        self.at("/etc/systemd/system/walt-test.target").write_text(TARGET.format(wants=wants))
        self._process: subprocess.Popen[bytes] | None = None
        case.addCleanup(self.cut)

    def at(self, path: str) -> Path:
        """Return where a file that was written inside is."""
        return self._place / "upper" / path.lstrip("/")

    def start(self) -> None:
        """Start it; return when its systemd takes orders."""
        names = {"place": shlex.quote(str(self._place)), "name": self._name, "systemd": SYSTEMD}
        inside = shlex.quote(INSIDE.format(**names))
        self._process = subprocess.Popen(
            ["unshare", "--mount", "--propagation=private", "sh", "-ec",
             OUTSIDE.format(inside=inside, **names)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        self.until(self._answers, "systemd takes orders")

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "it did not start"
        return self._first() is not None and self.run("systemctl", "is-active", "dbus.socket") \
            .stdout.strip() == "active"

    def _first(self) -> int | None:
        """Return its first process, once that is systemd."""
        assert self._process is not None
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for child in children:
            if Path(f"/proc/{child}/cmdline").read_bytes().startswith(SYSTEMD.encode()):
                return int(child)
        return None

    def power_off(self) -> None:
        """End it in order."""
        assert self._process is not None
        self.run("systemctl", "poweroff")
        self._process.wait(timeout=patient(100))
        self._sweep()

    def cut(self) -> None:
        """End it at once, if it runs, with all of its processes."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.kill()
        self._process.wait()
        self._sweep()

    def _sweep(self) -> None:
        names = {"place": shlex.quote(str(self._place)), "name": self._name}
        limit = time.monotonic() + patient(20)
        while subprocess.run(
            ["unshare", "--mount", "--propagation=private", "sh", "-ec",
             AFTERWARDS.format(**names)],
            stdin=subprocess.DEVNULL, capture_output=True, check=False,
        ).returncode != 0:
            assert time.monotonic() < limit, "its control groups cannot be removed"
            time.sleep(0.2)

    def run(self, *argv: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a program inside."""
        first = self._first()
        return subprocess.run(
            [
                "nsenter", f"--target={first}", "--mount", "--pid", "--net", "--ipc", "--uts",
                f"--root=/proc/{first}/root", "--wd=/", "--", "env", "-i", "HOME=/root",
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", *argv,
            ],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=patient(timeout), check=False,
        )

    def ok(self, *argv: str, timeout: float = 120) -> str:
        """Run a program that must succeed; return its output."""
        done = self.run(*argv, timeout=timeout)
        if done.returncode != 0:
            raise AssertionError(
                f"{' '.join(argv)}: status {done.returncode}\n{done.stdout}{done.stderr}\n"
                + self.journal()
            )
        return done.stdout

    def journal(self) -> str:
        """Return the last lines of the server, for messages."""
        return self.run("journalctl", "--no-pager", "-o", "cat", "-n", "60").stdout[-6000:]

    def until(self, condition: Callable[[], Any], what: str, seconds: float = 60) -> Any:
        """Wait until a condition is true; return what it gives."""
        limit = time.monotonic() + patient(seconds)
        while not (found := condition()):
            if time.monotonic() > limit:
                raise AssertionError(f"not reached: {what}\n{self.journal()}")
            time.sleep(0.3)
        return found
