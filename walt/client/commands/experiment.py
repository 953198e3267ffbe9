"""`walt experiment`: an experiment is one file, and what it gave is an archive."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from walt.client.answers import NUMBER
from walt.client.errors import FAILED, PLANNED, Failure
from walt.client.grammar import Arg, Command, Switch
from walt.common.controls import visible

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from typing import Any

    from walt.client.experiment.archive import Archive, Folder
    from walt.client.experiment.casting import Cast
    from walt.client.experiment.model import Experiment

GOING = ("preparing", "running")  # states of runs that are not over
EXAMPLE = """\
# An experiment: `walt help show experiment-file` tells what can be written here.
name: ping-sizes
licence: CC-BY-4.0              # of what it gives

roles:                          # who takes part
  sender: {model: "pc-*"}
  receiver: {model: "pc-*"}

variables:                      # each combination is a point
  SIZE: [56, 512, 1400]
repetitions: 2

measure:                        # done for each point, in this order
  - sender: ping -q -c 5 -i 0.2 -s "$SIZE" "$WALT_RECEIVER_IP" > rtt.txt
    timeout: 30s
    save: rtt.txt

results:                        # numbers out of what was saved
  rtt_ms: {file: sender/rtt.txt, pattern: "= [0-9.]+/([0-9.]+)/", tolerance: 50%}

