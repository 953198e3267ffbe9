"""Entry module of worker children: read a job, do it, answer, again.

Blocking on purpose and without Twisted (a worker costs 10 MiB, not 40). A job
is `module:function` in this package; it takes a dict and returns JSON values.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from walt.common import ampbox
from walt.common.errors import LimitExceeded, WaltError, in_words
from walt.server.trackexec import VARIABLE

_JOB = re.compile(r"([a-z][a-z0-9_]*):([a-z][a-z0-9_]*)")

Progress = Callable[[str], None]


def find(job: str) -> Callable[[dict[str, Any], Progress], Any]:
    """Return the function of a job name; ValueError if it is not one."""
    match = _JOB.fullmatch(job)
    if match is None or match[1] == "main":
        raise ValueError(f"bad job name {job!r}")
    module = importlib.import_module(f"walt.server.workers.{match[1]}")
    function: Callable[[dict[str, Any], Progress], Any] = getattr(module, match[2])
    return function


@contextmanager
def memory_of(job: Callable[..., Any]) -> Iterator[None]:
    """Limit the address space of this process to `MEMORY` of the job's module, if it has one.

    Modules that read what strangers send, and start no programs, have it: what is small on
    its way may be large when it is read. Raises LimitExceeded.
    """
    size = getattr(sys.modules[job.__module__], "MEMORY", None)
    if size is None:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size, hard))
    try:
        yield
    except MemoryError:
        raise LimitExceeded(
            f"what was received takes more than {size >> 20} MiB of memory to read"
        ) from None
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def answer(box: ampbox.Box, progress: Progress) -> ampbox.Box:
    """Do the job in `box` and return the box of its answer."""
    try:
        job = find(box[b"job"].decode())
        arguments = json.loads(ampbox.join_value(b"arguments", box) or b"{}")
        with memory_of(job):
            return {b"result": json.dumps(job(arguments, progress)).encode()}
    except WaltError as error:
        return {b"error": str(error).encode() or b"failed", b"code": error.code.encode()}
    except Exception as error:
        traceback.print_exc()
        text = f"{type(error).__name__}: {in_words(error)}"
        return {b"error": text.encode(errors="replace"), b"code": b"INTERNAL"}


def serve(source: BinaryIO, wire: BinaryIO) -> None:
    """Answer jobs read from `source` on `wire` until the end of input."""

    def progress(text: str) -> None:
        wire.write(ampbox.encode({b"progress": text.encode()}))
        wire.flush()

    decoder = ampbox.Decoder()
    while data := os.read(source.fileno(), 65536):
        for box in decoder.feed(data):
            wire.write(ampbox.encode(answer(box, progress)))
            wire.flush()


def main() -> None:
    """Serve jobs on stdin and stdout; a stray print goes to stderr instead.

    SIGTERM ends the job in progress as an exception does: it cleans up.

    `--unprivileged MODULE…` gives up root, for the jobs of these modules.
    """
    if VARIABLE in os.environ:
        from walt.server.trackexec.start import record_worker

        record_worker()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    wire = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    if sys.argv[1:2] == ["--unprivileged"]:
        from walt.server.workers import unprivileged

        unprivileged.become(sys.argv[2:])
    serve(sys.stdin.buffer, wire)


if __name__ == "__main__":
    main()
