"""server.env is read as systemd reads it, and never as a shell would."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from walt.server.tools.environment_file import arguments, variables


class EnvironmentTests(SynchronousTestCase):
    def test_values(self) -> None:
        """Names, blanks, quotes, backslashes, lines that go on."""
        for text, found in (
            ("DAEMON_ARGS=--one --two\n", {"DAEMON_ARGS": "--one --two"}),
            ("p=http://u:p&w@h;x|y > /z\n", {"p": "http://u:p&w@h;x|y > /z"}),
            ("a=$(touch /x) `id` $HOME ${b}\n", {"a": "$(touch /x) `id` $HOME ${b}"}),
            ("# a=1\n; b=2\n  # c=3\n\n d = 4 \n", {"d": "4"}),
            ("a='x y' \"z\"\n", {"a": "x yz"}), ("a=x'y'\n", {"a": "x'y'"}),
            ('a="\\$b \\"q\\" \\\\ \\n"\n', {"a": '$b "q" \\ \\n'}),
            ("a='\\n'\n", {"a": "\\n"}), ("a=b\\\nc\nd=e", {"a": "bc", "d": "e"}),
            ("a=b\\ \n", {"a": "b "}), ("a='one\ntwo'\n", {"a": "one\ntwo"}),
            ("a=\nb=''\n", {"a": "", "b": ""}), ("a=1\r\nb=2\r\n", {"a": "1", "b": "2"}),
            ("export a=1\n1a=2\nnothing\na-b=3\n", {}), ("a=1\na=2\n", {"a": "2"}),
            ("a=b=c\n", {"a": "b=c"}), ("a='open\n", {"a": "open\n"}), ("", {}),
            ("a=\\", {"a": "\\"}), ("a=x #y\n", {"a": "x #y"}),
        ):
            self.assertEqual(variables(text), found, text)

    def test_arguments(self) -> None:
        """Words at blanks, but for what is in quotes."""
        for value, words in (
            ("--one --two", ["--one", "--two"]), ("", []), ("'a b' c", ["a b", "c"]),
            ("--x='a b' #c", ["--x=a b", "#c"]), ("it's", ["it's"]), ("$(x) ;y", ["$(x)", ";y"]),
        ):
            self.assertEqual(arguments(value), words, value)
