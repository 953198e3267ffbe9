"""The same command on nodes whose shells are there already, without a run around it.

`python -m bench.experiment.commands NODE…` prints the median of the seconds until it has ended
on all of them.
"""

from __future__ import annotations

import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from walt.client.experiment.channels import Channels

ROUNDS = 20


def main() -> None:
    """Measure, and print the median."""
    nodes = sys.argv[1:]
    channels = Channels()
    spent = []
    with ThreadPoolExecutor(len(nodes)) as threads:
        for _ in range(ROUNDS + 1):
            start = time.monotonic()
            list(threads.map(lambda node: channels.run(node, "sh -c true", 30), nodes))
            spent.append(time.monotonic() - start)
    channels.close()
    print(statistics.median(spent[1:]))  # the first round opens the shells


if __name__ == "__main__":
    main()
