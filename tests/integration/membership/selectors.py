"""Label selectors as an API server evaluates them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

Matcher = Callable[[Mapping[str, str]], bool]

_KEY = r"[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?"
_VALUE = r"([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?"


def parse_selector(text: str) -> Matcher:
    """Return what a selector matches; raises ValueError where the API server answers 400."""
    requirements = [_requirement(part.strip()) for part in re.split(r",(?![^(]*\))", text) if text]
    return lambda labels: all(requirement(labels) for requirement in requirements)


def _requirement(part: str) -> Matcher:
    if match := re.fullmatch(rf"({_KEY})\s*(==|=|!=)\s*({_VALUE})", part):
        key, sign, value = match[1], match[3], match[4]
        if sign == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if match := re.fullmatch(rf"({_KEY})\s+(in|notin)\s+\(([^()]*)\)", part):
        key, operator, values = match[1], match[3], {one.strip() for one in match[4].split(",")}
        if operator == "notin":
            return lambda labels: labels.get(key) not in values
        return lambda labels: labels.get(key) in values
    if match := re.fullmatch(rf"(!?)({_KEY})", part):
        is_absent, key = bool(match[1]), match[2]
        return lambda labels: (key in labels) is not is_absent
    raise ValueError(f"unable to parse requirement: {part!r}")
