"""Keys as people write them down: checked, and never shown."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, SecretStr

_KEY = re.compile(r"[\x21-\x7e]+")


def _fits_a_header(key: SecretStr) -> SecretStr:
    if not _KEY.fullmatch(key.get_secret_value()):
        raise ValueError("the key is empty or holds white space or non-ASCII characters; give the key alone")
    return key


ApiKey = Annotated[SecretStr, AfterValidator(_fits_a_header)]
"""A key that can stand in an `Authorization` header."""
