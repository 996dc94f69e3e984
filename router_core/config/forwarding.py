"""The setting that says which of a client's headers go to workers."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from router_core.config.values import split_words
from router_core.contract.errors import shown
from router_core.relay.request_head import REQUEST_HOP_BY_HOP

_NAME = re.compile(r"[!#$%&'+.^_`|~0-9A-Za-z-]+\*?")


def _header_name(text: str) -> str:
    name = text.lower()
    if not _NAME.fullmatch(name):
        raise ValueError(f"{shown(text)} is no header's name; give a name, or its beginning with '*' behind it")
    if name.encode() in REQUEST_HOP_BY_HOP:
        raise ValueError(f"{shown(text)} speaks of one connection and is never forwarded; leave it out")
    return name


HeaderName = Annotated[str, AfterValidator(_header_name), Field(json_schema_extra={"format": "header-name"})]
ForwardedHeaders = Annotated[tuple[HeaderName, ...], BeforeValidator(split_words)]
