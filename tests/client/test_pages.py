"""What pages of help, manuals and messages tell people to type exists."""

from __future__ import annotations

import configparser
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import walt
from walt.client import main
from walt.client.commands.help import INTRO, topics
from walt.client.grammar import HELP
from walt.server.adapters.podman.prepare import INTERNAL_SCRIPTS, PUBLIC_SCRIPTS
from walt.server.domain.devices.settings import SETTINGS

PACKAGE = Path(walt.__file__).parent
ROOT = PACKAGE.parent
CODE = ("client/**/*.py", "common/**/*.py", "server/**/*.py", "node/**/*", "virtual/**/*.py")
TEXTS = ("README.md", "docs/*.md", "newsfragments/*.md")
TOPIC = re.compile(r"\bwalt help show(?: |\n)([a-z][a-z0-9-]+)")
CHANGERS = {("node", "config"), ("device", "config")}
# No programs of ours: network, unit, service, older package, programs that an image may have.
OTHER_NAMES = re.compile(
    r"walt-(?:net|server|logs|node|vpn|image-shell-\w+|preinit|(?:hybrid-|network-)?reboot)"
)


def read(*patterns: str, root: Path = PACKAGE) -> str:
    """Return the text of all files of some patterns."""
    return "\n".join(
        path.read_text() for pattern in patterns for path in sorted(root.glob(pattern))
        if path.is_file() and path.suffix != ".pyc"
    )


def pages() -> dict[str, str]:
    """Return what people read, by its name: pages of help and manuals."""
    found = {name: (PACKAGE / "doc" / f"{name}.md").read_text() for name in topics()}
    for pattern in TEXTS:
        found |= {path.name: path.read_text() for path in sorted(ROOT.glob(pattern))}
    return found


