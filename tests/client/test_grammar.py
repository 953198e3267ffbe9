"""The grammar of the command line, help at three levels (spec user-surface §1.2)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

import walt
from tests.client.scripted import run
from walt.client import logo, main
from walt.client.errors import HelpWanted, UsageError
from walt.client.grammar import Arg, Command, Switch, definitions, subcommand_help

CATEGORIES = ["image", "node", "log", "device", "experiment", "advanced", "help"]
# Arguments of each subcommand, as its usage line shows them.
USAGES = {
    "image": """
show
search [keyword=None]
clone clonable_image_link [image_name=None]
shell image_name
duplicate image_name new_image_name
remove image_name
rename image_name new_image_name
publish image_name
squash image_name
""",
    "node": """
show
acquire node_set
release node_set
boot node_set image_name_or_default
deploy node_set image_name_or_default
shell node_name
run node_set cmdargs...
save node_name image_name
reboot node_set
config node_set configuration...
create node_name
remove node_name
rename old_node_name new_node_name
ping node_name
console node_name
blink node_name [duration=60]
wait node_set
expose node_name node_port local_port
""",
    "log": """
show [logline_regexp=None]
wait logline_regexp
add-checkpoint checkpoint_name
remove-checkpoint checkpoint_name
list-checkpoints
""",
    "device": """
show
shell device_name
rename old_name new_name
config device_set configuration...
ping device_name
forget device_name
expose device_name device_port local_port
""",
    "advanced": """
fix-image-owner other_user
update-hub-meta
rescan-hub-account
update-default-images
dump-bash-autocomplete
dump-zsh-autocomplete
""",
    "help": """
list
search word...
""",
}
FORMS = {
    "image build": [
        "--from-url GIT_URL [--sub-dir PATH] image_name", "--from-dir DIRECTORY image_name",
    ],
    "image cp": ["<local-path> <image>:<path>", "<image>:<path> <local-path>"],
    "node cp": [
        "<local-path> <node>:<path>", "<node>:<path> <local-path>", "<node>:<path> booted-image",
    ],
    "help show": ["", "<topic>"],
}


def sample() -> Command:
    return Command(
        lambda **values: None, "do something",
        args=[Arg("first"), Arg("second", default="x"), Arg("rest", variadic=True)],
        switches=[
            Switch("--zeta", "a flag", excludes=("--mode",)),
            Switch("--mode", "how", metavar="MODE", kind=("ANY", "ALL"), default="ANY"),
            Switch("--count", "how many", metavar="N", kind=int, default=0),
            Switch("--name", "which", metavar="NAME", aliases=("--nom", "--nombre")),
        ],
    )


class ParserTests(SynchronousTestCase):
    def parse(self, *words: str) -> dict[str, object]:
        return sample().parse(words)

    def wrong(self, *words: str) -> str:
        return str(self.assertRaises(UsageError, self.parse, *words))

    def test_defaults(self) -> None:
        """Absent switches have their default, optional arguments too."""
        self.assertEqual(self.parse("a"), {
            "first": "a", "second": "x", "rest": [], "zeta": False, "mode": "ANY", "count": 0,
            "name": None,
        })

    def test_free_position_and_equals(self) -> None:
        """Switches anywhere before `--`; `--opt value` and `--opt=value`."""
        values = self.parse("--count", "3", "a", "--name=b=c", "s", "r1", "--zeta", "r2")
        self.assertEqual(
            (values["count"], values["name"], values["rest"]), (3, "b=c", ["r1", "r2"])
        )

    def test_value_may_start_with_a_dash(self) -> None:
        """The word after a valued switch is its value, whatever it looks like."""
        for word in ("-5m:", "--zeta", "-h", "--", "--help"):
            self.assertEqual(self.parse("--name", word, "a")["name"], word)
        self.assertEqual(self.parse("--count", "-1", "a")["count"], -1)

    def test_double_dash(self) -> None:
        """After `--` all words are arguments."""
        self.assertEqual(self.parse("a", "s", "--", "-l", "--zeta", "--")["rest"],
                         ["-l", "--zeta", "--"])

    def test_single_dash_is_an_argument(self) -> None:
        """As for most programs."""
        self.assertEqual(self.parse("-")["first"], "-")

    def test_aliases(self) -> None:
        """An alias is the same switch."""
        self.assertEqual(self.parse("a", "--nom", "x")["name"], "x")
        self.assertIn("only once", self.wrong("a", "--nom", "x", "--name", "y"))

    def test_words_in_any_case(self) -> None:
        """Values of a set are accepted in any case."""
        self.assertEqual(self.parse("a", "--mode", "all")["mode"], "ALL")

    def test_mistakes(self) -> None:
        """Each names what is wrong."""
        self.assertIn("--nam", self.wrong("a", "--nam", "x"))  # no abbreviation
        self.assertIn("-z", self.wrong("a", "-z"))
        self.assertIn("only once", self.wrong("a", "--zeta", "--zeta"))
        self.assertIn("takes no value", self.wrong("a", "--zeta=1"))
        self.assertIn("needs a value", self.wrong("a", "--name"))
        self.assertIn("whole number", self.wrong("a", "--count", "many"))
        self.assertIn("ANY, ALL", self.wrong("a", "--mode", "some"))
        self.assertIn("missing argument first", self.wrong())
        self.assertIn("exclude each other", self.wrong("a", "--zeta", "--mode", "ALL"))

    def test_too_many(self) -> None:
        """An argument too many is named."""
        command = Command(lambda: None, "nothing")
        self.assertIn("extra", str(self.assertRaises(UsageError, command.parse, ["extra"])))

    def test_help(self) -> None:
        """-h and --help before `--` only."""
        self.assertRaises(HelpWanted, self.parse, "-h")
        self.assertRaises(HelpWanted, self.parse, "a", "--help")
        self.assertEqual(self.parse("a", "s", "--", "-h")["rest"], ["-h"])

    def test_subcommand_help(self) -> None:
        """The exact layout: usage, meta-switches, switches in alphabetical order."""
        self.assertEqual(subcommand_help("category", "name", sample()), """\
