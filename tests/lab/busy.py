"""What people and nodes do in a busy minute, and what a disk has of it afterwards.

A program for the lab's guest: `busy.py work CUT LOOP…` goes on until the power is cut, and tells
each step before it begins, and when it was answered, as a JSON object a line; `busy.py look CUT`
tells what there is. It runs with the Python of the server. Commands are forked from one process:
an emulated machine takes seconds to load them.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

NET = "192.168.77"
STORAGE = Path("/var/lib/walt/containers/storage")
OWNER = "docker.io/alice/"
PLACE = Path("/root/busy")
MARKS = "marks"  # directory below /root of images
FILES = 20  # in it
LINES = 400  # of one sender of log lines
BASE = "base"  # the mark of an image that has none
STREAM = "busy"
TEXT = "name: busy\n"  # of an experiment
MACHINES = 5  # that are registered before each cut
PAUSE = 0.2  # seconds between two steps of one person


def content(mark: str, number: int) -> str:
    """Return what the file of this number holds in an image with a mark."""
    return f"{mark}\n" * (1 + 97 * number)


def say(**facts: object) -> None:
    """Tell something, whole."""
    os.write(1, json.dumps(facts).encode() + b"\n")


# -- work ----------------------------------------------------------------------


def walt(*words: str) -> int:
    """Run a walt command; return its status. What it says is in a file of the loop."""
    from walt.client import main

    pid = os.fork()
    if pid == 0:
        told = os.open(PLACE / f"told-{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        yes, answer = os.pipe()
        os.write(answer, b"y\n")  # an image of that name is replaced
        os.close(answer)
        for descriptor, end in enumerate((yes, told, told)):
            os.dup2(end, descriptor)
        status = 1
        try:
            status = main.run(words)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    told_file = PLACE / f"told-{pid}"
    if code != 0:
        say(loop="failure", words=words, told=told_file.read_text(errors="replace")[-2000:])
    told_file.unlink()
    return code


def directory(loop: str, mark: str) -> Path:
    """Return a directory with the files of a mark."""
    place = PLACE / loop
    (place / MARKS).mkdir(parents=True, exist_ok=True)
    for number in range(FILES):
        (place / MARKS / f"f{number}").write_text(content(mark, number))
    return place


def build(cut: int, number: int) -> None:
    """Build an image, which replaces one of its name."""
    name, mark = f"built-{number % 3}", f"b{cut}.{number}"
    place = directory("build", mark)
    (place / "Dockerfile").write_text(
        f"FROM {BASE}\nCOPY {MARKS} /root/{MARKS}\nRUN echo {mark} > /root/number\n"
    )
    say(loop="build", state="begun", name=name, mark=mark)
    status = walt("image", "build", "--from-dir", str(place), name)
    say(loop="build", state="done", name=name, mark=mark, status=status)


def save(cut: int, number: int) -> None:
    """Copy files into an image, which is saved so."""
    name, mark = f"saved-{number % 2}", f"s{cut}.{number}"
    place = directory("save", mark)
    say(loop="save", state="begun", name=name, mark=mark)
    status = walt("image", "cp", f"{place / MARKS}/.", f"{name}:/root/{MARKS}")
    say(loop="save", state="done", name=name, mark=mark, status=status)


def rename(cut: int, number: int) -> None:
    """Give an image another name."""
    old, new = moved()[0], f"moved-{cut}-{number}"
    say(loop="rename", state="begun", old=old, new=new)
    status = walt("image", "rename", old, new)
    say(loop="rename", state="done", old=old, new=new, status=status)


def register(cut: int, number: int) -> None:
    """Have a machine ask for an address."""
    from walt.server.tools import dhcp_event

    dhcp_event.TIMEOUT = 60.0  # emulated machines may be busy for longer than dhcpd waits
    index = 10 * cut + number
    mac, ip = f"52:54:00:aa:03:{index:02x}", f"{NET}.{100 + index}"
    if number > MACHINES:
        time.sleep(3600)
    say(loop="register", state="begun", mac=mac, ip=ip)
    wanted = dhcp_event.parse(
        ["commit", "", "walt.node.pc-x86-64", ip, mac, "", "0", "unknown"]
    ).wanted
    assert wanted is not None
    error = dhcp_event.send(wanted, "/run/walt/rpc.sock")
    say(loop="register", state="done", mac=mac, ip=ip, status=int(error is not None))
    time.sleep(5)


def log(cut: int, number: int) -> None:
    """Send lines, and wait for their receipt."""
    with socket.create_connection((f"{NET}.1", 12347), 60) as one:
        lines = "".join(f"busy {cut} {number} {line}\n" for line in range(LINES))
        say(loop="log", state="begun", number=number)
        one.sendall(f"REQ_NEW_INCOMING_LOGS\n{STREAM}\nNO_TIMESTAMPS\n{lines}CLOSE\n".encode())
        say(loop="log", state="sent", number=number)
        rest = one.recv(10)
        say(loop="log", state="done", number=number, status=len(rest))
    time.sleep(1)


def point(cut: int, number: int) -> None:
    """Measure a point of an experiment: nothing on a node, its file as each one's."""
    from walt.client.experiment.archive import Folder

    folder = Folder(PLACE / f"run-{cut}")
    if number == 1:
        folder.begin({"number": cut}, TEXT, {})
        say(loop="point", state="run", number=0)
    folder.resume()
    facts = {"number": number, "outcome": "begun", "mark": content(f"p{cut}.{number}", 1)}
    say(loop="point", state="begun", number=number)
    folder.write_point(facts, lasting=False)
    time.sleep(0.05)
    folder.write_point({**facts, "outcome": "ok"})
    say(loop="point", state="done", number=number, status=0)
    folder.leave()


