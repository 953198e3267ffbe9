"""How much memory machines of this server may have at most."""

from __future__ import annotations

import re
from pathlib import Path


def memory_of_this_machine(meminfo: Path = Path("/proc/meminfo")) -> int:
    """Return memory and swap space of this machine in MiB (proc_meminfo(5))."""
    found = dict(re.findall(r"(?m)^(\w+): +([0-9]+) kB$", meminfo.read_text()))
    return (int(found["MemTotal"]) + int(found.get("SwapTotal", 0))) // 1024
