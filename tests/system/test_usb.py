"""USB sockets that a machine lends to its virtual node (spec node-protocols §8.5, §8.7).

The machine is one of QEMU with Debian's kernel, which has a stick and a keyboard where a Raspberry
Pi 3B+ has its sockets; what it starts there is QEMU of arm64, as walt-virtual-node does.
"""

from __future__ import annotations

import lzma
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.live import CACHE, ROOT, why_not
from tests.system.netns import short_dir
from walt.common.machines import machine_config
from walt.common.qemu import PC, command
from walt.server.runtime.process import ProcessRunner
from walt.server.tools.image_recipe import archive_path
from walt.server.tools.recipe import Recipe
from walt.virtual.machine import boot_options, usb_options
from walt.virtual.script import Boot

QEMU = "/usr/bin/qemu-system-aarch64"
MODULES = ("usb-common", "usbcore", "xhci-hcd", "xhci-pci")
# Its console is where the machine gets orders: ctrl-a c leads to the monitor of QEMU.
INIT = """#!/bin/busybox sh
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs devtmpfs /dev
for module in %s; do busybox insmod "/$module.ko"; done
until [ -e /sys/bus/usb/devices/1-1.1.2 ] && [ -e /sys/bus/usb/devices/1-1.2 ]; do
    busybox sleep 0.2
done
busybox mkfifo /keys
%s < /keys > /told 2>&1 &
exec 3> /keys
busybox printf '\\001c' >&3
until busybox grep -q 'HARDDRIVE' /told && busybox grep -q 'Keyboard' /told; do
    kill -0 $! || break
    busybox printf 'info usb\\n' >&3
    busybox sleep 1
done
busybox printf 'quit\\n' >&3
wait $!
echo "ended with status $?"
busybox cat /told
busybox poweroff -f
"""


class UsbTests(TestCase):
    skip = why_not() or (None if Path(QEMU).exists() else "not installed: qemu-system-arm")
    timeout = patient(500)

    async def _unpacked(self, variant: str, *members: str) -> None:
        """Have files of the image of a recipe below `base`."""
        await self.runner.run(
            [sys.executable, "-m", "walt.server.tools.image_recipe", "--variant", variant,
             "--archive-only", "--cache-dir", str(CACHE)],
            timeout=patient(500), env={"PYTHONPATH": str(ROOT)},
        )
        archive = archive_path(CACHE, Recipe.load(variant))
        await self.runner.run(
            ["tar", "-C", str(self.base), "-xf", str(archive), "--wildcards", *members],
            timeout=patient(60),
        )

    def _copy_program(self, tree: Path, program: str) -> None:
        """Copy a program, or a library, with the libraries that it wants."""
        told = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        for path in (program, *re.findall(r"(/\S+) \(0x", told)):
            target = tree / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                shutil.copy(path, target)

    def _initrd(self, init: str) -> Path:
        """Make what the lending machine starts with."""
        tree = self.base / "tree"
        for name in ("bin", "proc", "sys", "dev", "tmp"):
            (tree / name).mkdir(parents=True)
        shutil.copy("/bin/busybox", tree / "bin/busybox")
        self._copy_program(tree, QEMU)
        (library,) = Path("/usr/lib").glob("*/qemu/hw-usb-host.so")
        self._copy_program(tree, str(library))
        for module in MODULES:
            (file,) = self.base.glob(f"**/modules/**/{module}.ko*")
            content = file.read_bytes()  # .ko.xz from Debian 13 on
            (tree / f"{module}.ko").write_bytes(
                lzma.decompress(content) if file.suffix == ".xz" else content
            )
        shutil.copy(self.base / "boot/qemu-arm-64/kernel", tree / "kernel")
        (tree / "init").write_text(init)
        (tree / "init").chmod(0o755)
        names = "\n".join([".", *sorted(str(one.relative_to(tree)) for one in tree.rglob("*"))])
        packed = subprocess.run(
            ["/bin/busybox", "cpio", "-o", "-H", "newc"], cwd=tree, input=names.encode(),
            capture_output=True, check=True,
        )
        initrd = self.base / "initrd"
        initrd.write_bytes(packed.stdout)
        return initrd

    async def test_pass_through(self) -> None:
        """What is in the sockets is attached to the node; empty ones wait."""
        self.runner, self.base = ProcessRunner(reactor), short_dir(self)
        await self._unpacked(
            "full", "./boot/pc-x86-64/kernel", "*/kernel/drivers/usb/*"
        )
        await self._unpacked("arm64", "./boot/qemu-arm-64/kernel")
        config = machine_config("vn", "52:54:00:00:00:01", "qemu-arm-64", {"ram": "128M"})
        boot = boot_options("qemu-arm-64", Boot(Path("/kernel"), "quiet", ()))
        argv = command(config, "tcg", [*boot, *usb_options()], [], (), "mon:stdio")
        words = shlex.join([QEMU, *argv[1:]])
        initrd = self._initrd(INIT % (" ".join(MODULES), words))
        stick = self.base / "stick"
        stick.write_bytes(bytes(1 << 20))
        done = await self.runner.run([
            PC.program, "-nodefaults", "-machine", f"{PC.machine},accel=tcg",
            "-cpu", PC.emulated_cpu, "-m", "1024", "-display", "none", "-vga", "none",
            "-monitor", "none", "-serial", "stdio", "-no-reboot",
            "-kernel", str(self.base / "boot/pc-x86-64/kernel"), "-initrd", str(initrd),
            "-append", "console=ttyS0 quiet panic=-1", "-device", "qemu-xhci,id=x",
            "-device", "usb-hub,bus=x.0,port=1", "-device", "usb-hub,bus=x.0,port=1.1",
            "-drive", f"if=none,id=stick,format=raw,file={stick}",
            "-device", "usb-storage,bus=x.0,port=1.1.2,drive=stick",
            "-device", "usb-kbd,bus=x.0,port=1.2",
        ], timeout=patient(200))
        told = done.stdout.decode(errors="replace")
        self.assertIn("ended with status 0", told)
        attached = re.findall(r"Device \S+, Port (\S+), Speed \S+ Mb/s, Product ([\w ]+)", told)
        last = dict(attached)
        self.assertEqual(last["1"], "QEMU USB HARDDRIVE", told)  # socket 1.1.2
        self.assertEqual(last["3"], "QEMU USB Keyboard", told)  # socket 1.2
        self.assertEqual(
            [product for product in last.values() if product == "USB Host Device"],
            ["USB Host Device"] * 2,  # 1.1.3 and 1.3
        )
