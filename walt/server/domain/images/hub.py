"""The index image of a user of the Docker Hub (spec server §5.7).

The Hub cannot be searched by label: each user has an image `walt_metadata` whose
label `metadata` is base64 of JSON that lists the user's WalT images.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from walt.common.texts import load_json

INDEX_NAME = "walt_metadata"
INDEX_LABEL = "metadata"
_KEY = "walt.user.images"
MAX_INDEX = 1 << 20

Images = dict[str, dict[str, str]]


def index_image(user: str) -> str:
    """Return the full name of a user's index image."""
    return f"{user}/{INDEX_NAME}:latest"


def decode(label: str) -> Images:
    """Return the labels of each image by full name; what is malformed is left out."""
    if len(label) > MAX_INDEX:
        return {}
    try:
        content = load_json(base64.b64decode(label, validate=True))
        listed = content[_KEY]
        return {
            name: _labels(entry["labels"]) for name, entry in listed.items()
            if isinstance(name, str) and isinstance(entry.get("labels"), dict)
        }
    except (binascii.Error, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _labels(values: Mapping[Any, Any]) -> dict[str, str]:
    return {key: value for key, value in values.items() if isinstance(value, str)}


def encode(images: Mapping[str, Mapping[str, str]]) -> str:
    """Return the label of an index."""
    content = {_KEY: {name: {"labels": dict(labels)} for name, labels in sorted(images.items())}}
    return base64.b64encode(json.dumps(content).encode()).decode()
