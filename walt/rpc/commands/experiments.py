"""Commands about experiments that clients run."""

from __future__ import annotations

from walt.rpc import rows
from walt.rpc.arguments import Float, Integer, Json, Names, Text
from walt.rpc.base import WaltCommand


class ReportExperiment(WaltCommand):
    """Tell how far a run of the caller is; what is run is nobody's business.

    To be called when something changed, and every 20 s; after 60 s without a word the client
    counts as silent, and after an hour the run is forgotten. `run` has 12 hexadecimal digits,
    `began` is in epoch seconds; `point` is the last of `points` that ended, `failed_point` the last
    that did not end well, 0 for none; `state` is preparing, running, done, failed, interrupted or
    released.
    """

    commandName = b"cs.experiments.report"
    side = "cs"
    arguments = [
        (b"run", Text(12)), (b"name", Text(100)), (b"state", Text(20)), (b"nodes", Names()),
        (b"began", Float()), (b"point", Integer()), (b"points", Integer()),
        (b"failed", Integer()), (b"failed_point", Integer()),
    ]


class ListExperiments(WaltCommand):
    """The runs of all users that go on, and those that ended within the hour."""

    commandName = b"cs.experiments.list"
    side = "cs"
    response = [(b"rows", Json(rows.EXPERIMENTS))]
