"""Recipes of images: whose images they name (spec server §5.10, Dockerfile reference)."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass

from walt.common.errors import Invalid, NotFound
from walt.common.names import PLATFORM_USER

NAMES = ("Dockerfile", "ContainerFile", "Containerfile")
MAX_SIZE = 1 << 20  # bytes
HUB = "docker.io"

_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-/:@+]*")
_PIECE = re.compile(
    r"(?P<escaped>ESCAPE.)|'(?P<quoted>[^']*)'|(?P<dropped>\")"
    r"|\$\{(?P<braced>\w+)(?:(?P<operator>:?[-+])(?P<other>[^}]*))?\}|\$(?P<plain>\w+)",
)
# Options of RUN --mount=type=tmpfs, which is in memory alone and leads nowhere.
_IN_MEMORY = frozenset(("type", "target", "dst", "destination", "size"))
_PLAIN_FLAG = re.compile(r"--(?!mount)[a-z-]+(?:=.*)?", re.DOTALL)
_FLAG_OF_RUN = re.compile(r"--(?:network|security)=[A-Za-z]+")
_PLAIN_VALUE = re.compile(r"[A-Za-z0-9_/][A-Za-z0-9_./-]*")
FROM, MOUNT = "--from=", "--mount="


@dataclass(frozen=True)
class Instruction:
    """One instruction: `text` as written, continued lines joined; its parts.

    `keyword` is in upper case; `flags` are what begins with `--`, `words` what follows.
    `inner` is what ONBUILD keeps for later.
    """

    keyword: str
    flags: tuple[str, ...]
    words: tuple[str, ...]
    text: str
    inner: Instruction | None = None


class ImageNames:
    """Names images in full, instruction by instruction.

    An image without user part is the caller's, but for `scratch` and stages that came before;
    names of the form `user/image` are those of the platform. Names with variables get the
    values that ARG gave so far; `platform` are those that nobody has to declare. `escape` is
    the escape character of the recipe; `known` are the full names of the images of the
    platform (None: any).
    """

    def __init__(
        self, user: str, platform: Mapping[str, str], escape: str = "\\",
        known: Container[str] | None = None,
    ) -> None:
        self._user = user
        self._images = known
        self._piece = re.compile(_PIECE.pattern.replace("ESCAPE", re.escape(escape)), re.DOTALL)
        self._first = dict(platform)  # what is known before the first stage
        self._known = self._first
        self._stages: list[str] = []

    @property
    def found(self) -> bool:
        """Whether there was a stage."""
        return bool(self._stages)

    def rewritten(self, instruction: Instruction) -> str | None:
        """Return the text of an instruction with full names, None if it is fine as it is.

        Raises Invalid for names that cannot be known, or are none; NotFound.
        """
        if instruction.keyword == "FROM":
            return self._stage(instruction)
        if instruction.keyword == "ARG":
            self._remember(instruction.words)
        elif instruction.keyword == "COPY":
            return _replaced(instruction, FROM, self._image)
        elif instruction.keyword == "RUN":
            return _replaced(instruction, MOUNT, self._mount)
        elif instruction.inner is not None:
            inner = self.rewritten(instruction.inner)
            return None if inner is None else f"{instruction.text.split()[0]} {inner}"
        return None

    def _stage(self, instruction: Instruction) -> str:
        if not instruction.words:
            raise Invalid("a FROM line of the recipe names no image")
        self._known = self._first
        image = self._image(instruction.words[0], numbers=False)
        rest = instruction.words[1:]
        self._stages.append(rest[1].lower() if len(rest) == 2 else "")
        self._known = {}
        return " ".join([instruction.text.split()[0], *instruction.flags, image, *rest])

    def _remember(self, words: Iterable[str]) -> None:
        for word in words:
            name, has_value, value = word.partition("=")
            if has_value:
                try:
                    self._known[name] = self._expand(value)
                except Invalid:
                    self._known.pop(name, None)  # it is told where an image is named by it
            elif name in self._first:
                self._known[name] = self._first[name]

    def _image(self, word: str, *, numbers: bool = True) -> str:
        """Return the full reference for a word that names an image or a stage."""
        name = self._expand(word)
        if name.lower() in filter(None, self._stages) or (numbers and name.isdecimal()):
            return name
        reference = full_reference(name, self._user)
        if self._images is not None and reference != name:
            self._check_known(name, reference.removeprefix(f"{HUB}/"))
        return reference

    def _check_known(self, name: str, fullname: str) -> None:
        """Raise NotFound for an image of the platform that is not there.

        The builder would ask a stranger of that name on the Docker Hub for it.
        """
        user, _, image = fullname.partition("/")
        if "@" in image or user == PLATFORM_USER:
            return
        if (fullname if ":" in image else f"{fullname}:latest") not in (self._images or ()):
            whose = "you have" if "/" not in name else f"{user} has"
            hub = f"{HUB}/{name}" if "/" in name else f"{HUB}/library/{name}"
            raise NotFound(
                f"the recipe: {whose} no image named {image!r} here (see: walt image show --all);"
                f" if an image of the Docker Hub is meant, write {hub}"
            )

    def _mount(self, options: str) -> str:
        fields = options.split(",")
        for number, field in enumerate(fields):
            key, has_value, value = field.partition("=")
            if key.strip().lower() == "from":
                fields[number] = f"{key}={self._image(value)}"
            elif key.strip(" \"'").lower() == "from" or ("$" in key and not has_value):
                raise Invalid(f"--mount={options}: write from=… there, without quotes or variable")
        return ",".join(fields)

    def _expand(self, word: str) -> str:
        """Replace variables, as builders do. Raises Invalid without a value."""

        def value(match: re.Match[str]) -> str:
            if match["escaped"] is not None:
                return match["escaped"][1:]
            if match["quoted"] is not None or match["dropped"] is not None:
                return match["quoted"] or ""
            name = match["braced"] or match["plain"]
            found, operator = self._known.get(name), match["operator"] or ""
            if operator.startswith(":") and found == "":
                found = None
            if operator.endswith("+"):
                return "" if found is None else match["other"]
            if found is None and operator:
                return match["other"]
            if found is None:
                raise Invalid(
                    f"the recipe names an image by ${name}, which has no value here: write"
                    f" `ARG {name}=…` before"
                )
            return found

        return self._piece.sub(value, word)


def _replaced(instruction: Instruction, flag: str, change: Callable[[str], str]) -> str | None:
    """Return the text with the values of a flag changed, None if none of them changes."""
    text = instruction.text
    for written in instruction.flags:
        if not written.lower().startswith(flag):
            continue
        value = written[len(flag):]
        new = change(value)
        if new == value:
            continue
        if written not in text:
            raise Invalid(f"{written}: write this without quotes")
        text = text.replace(written, f"{flag}{new}", 1)
    return None if text == instruction.text else text


def mounts_files(instruction: Instruction) -> bool:
    """Tell whether an instruction mounts files: of the directory, a cache, a stage, an image.

    What variables and quotes stand for is not known here: in the name of a flag it may be that.
    """
    if instruction.inner is not None:
        return mounts_files(instruction.inner)
    flags = _PLAIN_FLAG if instruction.keyword != "RUN" else _FLAG_OF_RUN
    return any(not flags.fullmatch(flag) and not _is_in_memory(flag) for flag in instruction.flags)


def _is_in_memory(flag: str) -> bool:
    """Tell whether a --mount is of a file system in memory: each option plain, and once."""
    options = [field.partition("=") for field in flag.removeprefix(MOUNT).split(",")]
    names = [name for name, _, _ in options]
    return (
        flag.startswith(MOUNT) and ("type", "=", "tmpfs") in options
        and len(set(names)) == len(names) and _IN_MEMORY.issuperset(names)
        and all(_PLAIN_VALUE.fullmatch(value) for _, _, value in options)
    )


def full_reference(image: str, user: str) -> str:
    """Return the full reference of an image named in a recipe of a user; Invalid if it is none."""
    if not _REFERENCE.fullmatch(image):
        raise Invalid(f"the recipe: {image[:80]!r} is not the name of an image")
    if image == "scratch":
        return image
    first, slash, rest = image.partition("/")
    if not slash:
        return f"{HUB}/{user}/{image}"
    if "." in first or ":" in first or first == "localhost" or "/" in rest:
        return image
    return f"{HUB}/{image}"
