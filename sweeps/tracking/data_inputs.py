"""What a tracking server shows of the data: one input of the sweep's run, as plain values made from `sweep.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from sweeps.tracking.rows import clip
from sweeps.tracking.uri import without_secrets

NAME_LIMIT, DIGEST_LIMIT, SCHEMA_LIMIT = 500, 36, 65535  # characters that every MLflow 3 store accepts
PROFILE_LIMIT = 1_000_000  # a store takes more, but a page shows it as one text


class DataInput(NamedTuple):
    """A data set as MLflow knows one. source: settings of the data set. data_schema, profile: JSON."""

    name: str
    digest: str
    source: str
    data_schema: str
    profile: str


def data_input(manifest: Mapping[str, Any]) -> DataInput | None:
    """The data of the sweep; None for folders from before there was a card."""
    card, digest = manifest.get("card"), manifest.get("data")
    if not isinstance(card, dict) or not isinstance(digest, str):
        return None
    settings = manifest.get("spec", {}).get("dataset")
    shape = {"kind": card["kind"], "shape": card["shape"], "classes": card["classes"], "columns": card["columns"]}
    return DataInput(
        clip(card["name"], NAME_LIMIT),
        digest[:DIGEST_LIMIT],
        json.dumps(_public(settings)),
        _json(shape, SCHEMA_LIMIT),
        _json({key: value for key, value in card.items() if key not in ("classes", "columns")}, PROFILE_LIMIT),
    )


def _public(value: Any) -> Any:
    """Settings without the passwords that addresses may hold."""
    if isinstance(value, dict):
        return {key: _public(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_public(item) for item in value]
    return without_secrets(value) if isinstance(value, str) else value


def _json(value: dict[str, Any], limit: int) -> str:
    """JSON of at most `limit` characters: where it would be more, the longest lists give way to their length."""
    value = dict(value)
    while len(text := json.dumps(value)) > limit:
        longest = max(value, key=lambda key: len(json.dumps(value[key])))
        items = value[longest]
        value[longest] = f"{len(items) if isinstance(items, list) else 1} of them"
    return text