LOOPS: dict[str, Callable[[int, int], None]] = {
    "build": build, "save": save, "rename": rename, "register": register, "log": log,
    "point": point,
}


def watch() -> None:
    """Tell what podman is doing, by its files."""
    before, renamed, known = set[str](), len(moved()), b""
    while True:
        now = set()
        if b'"incomplete"' in read(STORAGE / "overlay-layers/layers.json"):
            now.add("layer")
        images = read(STORAGE / "overlay-images/images.json")
        if images == known:
            now |= before - {"layer"}
        else:
            known = images
            if any(one.startswith("localhost/walt/temporary:") for one in given()):
                now.add("unnamed")
            if len(moved()) > renamed:
                now.add("two names")
        for event in now - before:
            say(loop="watch", state=event)
        before = now
        time.sleep(0.005)


def read(path: Path) -> bytes:
    """Return the bytes of a file, none if it is being replaced."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def work(cut: int, loops: list[str]) -> None:
    """Do everything at once, until the end."""
    from walt.client.commands import image, image_sessions  # noqa: F401 (loaded once for all)
    from walt.client.experiment import archive  # noqa: F401

    PLACE.mkdir(exist_ok=True)
    for name in loops:
        if os.fork() == 0:
            for number in itertools.count(1):
                LOOPS[name](cut, number)
                time.sleep(PAUSE)
    watch()


# -- what is there ----------------------------------------------------------------


def given() -> dict[str, str]:
    """Return the uppermost layer of each image, by its full name."""
    return {
        name: image["layer"]
        for image in json.loads(read(STORAGE / "overlay-images/images.json") or b"[]")
        for name in image.get("names") or ()
    }


def tops() -> dict[str, str]:
    """Return the uppermost layer of each image of alice, by its short name."""
    return {
        name.removeprefix(OWNER).removesuffix(":latest"): layer
        for name, layer in given().items() if name.startswith(OWNER)
    }


def moved() -> list[str]:
    """Return the names of the image that gets another one again and again."""
    return sorted(one for one in tops() if one.startswith("moved-"))


def points(cut: int) -> list[int]:
    """Return the numbers of the points of a run that are whole."""
    found = []
    for file in sorted((PLACE / f"run-{cut}" / "points").glob("*.json")):
        try:
            facts = json.loads(file.read_text())
        except ValueError:
            continue
        if facts["outcome"] == "ok" and facts["mark"] == content(f"p{cut}.{facts['number']}", 1):
            found.append(facts["number"])
    return found


def look(cut: int) -> None:
    """Mount each image as the server does, and tell its mark, or what is wrong; and points."""
    from walt.common.errors import WaltError
    from walt.server.adapters.podman.overlay import mount_image, unmount_image

    parents = {
        one["id"]: one.get("parent")
        for one in json.loads(read(STORAGE / "overlay-layers/layers.json"))
    }
    found = {}
    for name, top in tops().items():
        layers, layer = [], top
        while layer:
            layers.append(f"l/{read(STORAGE / 'overlay' / layer / 'link').decode()}")
            layer = parents[layer]
        place = PLACE / "look"
        try:
            mount_image(STORAGE / "overlay", layers, place)
            found[name] = mark_of(place / "fs")
        except (WaltError, OSError, ValueError) as error:
            found[name] = f"{type(error).__name__}: {error}"
        finally:
            unmount_image(place)
    text = read(PLACE / f"run-{cut}" / "experiment.yaml").decode(errors="replace")
    say(images=found, points=points(cut), run=text == TEXT)


def mark_of(tree: Path) -> str:
    """Return the mark of an image. Raises ValueError for one that is not whole."""
    if not (tree / "boot").is_dir():
        raise ValueError("it has no /boot")
    marks = tree / "root" / MARKS
    if not marks.is_dir():
        return BASE
    mark = (marks / "f0").read_text().strip()
    for number in range(FILES):
        text = (marks / f"f{number}").read_text(errors="replace")
        if not mark or text != content(mark, number):
            raise ValueError(f"file {number} of {mark!r} has {len(text)} characters")
    if mark.startswith("b") and (tree / "root/number").read_text().strip() != mark:
        raise ValueError(f"/root/number is not that of {mark}")
    return mark


if __name__ == "__main__":
    if sys.argv[1] == "work":
        work(int(sys.argv[2]), sys.argv[3:])
    else:
        look(int(sys.argv[2]))
