"""Experiments that clients run."""

from __future__ import annotations

from typing import Any

from twisted.protocols import amp

from walt.rpc.commands import experiments as commands
from walt.server.domain.nodes.experiments import Report, RunningExperiments
from walt.server.domain.requester import IRequester


class ExperimentsApi(amp.CommandLocator):
    """Who runs what, and how far it is."""

    def __init__(self, requester: IRequester, experiments: RunningExperiments) -> None:
        self._requester = requester
        self._experiments = experiments

    @commands.ReportExperiment.responder
    def report(self, **told: Any) -> dict[str, Any]:
        """Note how far a run of the caller is."""
        self._experiments.report(self._requester.username, Report(**told))
        return {}

    @commands.ListExperiments.responder
    def running(self) -> dict[str, Any]:
        """Return the runs of all users."""
        return {"rows": self._experiments.rows()}