do something

Usage:
    walt category name [SWITCHES] first [second=x] rest...

Meta-switches:
    -h, --help    Prints this help message and quits

Switches:
    --count N:int                       how many
    --mode MODE:{ANY, ALL}              how; the default is ANY
    --nom, --nombre, --name NAME:str    which
    --zeta                              a flag; excludes --mode""")

    def test_help_fits_the_terminal(self) -> None:
        """On 80 columns meanings are wrapped at their place, on 40 below what they explain."""
        row = ("--zeta", "a flag that excludes others")
        self.assertEqual(definitions([row], 4, 40), [
            "    --zeta    a flag that excludes", "              others",
        ])
        self.assertEqual(definitions([row], 4, 36), [
            "    --zeta", "        a flag that excludes others",
        ])
        self.assertEqual(definitions([row], 4), ["    --zeta    a flag that excludes others"])
        for category in CATEGORIES:
            commands = main.load(category)
            texts = [main.top_help(40), main.category_help(category, commands, 40)]
            texts += [subcommand_help(category, *one, 40) for one in commands.items()]
            for line in "\n".join(texts).splitlines():
                if line.startswith("    "):
                    self.assertTrue(len(line) <= 40 or " " not in line.strip(), line)


class HelpTests(SynchronousTestCase):
    def test_top(self) -> None:
        """Version, usage, ways to get help, categories in their order."""
        outcome = run("--help")
        self.assertEqual((outcome.status, outcome.err), (0, ""))
        lines = outcome.out.splitlines()
        self.assertIn(walt.__version__, lines[0])
        self.assertIn("    walt CATEGORY SUBCOMMAND [SWITCHES] args...", lines)
        listed = lines[lines.index("Categories:") + 1:]
        self.assertEqual([line.split()[0] for line in listed], CATEGORIES)
        self.assertEqual(outcome.out, run("-h").out)

    def test_category(self) -> None:
        """Subcommands, in their order."""
        for category in CATEGORIES:
            outcome = run(category, "--help")
            self.assertEqual((outcome.status, outcome.err), (0, ""))
            lines = outcome.out.splitlines()
            listed = [line.split()[0] for line in lines[lines.index("Subcommands:") + 1:]]
            self.assertEqual(listed, list(main.load(category)))

    def test_order_of_subcommands(self) -> None:
        """As specified; `boots`, `export` and `changes` are ours, `advanced` is alphabetical."""
        orders = {
            "node": "show acquire release boot shell run cp save reboot config create remove "
                    "rename ping console blink wait boots expose ssh-config ssh-proxy deploy",
            "image": "show search clone shell build cp duplicate remove rename publish squash",
            "log": "show wait export add-checkpoint remove-checkpoint list-checkpoints",
            "device": "show shell tree rescan rename config ping forget expose port-config changes",
            "advanced": " ".join(sorted(main.load("advanced"))),
            "help": "show list search",
        }
        for category, order in orders.items():
            lines = run(category, "-h").out.splitlines()
            listed = [line.split()[0] for line in lines[lines.index("Subcommands:") + 1:]]
            self.assertEqual(listed, order.split(), category)

    def test_usage_lines(self) -> None:
        """Each subcommand shows its arguments by name, or its forms where one line cannot."""
        for category, usages in USAGES.items():
            for usage in usages.strip().splitlines():
                name, *words = usage.split()
                out = run(category, name, "-h", sessions=[]).out
                line = " ".join(["walt", category, name, "[SWITCHES]", *words])
                self.assertIn(f"Usage:\n    {line}\n\nMeta-switches:\n", out)
        for words, forms in FORMS.items():
            lines = "".join(f"    walt {words} {form}".rstrip() + "\n" for form in forms)
            out = run(*words.split(), "-h", sessions=[]).out
            self.assertIn(f"Usage:\n{lines}\nMeta-switches:\n", out)

    def test_metavars(self) -> None:
        """Valued switches name what they want, its type, their aliases, what they exclude."""
        for words, line in (
            ("node wait", "--timeout SECONDS:int"), ("device shell", "--user USER:str"),
            ("image build", "--from-url GIT_URL:str"), ("image build", "--sub-dir PATH:str"),
            ("image build", "--from-dir DIRECTORY:str"),
            ("image publish", "--registry REGISTRY:str"),
            ("log show", "--format LOG_FORMAT:str"), ("log show", "--history HISTORY_RANGE:str"),
            ("log show", "--emitters, --nodes, --issuers SET_OF_ISSUERS:str"),
            ("log show", "--streams STREAMS_REGEXP:str"),
            ("log wait", "--mode LOG_WAIT_MODE:{ANY, ALL}"),
            ("log wait", "--time-margin SECONDS:int"),
            ("log add-checkpoint", "--date LOG_CHECKPOINT_DATE:str"),
        ):
            out = run(*words.split(), "-h", sessions=[]).out
            switches = out.split("\nSwitches:\n")[1].splitlines()
            self.assertTrue(any(one.startswith(f"    {line}    ") for one in switches), line)
        out = run("log", "show", "-h", sessions=[]).out
        self.assertIn("excludes --server, --issuers, --streams", out)
        self.assertIn("; the default is my-nodes", out)

    def test_every_subcommand(self) -> None:
        """Each has help, with its arguments, without server."""
        for category in CATEGORIES:
            for name, command in main.load(category).items():
                outcome = run(category, name, "-h", sessions=[])
                self.assertEqual((outcome.status, outcome.err), (0, ""), name)
                self.assertTrue(outcome.out.startswith(command.help + "\n\nUsage:\n"), name)
                self.assertIn("Meta-switches:", outcome.out)

    def test_logo(self) -> None:
        """With 256 colours on a wide terminal only."""
        text = main.top_help()
        for term, columns, no_colour, decorated in (
            ("xterm-256color", 200, "", True), ("xterm-256color", 80, "", False),
            ("xterm", 200, "", False), ("xterm-256color", 200, "1", False),
        ):
            self.patch(logo, "_columns", lambda columns=columns: columns)
            self.patch(logo.os, "environ", {"TERM": term, "NO_COLOR": no_colour})
            self.assertEqual(logo.beside(text) != text, decorated, (term, columns))

    def test_logo_size(self) -> None:
        """32 columns."""
        self.assertEqual({len(line) for line in logo.DRAWING}, {logo.WIDTH})


class StatusTests(SynchronousTestCase):
    """Mistakes are told on stderr, with the status 2 of `walt help show statuses`."""

    def test_missing(self) -> None:
        """A word that is missing: the help that lists those there are."""
        for words in ([], ["node"]):
            outcome = run(*words, sessions=[])
            self.assertEqual((outcome.status, outcome.out), (2, ""), words)
            self.assertTrue(outcome.err.endswith(run(*words, "-h").out), words)

    def test_unknown(self) -> None:
        """A word that is wrong: one line, and the one that may have been meant."""
        for words, hint in (
            (["fly"], "see: walt --help"), (["-v"], "see: walt --help"),
            (["nod"], "did you mean 'node'?"), (["node", "fly"], "see: walt node --help"),
            (["node", "rebot"], "did you mean 'reboot'?"),
            (["device", "remove"], "did you mean 'forget'?"), (["node", "rm"], "'remove'?"),
            (["node", "ls"], "'show'?"), (["node", "ssh"], "'shell'?"),
            (["image", "push"], "'publish'?"), (["help", "ls"], "'list'?"),
            (["image", "commit"], "see: walt image --help"),
        ):
            outcome = run(*words, sessions=[])
            self.assertEqual((outcome.status, outcome.out), (2, ""), words)
            self.assertEqual(outcome.err.count("\n"), 1)
            self.assertIn(hint, outcome.err)

    def test_sets_are_explained_where_words_are_too_many(self) -> None:
        """Several nodes are one word; so it is told by each command that takes a set."""
        for words, hint in (
            ("node reboot a b", "several nodes are one word with commas: a,b"),
            ("node wait a b c --timeout 5", "commas: a,b,c; see: walt node wait --help"),
            ("node boot a b img", "several nodes are one word with commas: a,b"),
            ("node release a b", "commas: a,b"), ("node acquire a b", "commas: a,b"),
            ("log show --issuers a b c", "several issuers are one word with commas: a,b"),
        ):
            outcome = run(*words.split(), sessions=[])
            self.assertEqual((outcome.status, outcome.out), (2, ""), words)
            self.assertIn(hint, outcome.err)
            self.assertEqual(outcome.err.count("\n"), 1)
        self.assertNotIn("commas", run("node", "shell", "a", "b", sessions=[]).err)

    def test_mistyped_words_get_the_right_one(self) -> None:
        """Switches and topics as well as commands."""
        for words, hint in (
            ("node wait --timout 5 n", "unknown switch --timout; did you mean --timeout? See: "),
            ("node show --al", "did you mean --all?"), ("help show node-rebot", "'node-reboot'?"),
        ):
            outcome = run(*words.split(), sessions=[])
            self.assertEqual((outcome.status, outcome.out), (2, ""), words)
            self.assertIn(hint, outcome.err)
            self.assertEqual(outcome.err.count("\n"), 1)

    def test_version(self) -> None:
        """The version of this client."""
        outcome = run("--version", sessions=[])
        self.assertEqual((outcome.status, outcome.out), (0, f"walt {walt.__version__}\n"))

    def test_two(self) -> None:
        """Mistakes of switches and arguments: 2."""
        for words in (
            ["node", "show", "--fly"], ["node", "show", "--all", "--all"], ["node", "boot"],
            ["node", "show", "extra"], ["node", "wait", "--timeout", "soon", "n1"],
            ["node", "wait", "n1", "--timeout"], ["node", "run", "n1", "ls", "-l"],
            ["log", "show", "--platform", "--server"],
            ["log", "show", "--platform", "--nodes", "n1"],
            ["log", "show", "--server", "--streams", "x"],
        ):
            outcome = run(*words, sessions=[])
            self.assertEqual((outcome.status, outcome.out), (2, ""), words)
            self.assertIn(f"walt {words[0]} {words[1]} --help", outcome.err)