def code(text: str) -> Iterator[str]:
    """Yield what a page shows as something to type: its blocks of code and quoted words."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)  # trees of files
    for paragraph in re.split(r"\n\n+", text):
        if paragraph.startswith("    "):
            for line in paragraph.replace("\\\n", " ").splitlines():
                # What a command printed quotes what to type next.
                yield from re.findall(r"`([^`]+)`", line) or [line]
        else:
            for span in re.findall(r"`([^`]+)`", paragraph):
                yield " ".join(span.split())


def commands(line: str) -> Iterator[list[str]]:
    """Yield the words of each `walt` command of a line of code, as a shell splits them.

    What another program gets is left out: words after a pipe, a comment, `--`; so is a
    description at the right, after several spaces. Brackets of optional words go.
    """
    for match in re.finditer(r"(?<![\w/.~-])walt (?=[\w<…-])((?:(?!\|(?!\S)|[;#)]|  ).)*)", line):
        text = re.sub(r"\[(?=-)|(?<=\S)\](?=\s|$)", "", match[1])
        try:
            words = shlex.split(text)
        except ValueError:
            words = text.replace("'", "").replace('"', "").split()
        if "--" in words:
            words = words[:words.index("--")]
        if words:
            yield words


class PageTests(SynchronousTestCase):
    def test_topics(self) -> None:
        """Every page named by a command, the server, a node, a manual or a page exists."""
        known = set(topics())
        texts = {**pages(), "code": read(*CODE)}
        count = 0
        for where, text in texts.items():
            named = set(TOPIC.findall(text))
            count += len(named)
            self.assertEqual(named - known, set(), where)
        self.assertGreater(count, 50)

    def test_topics_of_walt_10(self) -> None:
        """All that messages and habits name are there: the list of the specification (§1.15)."""
        spec = (Path(__file__).parents[2] / "docs/spec/user-surface.md").read_text()
        (listed,) = re.findall(r"(?m)^- Topics \(names are [^)]*\): ([a-z0-9, -]+)\.$", spec)
        wanted = set(listed.split(", "))
        self.assertGreater(len(wanted), 70)
        self.assertEqual(wanted - set(topics()), set())

    def test_every_topic_is_named(self) -> None:
        """A page leads to each other one: people do not have to find it in the list."""
        named = {
            topic for name, text in pages().items()
            for topic in TOPIC.findall(text) if topic != name
        }
        self.assertEqual(set(topics()) - named - {INTRO}, set())

    def test_commands_of_messages(self) -> None:
        """Every `walt category subcommand` in the texts of programs exists."""
        found = set(re.findall(r"\bwalt ([a-z]+) ([a-z][a-z-]+)", read(
            "client/**/*.py", "server/api/*.py", "server/wire/*.py", "server/streams/*.py",
        )))
        named = {pair for pair in found if pair[0] in main.CATEGORIES}
        self.assertGreater(len(named), 5)
        self.assertEqual({pair for pair in named if pair[1] not in main.load(pair[0])}, set())

    def test_commands(self) -> None:
        """Every command that a page shows exists, with its switches and settings."""
        count, wrong = 0, []
        for where, text in pages().items():
            for line in code(text):
                for words in commands(line):
                    count += 1
                    wrong += [f"{where}: {problem}" for problem in self.problems(words)]
        self.assertGreater(count, 300)
        self.assertEqual(wrong, [])

    def problems(self, words: list[str]) -> Iterator[str]:
        """Yield what is wrong with the words after `walt`."""
        category, *rest = words
        if category.startswith(("<", "-")) or category in ("CATEGORY", "…"):
            return
        if category in main.SHORT:
            category, rest = "advanced", words
        if category not in main.CATEGORIES:
            yield f"there is no category: {' '.join(words)}"
            return
        if not rest or rest[0].startswith(("<", "…", "SUBCOMMAND")) or rest[0] in HELP:
            return
        subcommand, *rest = rest
        known = main.load(category)
        if subcommand not in known:
            yield f"there is no command: {' '.join(words)}"
            return
        switches = {
            name: one for one in known[subcommand].switches for name in (one.name, *one.aliases)
        }
        for word in rest:
            name = word.partition("=")[0]
            if name.startswith("--") and name not in (*switches, *HELP):
                yield f"there is no switch {name}: {' '.join(words)}"
            setting = re.match(r"([a-z.]+)=", word)
            if (category, subcommand) in CHANGERS and setting and setting[1] not in SETTINGS:
                yield f"there is no setting {setting[1]}: {' '.join(words)}"

    def test_parsing(self) -> None:
        """The commands of a line are found, and mistakes in them."""
        self.assertEqual(list(commands("tar c d | walt node run v1 -- tar x | grep walt")),
                         [["node", "run", "v1"]])
        self.assertEqual(list(commands("walt image build [--sub-dir <path>] <name>")),
                         [["image", "build", "--sub-dir", "<path>", "<name>"]])
        self.assertEqual(list(commands("walt node show    my nodes, walt log too")),
                         [["node", "show"], ["log", "too"]])
        self.assertEqual(list(commands("~/walt python -m walt.server walt-env")), [])
        for line, expected in (
            ("walt node fly n1", "no command"), ("walt vpn show", "no category"),
            ("walt node show --everything", "no switch --everything"),
            ("walt node config n1 rma=1G", "no setting rma"),
        ):
            [words] = commands(line)
            [problem] = self.problems(words)
            self.assertIn(expected, problem)

    def test_programs(self) -> None:
        """Every program `walt-…` that a page names exists."""
        setup = configparser.ConfigParser()
        setup.read(ROOT / "setup.cfg")
        entries = setup["options.entry_points"]["console_scripts"]
        known = {line.split("=")[0].strip() for line in entries.splitlines()}
        known |= {*PUBLIC_SCRIPTS, *INTERNAL_SCRIPTS}
        checked = set()
        for where in topics():
            for line in code(pages()[where]):
                for name in re.findall(r"(?<![\w/.-])(?:/bin/)?(walt-[a-z][a-z-]*[a-z])\b", line):
                    if not OTHER_NAMES.fullmatch(name):
                        self.assertIn(name, known, where)
                        checked.add(name)
        self.assertIn("walt-log-echo", checked)

    def test_keys_of_the_configuration(self) -> None:
        """Every key of server.conf that a page names is in the table of the manual."""
        manual = (ROOT / "docs/administrator.md").read_text()
        checked = set()
        sections = "network|database|services|virtual|images|security|logs|boot"
        for where in topics():
            for key in re.findall(rf"`((?:{sections})\.[a-z.-]+[a-z])`", pages()[where]):
                if key not in SETTINGS:
                    self.assertIn(f"`{key}`", manual, where)
                    checked.add(key)
        self.assertGreater(len(checked), 3)
