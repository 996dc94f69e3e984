"""Who may use the router: the settings of API keys, as they stand in the config and in a file of keys."""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, FilePath, SecretStr, model_validator

from router_core.config.section import Count, Rate, Section
from router_core.config.values import split_words

DEFAULT_KEY = "default"
"""The name of the key that stands alone, as `auth.api_key`."""

Scope = Literal["inference", "admin", "metrics"]
Priority = Literal["low", "normal", "high"]
OpenPath = Literal[
    "/v1/models", "/get_model_info", "/get_server_info", "/health_generate", "/engine_metrics", "/metrics"
]
"""What may be opened to everybody: nothing that changes something, or tells of clients."""


def _key_text(key: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[!-~]+", key.get_secret_value()):
        raise ValueError("an API key is printable ASCII without spaces, and not empty; make another one")
    return key


def _digest(text: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise ValueError("this is no SHA-256 in hexadecimal; take the 64 digits of: printf %s KEY | sha256sum")
    return text.lower()


def _key_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}", text):
        raise ValueError("a key's name is up to 64 letters, digits and ._@-, the first a letter or digit; change it")
    return text


ApiKeyText = Annotated[SecretStr, AfterValidator(_key_text)]


class ApiKey(Section):
    """A key, whose it is, and what it opens. `NAME=KEY`, or `NAME:SCOPE+SCOPE=KEY`, in place of it will do."""

    name: Annotated[str, AfterValidator(_key_name)]
    """Whose key it is: stands in metrics and messages, so keep secrets out of it."""

    key: ApiKeyText | None = None
    """The key itself, printable ASCII without spaces; or give `sha256`."""

    sha256: Annotated[str, AfterValidator(_digest)] | None = None
    """The key's SHA-256 in hexadecimal, so that the key itself is written nowhere."""

    scopes: Annotated[tuple[Scope, ...], BeforeValidator(split_words), Field(min_length=1)] = ("inference",)
    """What it opens: `inference`, `admin` (with it `metrics`), `metrics`."""

    max_concurrent_requests: Count | None = None
    """Requests of this key that run at once; more wait in the queue."""

    requests_per_s: Rate | None = None
    """Requests a second; more are answered 429."""

    tokens_per_s: Rate | None = None
    """Estimated prompt tokens a second; more are answered 429."""

    weight: Rate = 1
    """Share of the queue's turns, against the other keys' weights."""

    max_priority: Priority = "normal"
    """The highest priority its requests may ask for; a higher one counts as this."""

    @property
    def digest(self) -> bytes:
        """The key's SHA-256."""
        if self.key is None:
            return bytes.fromhex(self.sha256 or "")
        return hashlib.sha256(self.key.get_secret_value().encode()).digest()

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        who, equals, key = value.partition("=")
        name, colon, scopes = who.partition(":")
        if not equals:
            raise ValueError("is not NAME=KEY; write NAME=KEY, or NAME:SCOPE+SCOPE=KEY")  # the text may be a key
        return {"name": name, "key": key} | ({"scopes": tuple(scopes.split("+"))} if colon else {})

    @model_validator(mode="after")
    def _is_given_once(self) -> ApiKey:
        if (self.key is None) == (self.sha256 is None):
            raise ValueError("give either key or sha256")
        return self


class KeyFile(Section):
    """What a file of API keys holds."""

    keys: tuple[ApiKey, ...] = ()
    """The keys."""


class AuthConfig(Section):
    """API keys. With any key set, all but the probes is closed to those who have none."""

    api_key: ApiKeyText | None = None
    """The one key, for clients and administrators alike; better in the environment than in a file or a flag."""

    keys: Annotated[tuple[ApiKey, ...], BeforeValidator(split_words)] = ()
    """Named keys, each with its scopes and limits; as text `NAME=KEY NAME:SCOPE+SCOPE=KEY`."""

    keys_file: FilePath | None = None
    """A YAML or TOML file with more of them under `keys`; it is read again on SIGHUP."""

    forward_keys: bool = False
    """Send the key that opened the router on to the worker as well; else it stays here."""

    open_paths: Annotated[tuple[OpenPath, ...], BeforeValidator(split_words)] = ()
    """What everybody may read without a key, beside the probes; the separate metrics port never asks for one."""
