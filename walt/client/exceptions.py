"""What the Python API raises beside AttributeError, KeyError and ReferenceError.

Refusals of the server and failures of the network are `walt.client.errors.Failure`.
"""

from __future__ import annotations


class TimeoutException(Exception):
    """The time that the caller gave is over."""


class NodeNotOwnedException(Exception):
    """The node belongs to somebody else, and `force` was not given."""


class NodeReservedException(Exception):
    """Another user has reserved the node for a while, and `force` was not given."""


class NodeAlreadyOwnedException(Exception):
    """The node that should be acquired is the caller's already."""


class OpAppliesNodeOwnedException(Exception):
    """Only nodes of the caller can be released."""


class NodeHasLogsException(Exception):
    """Log lines of the node would be lost, and `force` was not given."""


class NoSuchImageNameException(Exception):
    """There is no such image in the caller's working set."""


class ParameterNotAnImageException(Exception):
    """Neither the name of an image nor an image object."""
