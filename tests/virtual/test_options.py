"""The command line, the commands of a managing program, leases, QEMU's options."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.system.netns import short_dir
from walt.common.errors import Conflict, Invalid
from walt.common.machines import machine_config
from walt.common.qemu import ARM, architecture, command, nic_options, on_tap
from walt.virtual.control import Conf, Exit, Input, KillVm, parse_command
from walt.virtual.dhcp import LEASE_SCRIPT, Lease, cable_name, parse_lease
from walt.virtual.fetch import joined
from walt.virtual.files import Messages, PidFile
from walt.virtual.machine import boot_options, usb_options
from walt.virtual.options import parse_options
from walt.virtual.script import Boot
from walt.virtual.timing import uninterrupted, within

MAC = "52:54:00:00:00:01"
NODE = ("--mac", MAC, "--model", "pc-x86-64")
FIXED = (*NODE, "--ip", "192.168.1.9", "--server-ip", "192.168.1.1")


class OptionsTests(SynchronousTestCase):
    def test_defaults(self) -> None:
        """Files are below the node's directory; nothing is set that was not given."""
        found = parse_options([*NODE[:1], MAC.upper(), *NODE[2:], "--net-conf-udhcpc"])
        home = Path("/var/lib/walt/nodes") / MAC
        self.assertEqual(
            (found.pid_path, found.screen_session_path, found.disks_path, found.networks_path),
            (home / "pid", home / "screen_session", home / "disks", home / "networks"),
        )
        self.assertEqual((found.mac, found.conf, found.log_file), (MAC, {}, None))
        self.assertEqual((found.accel, found.udhcpc, found.managed), ("auto", True, False))

    def test_all(self) -> None:
        """Every option of spec node-protocols §8.3."""
        found = parse_options([
            *FIXED, "--netmask", "255.255.0.0", "--gateway", "192.168.1.1", "--hostname", "vn",
            "--cpu-cores", "2", "--ram", "1G", "--disks", "8G", "--networks", "walt-net,home",
            "--boot-delay", "3", "--managed", "--attach-usb", "--on-vm-reboot", "sh -c 'a b'",
            "--pid-path", "/p", "--screen-session-path", "/s", "--disks-path", "/d",
            "--networks-path", "/n", "--log-file", "/l", "--log-prefix", "x", "--accel", "tcg",
        ])
        self.assertEqual(found.conf, {
            "cpu.cores": "2", "ram": "1G", "disks": "8G", "networks": "walt-net,home",
            "boot.delay": "3",
        })
        self.assertEqual(found.on_vm_reboot, ("sh", "-c", "a b"))
        self.assertEqual((found.managed, found.usb, found.netmask), (True, True, "255.255.0.0"))

    def test_refused(self) -> None:
        """Wrong values, and what is missing, are told."""
        for words, part in (
            (NODE, "give --ip, --server-ip, or --net-conf-udhcpc"),
            ((*FIXED, "--managed"), "give --netmask"),
            (("--mac", "x", *NODE[2:]), "--mac"), ((*NODE[:3], "rpi-3-b"), "pc-x86-64"),
            ((*NODE[:3], "a,b"), "emulates model"), ((*FIXED, "--gateway", "x"), "--gateway"),
            ((*FIXED, "--netmask", "255.0.255.0"), "--netmask"), ((*FIXED, "--ram", "1"), "memory"),
            ((*FIXED, "--hostname", "a,b"), "--hostname"), ((*FIXED, "--disks", "x"), "disk"),
            ((*FIXED, "--networks", "home"), "mandatory"), ((*FIXED, "--cpu-cores", "0"), "cores"),
            ((*FIXED, "--boot-delay", "1s"), "random"),
            ((*FIXED, "--on-vm-reboot", "'"), "--on-vm-reboot"),
        ):
            error = self.assertRaises(Invalid, parse_options, words)
            self.assertIn(part, str(error))


class CommandTests(SynchronousTestCase):
    def test_commands(self) -> None:
        """The four commands of spec node-protocols §8.3."""
        for line, expected in (
            (b"CONF cpu_cores 2\n", Conf("cpu.cores", "2")),
            (b"CONF gateway\n", Conf("gateway", "")),
            (b"CONF networks walt-net,home[lat=8ms,bw=1Gbps]",
             Conf("networks", "walt-net,home[lat=8ms,bw=1Gbps]")),
            (b"INPUT YWIK\r\n", Input(b"ab\n")), (b"KILL_VM\n", KillVm()), (b"EXIT", Exit()),
        ):
            self.assertEqual(parse_command(line), expected)
        for line in (b"", b"CONF", b"CONF other x", b"INPUT !", b"INPUT YWI", b"EXIT now", b"\xff"):
            self.assertRaises(Invalid, parse_command, line)

    @given(st.binary(max_size=60))
    def test_any_line(self, line: bytes) -> None:
        """Any line is a command, or refused."""
        try:
            parse_command(line)
        except Invalid:
            pass


