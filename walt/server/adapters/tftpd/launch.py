"""Become in.tftpd, under an account, with its port and nothing else: needs the standard library.

    launch.py ADDRESS PORT ACCOUNT PROGRAM [ARGUMENT…]

in.tftpd --listen wants to start as root, to open port 69 and to change its account for each
transfer. As a child of inetd it takes its socket as standard input, and just changes its
root directory and its list of groups: here within a user namespace that has one account, in
which these rights reach nothing else (user_namespaces(7)). Where there are no user namespaces,
the two capabilities are those of the machine; root it is not, either.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import socket
import struct
import sys
from collections.abc import Sequence

from walt.common.errors import in_words

CAPABILITIES = (6, 18)  # cap_setgid, cap_sys_chroot (linux/capability.h)
_CLONE_NEWUSER = 0x10000000
_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_SET_KEEPCAPS = 1, 24, 38, 8
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 47, 2
_VERSION_3 = 0x20080522  # capget(2)
_SIGKILL = 9
_libc = ctypes.CDLL(None, use_errno=True)


def main(argv: Sequence[str]) -> None:
    """Be the program. Raises OSError, KeyError for an account that is missing."""
    address, port, account, *program = argv
    # The account may not read what Python would look for to find a program.
    path = shutil.which(program[0])
    if path is None:
        raise OSError(f"{program[0]} is not installed on the server")
    entry = pwd.getpwnam(account)
    endpoint = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    endpoint.bind((address, int(port)))
    os.dup2(endpoint.fileno(), 0)
    endpoint.close()
    parent = os.getppid()
    _enter_user_namespace(entry.pw_uid, entry.pw_gid)
    _drop(entry.pw_uid, entry.pw_gid)
    # A change of account has cleared it; the parent may have died before.
    _prctl(_PR_SET_PDEATHSIG, _SIGKILL)
    if os.getppid() == parent:
        os.execv(path, program)  # noqa: S606 (a vector, no shell)


def _enter_user_namespace(uid: int, gid: int) -> None:
    """Go into a user namespace of one account, if there are any; its maps want a helper."""
    own = os.getpid()
    made_read, made_write = os.pipe()
    helper = os.fork()
    if helper == 0:
        status = 1
        try:
            os.close(made_write)
            if os.read(made_read, 1):
                for kind, number in (("uid", uid), ("gid", gid)):
                    with open(f"/proc/{own}/{kind}_map", "w", encoding="ascii") as written:
                        written.write(f"{number} {number} 1\n")
            status = 0
        finally:
            os._exit(status)
    os.close(made_read)
    if _libc.unshare(_CLONE_NEWUSER) == 0:
        os.write(made_write, b"x")
    os.close(made_write)
    if os.waitstatus_to_exitcode(os.waitpid(helper, 0)[1]) != 0:
        raise OSError("the user namespace has no account")


def _drop(uid: int, gid: int) -> None:
    """Change the account; of all capabilities, keep those that in.tftpd uses."""
    for number in range(64):
        if number not in CAPABILITIES:
            _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)
    _prctl(_PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    mask = sum(1 << number for number in CAPABILITIES)
    data = struct.pack("=6I", mask, mask, mask, 0, 0, 0)  # effective, permitted, inheritable
    if _libc.capset(struct.pack("=Ii", _VERSION_3, 0), data) != 0:
        raise OSError(ctypes.get_errno(), "capset")
    for number in CAPABILITIES:
        _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, number)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def _prctl(*words: int) -> None:
    if _libc.prctl(*words, *[0] * (5 - len(words))) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {words[0]}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (OSError, KeyError) as error:
        raise SystemExit(f"in.tftpd cannot be started: {in_words(error)}") from None
