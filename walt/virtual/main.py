"""walt-virtual-node: lend this machine to a WalT platform as a virtual node."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Callable

from walt.common.errors import Invalid, Unavailable, WaltError, in_words
from walt.common.qemu import architecture
from walt.virtual.control import MAX_LINE, Exit, parse_command
from walt.virtual.files import Messages, PidFile, ScreenFile
from walt.virtual.node import VirtualNode
from walt.virtual.options import Options, parse_options
from walt.virtual.processes import without_threads


def main() -> None:
    """Run a node until SIGTERM; SIGHUP restarts its machine."""
    try:
        options = parse_options(sys.argv[1:])
        _check_machine(options)
        say = Messages.to(options.log_file, options.log_prefix)
        pid_file = PidFile(options.pid_path)
    except (WaltError, OSError) as error:
        sys.exit(f"walt-virtual-node: {in_words(error)}")
    try:
        screen_file = ScreenFile(options.screen_session_path)
        try:
            without_threads()
            asyncio.run(_live(options, say))
        finally:
            screen_file.remove()
    except OSError as error:
        sys.exit(f"walt-virtual-node: {in_words(error)}")
    finally:
        pid_file.remove()


def _check_machine(options: Options) -> None:
    """Refuse to start where nothing can work. Raises Unavailable."""
    if os.geteuid() != 0:
        raise Unavailable("it makes network interfaces: run it as root")
    wanted = [architecture(options.model).program, "ip"]
    if options.udhcpc:
        wanted += ["busybox", "nsenter"]
    missing = [name for name in wanted if shutil.which(name) is None]
    if missing:
        raise Unavailable(f"not installed here: {', '.join(missing)}")


async def _live(options: Options, say: Messages) -> None:
    node = VirtualNode(options, say)
    life = asyncio.ensure_future(node.live())
    ending = False

    def end() -> None:
        nonlocal ending
        if not ending:  # a second cancellation would cut what the first one cleans up
            ending = True
            life.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    loop.add_signal_handler(signal.SIGHUP, node.kill_machine)
    orders = asyncio.ensure_future(_take_orders(node, end, say)) if options.managed else None
    try:
        await life
    except asyncio.CancelledError:
        say("ended")
    finally:
        if orders is not None:
            orders.cancel()


async def _take_orders(node: VirtualNode, end: Callable[[], None], say: Messages) -> None:
    """Obey a managing program at all times; end with it."""
    reader = asyncio.StreamReader(limit=MAX_LINE)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while True:
        try:
            line = await reader.readline()
            if not line:
                break
            command = parse_command(line)
            if isinstance(command, Exit):
                break
            node.obey(command)
        except (Invalid, ValueError) as error:
            say(str(error))
    end()