class LeaseTests(SynchronousTestCase):
    def test_script(self) -> None:
        """What udhcpc's script writes under two shells is read back, whatever the values hold."""
        directory = short_dir(self)
        script, result = directory / "s", directory / "r"
        script.write_text(LEASE_SCRIPT)
        values = {
            "ip": "192.168.1.9", "subnet": "255.255.255.0", "router": "192.168.1.1 192.168.1.2",
            "hostname": "vnode1.walt", "siaddr": "0.0.0.0", "serverid": "192.168.1.3",
        }
        for shell in (("dash",), ("busybox", "sh")):
            for name, expected in (("vnode1.walt", "vnode1"), ("$(id)\n-x", ""), ("", "")):
                result.unlink(missing_ok=True)
                environment = {**values, "hostname": name, "WALT_LEASE": str(result)}
                for event in ("deconfig", "bound", "leasefail"):
                    subprocess.run(
                        [*shell, str(script), event], env={**os.environ, **environment}, check=True
                    )
                lease = parse_lease(result.read_bytes())
                self.assertEqual(lease, Lease(
                    "192.168.1.9", "255.255.255.0", "192.168.1.1", expected, "192.168.1.3"
                ))
        self.assertEqual(lease.prefix, 24)

    @given(st.lists(st.sampled_from((
        b"192.168.1.9", b"255.255.255.0", b"", b"x", b"\xff", b"0.0.0.0", b" ", b"255.0.255.0",
    )), max_size=8))
    def test_any_lease(self, values: list[bytes]) -> None:
        """Any file is a lease with addresses, or refused."""
        try:
            lease = parse_lease(b"".join(value + b"\0" for value in values))
        except Invalid:
            return
        self.assertTrue(0 <= lease.prefix <= 32)

    def test_names(self) -> None:
        """Names of interfaces fit into the kernel's 15 characters."""
        self.assertLessEqual(len(cable_name(MAC)), 15)


class MachineTests(SynchronousTestCase):
    def test_kernel(self) -> None:
        """The arguments of a script are one word of QEMU's, whatever they hold."""
        nasty = '-drive file=/etc/shadow,if=virtio "quoted" -- -kernel /x'
        boot = Boot(Path("/k"), nasty, (Path("/i"),))
        self.assertEqual(
            boot_options("pc-x86-64", boot), ["-kernel", "/k", "-initrd", "/i", "-append", nasty]
        )
        self.assertEqual(
            boot_options("qemu-arm-64", Boot(Path("/k"), "a", ())),
            ["-kernel", "/k", "-append", "a sysctl.abi.cp15_barrier=2 sysctl.abi.setend=2"],
        )

    def test_arm(self) -> None:
        """The machine of ARM models (spec node-protocols §8.5)."""
        self.assertRaises(Invalid, architecture, "rpi-3-b")
        config = machine_config("vn", MAC, "qemu-arm-64", {"ram": "1G", "cpu.cores": "2"})
        argv = command(
            config, "kvm", boot_options("qemu-arm-64", Boot(Path("/k"), "a", ())),
            nic_options(on_tap("wt0"), "walt-net", MAC, ARM.nic), ["/d/disk_0.dd"], "mon:stdio",
        )
        text = " ".join(argv)
        for part in (
            "qemu-system-aarch64 -name vn -nodefaults -machine virt,accel=kvm -cpu host -m 1024",
            "-smp 2", "-serial mon:stdio -no-reboot -kernel /k -append a sysctl.abi",
            "-netdev tap,ifname=wt0,script=no,downscript=no,id=walt-net",
            f"-device virtio-net-device,netdev=walt-net,mac={MAC}",
            "file=/d/disk_0.dd,format=raw,id=disk0,if=none -device scsi-hd,drive=disk0",
        ):
            self.assertIn(part, text)

    def test_usb(self) -> None:
        """The four sockets of a Raspberry Pi 3B+."""
        self.assertEqual(usb_options()[:4], [
            "-device", "nec-usb-xhci,id=usb",
            "-device", "usb-host,bus=usb.0,hostbus=1,hostport=1.1.2",
        ])
        self.assertEqual(len(usb_options()), 10)

    def test_several_initrds(self) -> None:
        """Several archives become one; each begins at a multiple of 4 bytes."""
        directory = short_dir(self)
        paths = [directory / name for name in "abc"]
        for path, content in zip(paths, (b"12345", b"6", b"78"), strict=True):
            path.write_bytes(content)
        self.assertEqual(joined(paths), (paths[0],))
        self.assertEqual(paths[0].read_bytes(), b"12345\0\0\0" b"6\0\0\0" b"78")
        self.assertEqual(joined([]), ())


class FilesTests(SynchronousTestCase):
    def test_pid(self) -> None:
        """A node runs once."""
        path = short_dir(self) / "sub" / "pid"
        held = PidFile(path)
        self.assertEqual(path.read_text(), f"{os.getpid()}\n")
        self.assertRaises(Conflict, PidFile, path)
        held.remove()
        self.assertFalse(path.exists())
        PidFile(path).remove()

    def test_messages(self) -> None:
        """One line each; what scripts say cannot drive a terminal."""
        path = short_dir(self) / "log"
        Messages.to(path, "vn")("a\x1b[2Jb\nc")
        self.assertEqual(path.read_text(), "vn: a [2Jb c\n")


class TimingTests(SynchronousTestCase):
    def test_limit(self) -> None:
        """A limit that is over, work that is done, a cancellation from outside."""
        async def check() -> None:
            with self.assertRaises(asyncio.TimeoutError):
                await within(0.01, asyncio.sleep(60))
            self.assertEqual(await within(60, asyncio.sleep(0, "done")), "done")
            with self.assertRaises(OSError):
                await within(60, self.failing())
            task = asyncio.ensure_future(within(60, asyncio.sleep(60)))
            await asyncio.sleep(0)
            task.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await task

        asyncio.run(check())

    async def failing(self) -> None:
        """Fail."""
        raise OSError("no")

    def test_not_interrupted(self) -> None:
        """Work that must be done is done before a cancellation counts."""
        done = []

        async def work() -> None:
            await asyncio.sleep(0.02)
            done.append(True)

        async def check() -> None:
            task = asyncio.ensure_future(uninterrupted(work()))
            for _ in range(2):
                await asyncio.sleep(0)
                task.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await task
            self.assertEqual(done, [True])
            with self.assertRaises(OSError):
                await uninterrupted(self.failing())

        asyncio.run(check())
