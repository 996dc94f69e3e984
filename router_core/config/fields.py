"""Every setting in words: for the messages, the flags' help and the reference page. Read off the schema alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from router_core.config.schema import RouterConfig

ENVIRONMENT_PREFIX = "ROUTER_CORE_"

FLAGS: Mapping[str, str] = {
    "host": "--host",
    "port": "--port",
    "worker_urls": "--worker-urls",
    "auth.api_key": "--api-key",
    "policy.name": "--policy",
    "policy.options": "--policy-option",
    "dp_aware": "--dp-aware",
    "prefill_policy": "--prefill-policy",
    "decode_policy": "--decode-policy",
    "app_dir": "--app-dir",
    "log_level": "--log-level",
    "log_format": "--log-format",
    "access_log": "--access-log",
    "request_id_headers": "--request-id-headers",
    "prometheus_host": "--prometheus-host",
    "prometheus_port": "--prometheus-port",
    "admin_host": "--admin-host",
    "admin_port": "--admin-port",
    "tls.cert": "--tls-cert",
    "tls.key": "--tls-key",
    "pd.enabled": "--pd-disaggregation",
    "pd.protocol": "--pd-protocol",
    "pd.prefill": "--prefill",
    "pd.decode": "--decode",
}
"""The settings that have a flag, by their path in the config."""


A_FILE, FILES = "a file", "a list of files"
"""What a setting takes that names files; in a config file they are relative to that file's folder."""


@dataclass(frozen=True, slots=True)
class ConfigField:
    """One setting, in words.

    Attributes:
        path: Where it stands, such as `health.interval_s`.
        expects: What it takes, such as `a number above 0, at most 86400`.
        default: Its default, as JSON has it.
        description: What it does.
        variable: The environment variable that sets it.
        flag: The flag that sets it, None for most.
    """

    path: str
    expects: str
    default: object
    description: str
    variable: str
    flag: str | None


def iter_fields() -> tuple[ConfigField, ...]:
    """Return every setting in the order of the schema, sections opened up into their fields."""
    schema = RouterConfig.model_json_schema()
    return tuple(_fields_of(schema, schema["$defs"], ""))


def variable_name(path: str) -> str:
    """Return the environment variable of a setting: `health.interval_s` has `ROUTER_CORE_HEALTH__INTERVAL_S`."""
    return ENVIRONMENT_PREFIX + path.upper().replace(".", "__")


# Any: a JSON schema, as pydantic gives it
def _fields_of(schema: Mapping[str, Any], sections: Mapping[str, Any], prefix: str) -> Iterator[ConfigField]:
    for name, rules in schema["properties"].items():
        path = f"{prefix}{name}"
        if "$ref" in rules:
            yield from _fields_of(sections[rules["$ref"].rsplit("/", 1)[-1]], sections, f"{path}.")
            continue
        yield ConfigField(
            path=path,
            expects=_expects(rules),
            default=rules.get("default", {}),
            description=rules["description"],
            variable=variable_name(path) + ("__<OPTION>" if rules.get("type") == "object" else ""),
            flag=FLAGS.get(path),
        )


def _expects(rules: Mapping[str, Any]) -> str:
    if "anyOf" in rules:  # X | None
        return _expects(rules["anyOf"][0])
    if "$ref" in rules:  # a plugin
        return "a name, or a mapping with `name` and `options`"
    if "enum" in rules:
        return "one of " + ", ".join(rules["enum"])
    words = _IN_WORDS[rules["type"]]
    if rules["type"] == "array":
        return words + _items(rules["items"])
    if rules.get("format") in _PATHS:
        return _PATHS[rules["format"]]
    if "exclusiveMinimum" in rules:
        return f"{words} above {rules['exclusiveMinimum']:g}, at most {rules['maximum']:g}"
    if "maximum" in rules:
        return f"{words} from {rules['minimum']:g} to {rules['maximum']:g}"
    return f"{words}, {rules['minimum']:g} or more" if "minimum" in rules else words


def _items(rules: Mapping[str, Any]) -> str:
    if "enum" in rules:
        return " of " + ", ".join(rules["enum"])
    if rules.get("type") == "integer":
        return f" of whole numbers from {rules['minimum']:g} to {rules['maximum']:g}"
    return _ITEMS.get(rules.get("$ref", rules.get("format", "")).rpartition("/")[2], " of URLs")


_PATHS: Mapping[str, str] = {"path": "a folder", "file-path": A_FILE}
_ITEMS: Mapping[str, str] = {
    "PluginSelection": " of plugins",
    "PrefillWorker": " of prefill workers",
    "ModelConfig": " of models",
    "file-path": " of files",
    "header-name": " of header names",
    "origin": " of origins",
    "ApiKey": " of API keys",
}

_IN_WORDS: Mapping[str, str] = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "string": "text",
    "object": "a mapping",
    "array": "a list",
}
