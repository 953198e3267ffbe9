"""Workers that read what strangers send give up root before their first job."""

from __future__ import annotations

import ctypes
import importlib
import os
import pwd
import signal

ACCOUNT = "nobody"
_PR_SET_PDEATHSIG = 1  # prctl(2)
_PR_SET_NO_NEW_PRIVS = 38
_libc = ctypes.CDLL(None, use_errno=True)


def become(modules: list[str]) -> None:
    """Import the modules of the jobs, then become an account that owns nothing.

    A module may have a function `prepare`, for what it would load at its first job.
    Without root nothing else happens. What is imported later may be out of reach:
    the code may lie in a directory of root.
    """
    # Looked up by name when a host name is resolved.
    importlib.import_module("encodings.idna")
    for module in modules:
        prepare = getattr(
            importlib.import_module(f"walt.server.workers.{module}"), "prepare", None
        )
        if prepare is not None:
            prepare()
    if os.getuid() != 0:
        return
    account, parent = pwd.getpwnam(ACCOUNT), os.getppid()
    os.setgroups([])
    os.setgid(account.pw_gid)
    os.setuid(account.pw_uid)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    # The kernel forgets it when the account changes (prctl(2)).
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
