"""The same for many nodes at the same time."""

from __future__ import annotations

import threading

from walt.client.scripting.link import LINK

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeVar

    T = TypeVar("T")


def at_once(names: Iterable[str], work: Callable[[str], T]) -> dict[str, T]:
    """Do something for each name at the same time; raise the first failure after all ended.

    Ctrl-C leaves at once: what was begun goes on without us.
    """
    results: dict[str, T] = {}
    failures: list[BaseException] = []

    def on(name: str) -> None:
        try:
            results[name] = work(name)
        except BaseException as failure:
            failures.append(failure)
        finally:
            LINK.close()

    threads = [threading.Thread(target=on, args=(name,), daemon=True) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(0.2)
    if failures:
        raise failures[0]
    return results