limits: {boot: 10m}
"""


def init(new_file: str) -> None:
    """Write an example."""
    try:
        with open(new_file, "x", encoding="utf-8") as file:
            file.write(EXAMPLE)
    except FileExistsError:
        raise Failure(f"{new_file} exists; give another name") from None
    except OSError as error:
        from walt.common.errors import in_words

        raise Failure(f"{new_file} cannot be written: {in_words(error)}") from None
    print(f"Edit {new_file}, then: walt experiment plan {new_file}")


def _given(words: str | None) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for word in (words or "").split(","):
        role, equals, node = word.partition("=")
        if equals and role and node:
            found.setdefault(role, []).append(node)
        elif word:
            raise Failure(f"{word!r} is not ROLE=NODE", 2)
    return found


def _told(found: Cast) -> None:
    from walt.client.terminal import table

    rows = [
        {"role": role, "node": name, "why": found.reasons[name]}
        for role, names in found.nodes.items() for name in names
    ]
    if rows:
        print(table(["role", "node", "why"], rows))
    for line in found.missing:
        print(f"missing: {visible(line)}")
    for line in found.disturbed:
        print(f"disturbs: {visible(line)}")


def plan(file: str, map: str | None, json: bool) -> int:
    """Tell what a run would do; nothing changes."""
    from walt.client.experiment.casting import cast
    from walt.client.experiment.reading import load

    experiment, _, _ = load(Path(file))
    found = cast(experiment, _given(map))
    points = len(experiment.points())
    if json:
        from walt.client.output import print_json

        print_json({
            "roles": found.nodes, "missing": found.missing, "disturbed": found.disturbed,
            "points": points, "boot_seconds": found.boot_seconds,
        })
    else:
        _told(found)
        boot = "" if found.boot_seconds is None else \
            f"; by their earlier boots the nodes are ready after {found.boot_seconds:.0f} s"
        print(f"{points} point{'s' if points != 1 else ''} of {len(experiment.measure)}"
              f" step{'s' if len(experiment.measure) != 1 else ''}{boot}.")
    if found.missing:
        return FAILED
    return PLANNED if found.disturbed else 0


def run(
    file: str, to: str | None, map: str | None, force: bool, with_images: bool
) -> int:
    """Run an experiment."""
    from walt.client.experiment.origin import commit_of
    from walt.client.experiment.reading import load

    experiment, text, scripts = load(Path(file))
    return _begin(
        experiment, text, scripts, to, map, force,
        {"commit": commit_of(Path(file)), "with_images": with_images},
    )


def repeat(
    archive: str, to: str | None, map: str | None, force: bool, with_images: bool
) -> int:
    """Do a run again, with the very same images."""
    return _again(archive, to, map, force, with_images, exact=True)


def replay(
    archive: str, to: str | None, map: str | None, force: bool, with_images: bool
) -> int:
    """Do a run again, with what this platform has."""
    return _again(archive, to, map, force, with_images, exact=False)


def _again(
    archive: str, to: str | None, map: str | None, force: bool, keep: bool, *, exact: bool
) -> int:
    from walt.client.commands.progress import Progress
    from walt.client.experiment.archive import TEXT, Archive
    from walt.client.experiment.comparing import experiment_of
    from walt.client.experiment.fetching import fetch, lacking, targets
    from walt.client.experiment.images import kept, load
    from walt.client.experiment.replaying import with_images, without_program
    from walt.client.experiment.sealing import verify
    from walt.client.scripting.link import LINK

    found = Archive(Path(archive))
    _waiting(found)
    wrong = verify(found)
    if wrong:
        raise Failure("\n".join(wrong))
    recorded = without_program(experiment_of(found))
    row = {"name": str, "fullname": str, "id": str}
    tables = LINK.json(
        "cs.images.show", "tables", {kind: [row] for kind in ("own", "others", "default")},
        all=True, refresh=False,
    )
    own = {row["name"]: row["id"] for row in tables["own"]}
    defaults = [row["id"] for row in tables["default"]]
    by_default = [role.name for role in recorded.roles if role.image == "default"]
    wanted = lacking(
        found.manifest, [role.name for role in recorded.roles if role.name not in by_default],
        own.values(),
    ) | lacking(found.manifest, by_default, [*own.values(), *defaults])
    others = {row["id"]: row["fullname"] for row in [*tables["others"], *tables["default"]]}

    def with_own(images: dict[str, str]) -> tuple[Experiment, list[str]]:
        experiment, missing, notes = with_images(
            recorded, found.manifest, own | images, defaults, exact=exact
        )
        if missing:
            raise Failure("\n".join(f"missing: {line}" for line in missing))
        return experiment, notes

    # Read whole, where it matters: a content that is another one is told before all else.
    there = kept(found, whole=True) if wanted else set()

    def fetched() -> Experiment:
        experiment, notes = with_own(
            fetch(wanted, others, own, there, partial(load, found, listener=Progress()), _line)
        )
        for line in notes:
            print(_shown(line))
        return experiment

    # As if all of them could be had: what is missing otherwise is told before one is fetched.
    coming = {name: image_id for image_id, name in targets(wanted, own).items()}
    return _begin(
        with_own(coming)[0], found.data(TEXT).decode(), found.scripts(), to, map, force,
        {
            "of": found.manifest["run"], "commit": found.manifest["commit"], "with_images": keep,
        }, coming, fetched,
    )


def _begin(
    experiment: Experiment, text: str, scripts: dict[str, str], to: str | None, map: str | None,
    force: bool, more: dict[str, Any], coming: Collection[str] = (),
    fetched: Callable[[], Experiment] | None = None,
) -> int:
    """Begin a run; `coming` are the names of images that `fetched` gets, once all else fits."""
    from walt.client.experiment.archive import Folder
    from walt.client.experiment.casting import cast
    from walt.client.experiment.running import Runner, manifest_of

    given = _given(map)
    found = cast(experiment, given, coming)
    if found.missing:
        raise Failure("\n".join(f"missing: {line}" for line in found.missing))
    if found.reserved:
        _told(found)
        raise Failure(
            f"reserved by a program that runs: {', '.join(found.reserved)}; wait for its end, or"
            " name other nodes with --map"
        )
    if found.disturbed and not _may(found, force):
        return FAILED
    folder = Folder(Path(to or time.strftime(f"{experiment.name}-%Y%m%d-%H%M%S")))
    if folder.path.exists():
        raise Failure(
            f"{folder.path} exists; give another --to, or go on with"
            f" `walt experiment resume {folder.path}`"
        )
    if fetched is not None:
        experiment = fetched()
    manifest = manifest_of(experiment, found, text) | more | {"map": given}
    runner = Runner(experiment, scripts, folder, manifest, _line)

    folder.begin(manifest, text, scripts)

    def begun() -> None:
        print(f"{folder.path}: run {manifest['run']} on {', '.join(found.names)}")

    return _go(lambda: runner.run({}, force=bool(found.disturbed), begun=begun), folder)


def _may(found: Cast, force: bool) -> bool:
    """Ask whether others may be disturbed."""
    _told(found)
    if force:
        return True
    if not sys.stdin.isatty():
        print("Somebody would be disturbed; --force goes on.", file=sys.stderr)
        return False
    from walt.client.terminal import confirm

    return confirm("Go on?")


def _shown(text: str) -> str:
    """Return a text of an archive as one line."""
    return visible(text).replace("\n", "\\n")


def _line(text: str) -> None:
    print(_shown(text), flush=True)


def _go(work: Callable[[], bool], folder: Folder) -> int:
    try:
        done = work()
    except KeyboardInterrupt:
        print(
            f"\nInterrupted; go on with: walt experiment resume {folder.path}\n"
            f"or give back what it holds: walt experiment release {folder.path}", file=sys.stderr,
        )
        raise
    print(f"{folder.path}: " + (
        "all points are done." if done else
        f"some points are not done; their reasons: walt experiment show {folder.path}\n"
        f"to measure these once more: walt experiment resume --failed {folder.path}"
    ))
    return 0 if done else FAILED


def resume(directory: str, force: bool, failed: bool = False) -> int:
    """Go on with a run that was interrupted, or whose points did not all succeed."""
    from walt.client.experiment.comparing import experiment_of
    from walt.client.experiment.replaying import without_program
    from walt.client.experiment.running import Runner
    from walt.client.experiment.showing import CUT

    with _taken(directory) as (folder, archive):
        experiment = without_program(experiment_of(archive)).booting(archive.manifest["booted"])
        runner = Runner(experiment, archive.scripts(), folder, archive.manifest, _line)
        points = archive.points()
        for name in archive.cut_points():
            _line(f"{name} {CUT}")
        return _go(lambda: runner.run(points, force=force, again=failed), folder)


def release(directory: str) -> int:
    """Give back what an interrupted run holds; it is over then."""
    from walt.client.experiment.comparing import experiment_of
    from walt.client.experiment.running import Runner

    with _taken(directory) as (folder, archive):
        runner = Runner(
            experiment_of(archive), archive.scripts(), folder, archive.manifest, _line
        )
        if not runner.release(archive.points()):
            return FAILED
    print(f"{folder.path}: the run holds nothing any more.")
    return 0


@contextmanager
def _taken(directory: str) -> Iterator[tuple[Folder, Archive]]:
    """Give the folder of a run that is gone on with, and its archive; nobody else writes it."""
    from walt.client.experiment.archive import Archive, Folder

    Archive(Path(directory))
    if not Path(directory).is_dir():
        raise Failure(f"{directory} is sealed; only a folder can be gone on with")
    folder = Folder(Path(directory))
    folder.resume()
    try:
        yield folder, Archive(Path(directory))
    finally:
        folder.leave()


def _waiting(archive: Archive) -> None:
    """Tell a person why nothing happens: images of many GB are read whole."""
    from walt.client.experiment.archive import IMAGES

    if IMAGES in archive.names and sys.stderr.isatty():
        print(f"Reading the images of {archive.path}…", file=sys.stderr, flush=True)


def show(archive: str | None, json: bool) -> int:
    """Print the points of a run; without one, which runs go on on the platform."""
    if archive is None:
        return _running(json)
    from walt.client.experiment.archive import Archive
    from walt.client.experiment.images import images_of, kept
    from walt.client.experiment.sealing import verify
    from walt.client.experiment.showing import bars, outcomes, reasons, table

    found = Archive(Path(archive))
    manifest = found.manifest
    _waiting(found)
    there: list[str] = []
    wrong: list[str] = []
    try:
        there = sorted(kept(found, whole=False))
    except Failure as failure:
        wrong.append(str(failure))
    if json:
        from walt.client.output import print_json

        print_json({
            **{key: manifest[key] for key in ("name", "run", "state", "roles", "images")},
            "images_kept": there,
            "points": [point for _, point in sorted(found.points().items())],
            "points_cut": found.cut_points(),
        })
    else:
        print(_shown(
            f"{manifest['name']}, run {manifest['run']}: {manifest['state']};"
            f" points: {outcomes(found)}"
        ))
        print(table(found))
        for line in reasons(found):
            print(_shown(line))
        names = images_of(manifest)
        for image_id in there:
            print(_shown(f"image kept: {names.get(image_id, 'of no node')} (id {image_id[:12]})"))
        drawn = bars(found)
        if drawn:
            print(f"\n{drawn}")
    wrong += verify(found)
    for line in wrong:
        print(_shown(line), file=sys.stderr)
    return FAILED if wrong else 0


def _running(json: bool) -> int:
    """Print the experiments that go on, and those that ended within the hour."""
    from walt.client.formats import MINUTES, moment
    from walt.client.scripting.link import LINK
    from walt.client.terminal import table

    rows = LINK.json("cs.experiments.list", "rows", [{
        "user": str, "name": str, "state": str, "online": bool, "nodes": [str], "started": NUMBER,
        "point": int, "points": int, "failed": int, "failed_point": int,
    }])
    if json:
        from walt.client.output import print_json

        print_json(rows)
        return 0
    if not rows:
        print("No experiment runs. `walt experiment show ARCHIVE` prints the points of one.")
        return 0
    print(table(["user", "experiment", "state", "began", "point", "failed", "nodes"], [
        {
            "user": row["user"], "experiment": visible(row["name"]),
            "state": row["state"] if row["online"] or row["state"] not in GOING
            else f"{row['state']}, silent",
            "began": moment(row["started"], MINUTES),
            "point": f"{row['point']} of {row['points']}",
            "failed": f"{row['failed']}, last {row['failed_point']}" if row["failed"] else "0",
            "nodes": ",".join(row["nodes"]),
        } for row in rows
    ]))
    return 0


def seal(directory: str, to: str | None, with_images: bool) -> None:
    """Make one file of an archive."""
    from walt.client.commands.progress import Progress
    from walt.client.experiment.images import save
    from walt.client.experiment.sealing import seal as sealed

    def images(archive: Archive, write: Callable[[bytes], object]) -> None:
        save(archive.manifest, write, Progress())

    folder = Path(directory).resolve()
    target = Path(to) if to else folder.with_name(f"{folder.name}.zip")
    count = sealed(Path(directory), target, images if with_images else None)
    print(f"{target}: {count} files")


def diff(archive: str, other_archive: str, json: bool) -> int:
    """Print what differs between two runs."""
    from walt.client.experiment.archive import Archive
    from walt.client.experiment.comparing import as_json, compare

    differences = compare(Archive(Path(archive)), Archive(Path(other_archive)))
    if json:
        from walt.client.output import print_json

        print_json(as_json(differences))
    else:
        for found in differences:
            print(_shown(f"{found.mark} {found.category}: {found.text}"))
        if all(found.mark == "=" for found in differences):
            print("= nothing differs")
    return PLANNED if any(found.mark == "!" for found in differences) else 0


_TO = Switch("--to", "the folder to make", metavar="DIRECTORY")
_JSON = Switch("--json", "print JSON for programs")
_MAP = Switch("--map", "nodes for roles, ROLE=NODE,ROLE=NODE", metavar="ROLES")
_IMAGES = Switch("--with-images", "keep the images of its nodes, too")
_FORCE = Switch("--force", "disturb other people without a question")

COMMANDS = {
    "init": Command(init, "write an example of an experiment file", args=[Arg("new_file")]),
    "plan": Command(
        plan, "tell who would take which role, and what is missing; status 3 if it disturbs"
        " somebody", args=[Arg("file")], switches=[_MAP, _JSON],
    ),
    "run": Command(
        run, "run an experiment, and keep everything it gives", args=[Arg("file")],
        switches=[_TO, _MAP, _FORCE, _IMAGES],
    ),
    "repeat": Command(
        repeat, "do a run again, with the very same images", args=[Arg("archive")],
        switches=[_TO, _MAP, _FORCE, _IMAGES],
    ),
    "replay": Command(
        replay, "do a run again, with what this platform has", args=[Arg("archive")],
        switches=[_TO, _MAP, _FORCE, _IMAGES],
    ),
    "resume": Command(
        resume, "go on with a run that was interrupted", args=[Arg("directory")],
        switches=[_FORCE, Switch(
            "--failed", "measure the points that failed, or whose end is not known, once more"
        )],
    ),
    "release": Command(
        release, "give back what an interrupted run holds; it is over then",
        args=[Arg("directory")],
    ),
    "show": Command(
        show, "print the points of a run, and its results; without one, who runs what now",
        args=[Arg("archive", optional=True)], switches=[_JSON],
    ),
    "seal": Command(
        seal, "make one file of an archive, with checksums", args=[Arg("directory")],
        switches=[Switch("--to", "the file to make", metavar="FILE"), _IMAGES],
    ),
    "diff": Command(
        diff, "print what differs between two runs; status 3 if something unexpected does",
        args=[Arg("archive"), Arg("other_archive")], switches=[_JSON],
    ),
}
