"""Where scripts written for WalT 10 look for TimeoutException."""

from __future__ import annotations

from walt.client.exceptions import TimeoutException

__all__ = ["TimeoutException"]
