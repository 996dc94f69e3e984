"""The setting that says which pages may use the router from a browser."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from router_core.config.values import split_words
from router_core.contract.errors import shown

_ORIGIN = re.compile(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(:[0-9]{1,5})?")


def _origin(text: str) -> str:
    origin = text.lower().removesuffix("/")
    if origin != "*" and not _ORIGIN.fullmatch(origin):
        raise ValueError(f"{shown(text)} is no origin; write https://HOST or https://HOST:PORT, or '*' for all")
    return re.sub(r"(?<=^http://)(.*):80$|(?<=^https://)(.*):443$", lambda found: found[1] or found[2], origin)


Origin = Annotated[str, AfterValidator(_origin), Field(json_schema_extra={"format": "origin"})]
Origins = Annotated[tuple[Origin, ...], BeforeValidator(split_words)]
