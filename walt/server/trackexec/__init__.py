"""Records which lines of the server are executed, and shows them again afterwards.

Recording: `hook` loads modules with one call before each statement (`transform`),
which puts a code (`codes`) into a buffer; `recorder` writes it to files.
Reading: `record` reads them, `stacks` finds whose lines these are, `replay` walks
through them, `analyse` counts. Format: docs/protocols.md, part "Execution records".
"""

VARIABLE = "WALT_TRACKEXEC"  # in the environment of workers: the directory of this run
