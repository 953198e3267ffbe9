"""Recipes of images as BuildKit reads them: blocking code for workers.

The parser is BuildKit's own: here-documents, escape characters, continued lines and byte order
marks are what they are for docker.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import dockerfile

from walt.common.errors import Invalid, NotFound
from walt.common.ignored import FILES, Ignored
from walt.server.domain.images.recipes import (
    MAX_SIZE,
    NAMES,
    ImageNames,
    Instruction,
    mounts_files,
)

# Before this version, links in what `RUN --mount` mounts, and names of caches with `..`, lead to
# files of the server, with write access (CVE-2024-1753, CVE-2024-9675, CVE-2024-11218).
SAFE_MOUNTS = (5, 3, 2)
DOCUMENTS = (4, 8, 0)  # the first version of podman that knows here-documents
# Architectures as images name them, by those of uname(2).
_ARCHITECTURES = {
    "x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "armv6l": "arm", "i686": "386",
}
_DIRECTIVE = re.compile(r"#\s*(\w+)\s*=\s*(\S+)\s*")
_ONBUILD = re.compile(r"\s*ONBUILD\s+", re.IGNORECASE)


def prepare(
    context: Path, root: Path, user: str, podman: Sequence[int],
    known: Container[str] | None = None,
) -> str:
    """Return what a podman of this version is to build of a directory below `root`.

    `user` asks for it; `known` are the full names of images (None: any). Raises NotFound or
    Invalid.
    """
    text = read(context, root)
    if tuple(podman) < SAFE_MOUNTS:
        text = _without_mounts(text, with_documents=tuple(podman) >= DOCUMENTS)
    return rewrite(text, user, os.uname().machine, known)


def _without_mounts(text: str, *, with_documents: bool) -> str:
    """Return a recipe written anew, an instruction a line: an older podman reads it as we do.

    Raises Invalid for what such a podman does not do safely, or not at all.
    """
    escape = _escape(text)
    lines = [] if escape == "\\" else [f"# escape={escape}"]
    for start, end, instruction, documents in _instructions(text):
        if mounts_files(instruction):
            raise Invalid(
                "the recipe mounts files (RUN --mount=…), which the podman of this server does not"
                f" do safely (before {_dotted(SAFE_MOUNTS)}); use COPY, or COPY --from=…, instead"
            )
        if documents and not with_documents:
            raise Invalid(
                "the recipe has here-documents (RUN <<…), which the podman of this server does"
                f" not know (before {_dotted(DOCUMENTS)}); use several RUN lines, or a script"
                " that is copied"
            )
        words = instruction.text.strip()
        if not documents and ("\n" in words or "\r" in words or words.endswith(escape)):
            raise Invalid(f"the recipe: line {start} has no end that every reader would see")
        lines += text.split("\n")[start - 1:end] if documents else [words]
    return "\n".join([*lines, ""])


def read(context: Path, root: Path) -> str:
    """Return the text of the recipe in a directory; it may be a link to a file below `root`.

    Raises NotFound or Invalid.
    """
    found = _read_first(context, root, NAMES)
    if found is None:
        raise NotFound("there is no Dockerfile (nor ContainerFile) in this directory")
    return found.decode("utf-8-sig", errors="replace")


def remove_ignored(context: Path, root: Path) -> None:
    """Remove what a directory below `root` says that a build shall not see. Raises Invalid.

    Versions of podman differ in what they see of directories with exceptions.
    """
    text = (_read_first(context, root, FILES) or b"").decode("utf-8-sig", "surrogateescape")
    try:
        ignored = Ignored(text.splitlines())
    except ValueError as error:
        raise Invalid(str(error)) from None
    for directory, names, files in os.walk(context, topdown=False):
        for name in (*files, *names):
            path = os.path.join(directory, name)
            if os.path.relpath(path, context) not in ignored:
                continue
            if os.path.isdir(path) and not os.path.islink(path):
                with suppress(OSError):  # something in it is seen
                    os.rmdir(path)
            else:
                os.unlink(path)


def _read_first(context: Path, root: Path, names: Sequence[str]) -> bytes | None:
    """Return the content of the first file that is there, None without any.

    podman would follow its links, with the rights of the server.
    """
    for name in names:
        if not os.path.lexists(context / name):
            continue
        path = Path(os.path.realpath(context / name))
        if not path.is_relative_to(os.path.realpath(root)):
            raise Invalid(f"{name} is a link to something that is not in the directory sent")
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            raise Invalid(f"{name} cannot be read: {error.strerror}") from None
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_SIZE:
                raise Invalid(f"{name} is not a regular file, or is larger than 1 MiB")
            return os.read(descriptor, MAX_SIZE)
        finally:
            os.close(descriptor)
    return None


def rewrite(
    text: str, user: str, machine: str, known: Container[str] | None = None
) -> str:
    """Return a recipe of a user whose images are named in full.

    `machine` is the kind of processor, as uname(2) tells it; `known` are the full names of the
    images of the platform (None: any). Raises Invalid or NotFound.
    """
    names = ImageNames(user, _platform(machine), _escape(text), known)
    lines, made, done = text.split("\n"), [], 0
    for start, end, instruction, _ in _instructions(text):
        made += lines[done:start - 1]
        new = names.rewritten(instruction)
        made += lines[start - 1:end] if new is None else [new.rstrip("\n")]
        done = end
    if not names.found:
        raise Invalid("the recipe has no FROM line")
    made += lines[done:]
    return "\n".join(made)


def _instructions(text: str) -> Iterator[tuple[int, int, Instruction, bool]]:
    """Yield the first and the last line, the instruction, and whether it has documents."""
    if "\0" in text:
        raise Invalid("the recipe is no text: it has a NUL character")  # where the parser stops
    try:
        parsed = dockerfile.parse_string(text)
    except dockerfile.GoParseError as error:
        raise Invalid(f"the recipe cannot be read: {str(error)[:300]}") from None
    for step in parsed:
        if not step.cmd:
            continue  # escape characters alone
        inner = None
        if step.cmd.upper() == "ONBUILD" and step.sub_cmd:
            rest = step.original[_ONBUILD.match(step.original).end():]  # type: ignore[union-attr]
            inner = next((found for _, _, found, _ in _instructions(rest)), None)
        yield step.start_line, step.end_line, Instruction(
            step.cmd.upper(), step.flags, step.value, step.original, inner
        ), bool(step.heredocs)


def _escape(text: str) -> str:
    """Return the escape character that the directives at the top ask for."""
    for line in text.split("\n"):
        match = _DIRECTIVE.fullmatch(line.strip())
        if match is None:
            break
        if match[1].lower() == "escape":
            return match[2][:1]
    return "\\"


def _platform(machine: str) -> Mapping[str, str]:
    """Return the variables that every recipe has before its first stage."""
    architecture = _ARCHITECTURES.get(machine, machine)
    found = {"OS": "linux", "ARCH": architecture, "PLATFORM": f"linux/{architecture}"}
    return {
        f"{kind}{name}": value for kind in ("BUILD", "TARGET") for name, value in found.items()
    }


def _dotted(version: Sequence[int]) -> str:
    return ".".join(map(str, version))
