"""Settings of a trainer: dataclasses by section, from YAML and ``section.field=value``, checked field by field."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from ..pipeline.errors import UsageError, nearest


def read(sections: Mapping[str, type[Any]], path: Path | None, sets: Sequence[str] = ()) -> dict[str, Any]:
    """An instance of each section's dataclass; ``UsageError`` names the field, the value and the way out."""
    given: dict[str, dict[str, Any]] = {name: {} for name in sections}
    if path is not None:
        for name, fields in _document(path).items():
            if name not in sections:
                raise UsageError(f"{path}: unknown section {name!r}; {nearest(str(name), sections)}")
            if not isinstance(fields, Mapping):
                raise UsageError(f"{path}: {name} must be a mapping of fields, not {fields!r}")
            given[name] = dict(fields)
    for change in sets:
        key, equals, value = change.partition("=")
        words = key.split(".")
        if not equals or len(words) < 2 or words[0] not in sections:
            raise UsageError(f"--set {change!r}: expected section.field=value; sections: {', '.join(sections)}")
        _put(given[words[0]], words[1:], _scalar(value), change)
    return {name: made(kind, given[name], name) for name, kind in sections.items()}


def made(kind: type[Any], fields: Mapping[str, Any], section: str) -> Any:
    """An instance of the dataclass ``kind`` from plain values."""
    known = get_type_hints(kind)
    names = {f.name for f in dataclasses.fields(kind)}
    checked = {}
    for name, value in fields.items():
        if name not in names:
            raise UsageError(f"{section}.{name} is unknown; {nearest(str(name), names)}")
        try:
            checked[name] = TypeAdapter(known[name]).validate_python(value)
        except ValidationError as error:
            raise UsageError(f"{section}.{name}={value!r}: {error.errors()[0]['msg']}") from None
    return kind(**checked)


def differences(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> list[str]:
    """``key: one's value, other's value`` for each plain value in which two settings differ."""
    told = []
    for key in sorted(set(one) | set(other)):
        a, b = one.get(key), other.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            told += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            told.append(f"{prefix}{key}: {a!r}, {b!r}")
    return told


def _document(path: Path) -> Mapping[Any, Any]:
    try:
        document = YAML(typ="safe").load(path.read_text("utf-8"))
    except (OSError, YAMLError) as error:
        raise UsageError(f"{path} cannot be read as YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(document or {}, Mapping):
        raise UsageError(f"{path} must be a mapping of sections")
    return document or {}


def _scalar(text: str) -> Any:
    try:
        return YAML(typ="safe").load(text)
    except YAMLError:
        return text


def _put(fields: dict[str, Any], words: Sequence[str], value: Any, change: str) -> None:
    for word in words[:-1]:
        inner = fields.setdefault(word, {})
        if not isinstance(inner, dict):
            raise UsageError(f"--set {change!r}: {word} has no fields")
        fields = inner
    fields[words[-1]] = value
