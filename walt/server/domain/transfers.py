"""The remote side of file transfers: POSIX sh scripts for nodes and containers.

The rules themselves are in `walt.common.transfers`, which clients use too. An
archive holds either one file, or the content of one directory (members start
with `./`); its first member, the directory itself, is left out when the content
is merged into a directory that exists, whose owner and mode must not change.
"""

from __future__ import annotations

import posixpath
from contextlib import suppress
from shlex import quote

from walt.common.errors import CommandFailed, Invalid
from walt.common.transfers import DIRECTORY, KINDS, MAX_PATH, Place

MAX_ANSWER = 16
MAX_ENTRIES = 1000  # of a directory that are listed
# A name with a newline is listed as two, which are no files: they are not flushed.
_FLUSH = (
    'for one; do if [ -f "$one" ] && [ ! -h "$one" ]; then set -- "$@" "$one"; fi; shift; done; '
    '[ $# -eq 0 ] || sync "$@"'
)
# GNU tar and bsdtar put a directory in the place of a link that leads to one, such as
# /lib of an image; busybox's goes through it. bsdtar names files among its errors: it gets
# no list of them, the file system is flushed.
_THROUGH_LINKS = (
    'told=-v; case "$(tar --help 2>&1)" in '
    "*keep-directory-symlink*) through=--keep-directory-symlink;; "
    "*bsdtar*) through=-P; told=;; *) through=;; esac; "
)
_EMPTY = "head -c 10240 /dev/zero"  # tar refuses to write an archive without member


def checked_remote_path(path: str) -> str:
    """Return an absolute path; Invalid for any other text."""
    if not path.startswith("/") or "\0" in path or len(path) > MAX_PATH:
        raise Invalid("a remote path is absolute, has no NUL and at most 4096 characters")
    return path


def probe_script(path: str) -> str:
    """Return a script that prints the kind of `path`, a space, the kind of its directory.

    Symbolic links are followed. `parse_probe` reads the answer.
    """
    parent = posixpath.dirname(path) or "/"
    return (
        'kind() { if [ -d "$1" ]; then printf d; elif [ -f "$1" ]; then printf f; '
        'elif [ -e "$1" ]; then printf o; else printf -- -; fi; }; '
        f"kind {quote(path)}; printf ' '; kind {quote(parent)}"
    )


def parse_probe(answer: bytes) -> tuple[str, str]:
    """Return the kinds in the answer of a probe. Raises CommandFailed."""
    kinds = answer[:MAX_ANSWER].decode(errors="replace").strip().split(" ")
    if len(kinds) != 2 or not KINDS.issuperset(kinds):
        raise CommandFailed("the remote side did not tell what this path is")
    return kinds[0], kinds[1]


def list_script(directory: str, prefix: str) -> str:
    """Return a script that prints what a directory holds under names that begin with `prefix`.

    Hidden names are left out unless the prefix begins with a dot. `parse_list` reads the
    answer; it is empty for what is no directory.
    """
    return (
        f"cd {quote(directory)} 2>/dev/null || exit 0; left={MAX_ENTRIES}; "
        f"for one in {quote(prefix)}*; do "
        'case "$one" in .|..) continue;; esac; '
        'if [ -d "./$one" ]; then printf \'%s/\\0\' "$one"; '
        'elif [ -e "./$one" ] || [ -h "./$one" ]; then printf \'%s\\0\' "$one"; fi; '
        'left=$((left - 1)); [ $left -gt 0 ] || break; done; exit 0'
    )


def parse_list(answer: bytes) -> list[str]:
    """Return the names in the answer of a list; those that are no UTF-8 are left out."""
    names = []
    for word in answer.split(b"\0")[:-1]:
        with suppress(UnicodeDecodeError):
            names.append(word.decode())
    return names


def send_script(path: str, kind: str, *, merge: bool) -> str:
    """Return a script that writes the archive of a file or directory on its output.

    `merge`: the content goes into a directory that exists. A source that is a
    symbolic link is followed, those below it are kept.
    """
    if kind != DIRECTORY:
        directory, name = posixpath.split(path)
        file = quote("./" + name)
        # The kernel tells no size, or a wrong one, of what it writes when it is read.
        return (
            f"cd {quote(directory or '/')} && file={file} && "
            'case "$(readlink -f "$file")" in /proc/*|/sys/*) '
            'tmp=$(mktemp -d) && cat "$file" > "$tmp/$file" && '
            '(cd "$tmp" && tar -c -f - "$file"); status=$?; rm -rf "$tmp"; exit $status;; esac && '
            'tar -c -h -f - "$file"'
        )
    if not merge:
        return f"cd {quote(path)} && tar -c -f - ."
    return (
        f"cd {quote(path)} && {{ set --; for one in * .[!.]* ..?*; do "
        'if [ -e "$one" ] || [ -L "$one" ]; then set -- "$@" "./$one"; fi; done; '
        f'if [ $# -eq 0 ]; then {_EMPTY}; else tar -c -f - "$@"; fi; }}'
    )


def receive_script(place: Place, kind: str) -> str:
    """Return a script that reads an archive on its input and puts it at `place`.

    A file replaces another one only when it is complete. What exists as a link to a directory,
    and a file that is a link to another one, stay links, as with `cp -r`. Every file is
    flushed: the tar of busybox does not see that an NFS server has no space left.
    """
    target = quote(place.path)
    if kind == DIRECTORY:
        return (
            f"list=$(mktemp) || exit 1; {_THROUGH_LINKS}"
            f'mkdir -p {target} && cd {target} && tar -x $through $told -f - > "$list" && '
            f"tr '\\n' '\\0' < \"$list\" | xargs -0 -r sh -c {quote(_FLUSH)} sh && "
            '{ [ -n "$told" ] || sync -f .; }; '
            'status=$?; rm -f "$list"; exit $status'
        )
    return (
        f"if [ -d {target} ]; then echo {target}: this is a directory >&2; exit 1; fi; "
        f"target={target}; "
        'if [ -h "$target" ] && [ -f "$target" ]; then target=$(readlink -f "$target"); fi; '
        'tmp=$(mktemp -d "$(dirname "$target")/.walt-XXXXXX") || exit 1; '
        # The one file of the archive may have a dot in front.
        'if (cd "$tmp" && tar -x -f -) && set -- "$tmp"/* "$tmp"/.[!.]* "$tmp"/..?* && '
        'for one; do [ -e "$one" ] || [ -h "$one" ] || continue; break; done && '
        'sync "$one" && mv -f "$one" "$target"; '
        'then rm -rf "$tmp"; else rm -rf "$tmp"; exit 1; fi'
    )
