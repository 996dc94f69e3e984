"""Settings that nobody would write: a config, or sentences that say what is wrong; never anything else."""

from __future__ import annotations

import contextlib
import json
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from router_core.config import RouterConfig, iter_fields, load_config
from router_core.contract.errors import StartupError

FIELDS = iter_fields()
NAMES = sorted({field.path.split(".")[0] for field in FIELDS} | {part for f in FIELDS for part in f.path.split(".")})
ODD = ["", " ", "\x00", "http://", "http://a:1", "http://a:1 http://a:1", "[::1]", "-1", "1e999", "0x10", "nan", "true",
       "null", "~", "a" * 5000, "\ud7ff", "\u202e", "{}", "[]", "*", "&a", "!!python/object:os.system", "%s",
       "../../etc"]  # fmt: skip
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.sampled_from(ODD)
    | st.text(string.printable, max_size=20)
)
KEYS = st.sampled_from(NAMES) | st.text(max_size=5)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=10,
)
WORDS = st.sampled_from(ODD) | st.text(max_size=30)
MAPPINGS = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=5)
quick = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def loads(path: Path | None = None, environ: Mapping[str, str] | None = None, **flags: Any) -> RouterConfig | None:
    """Return a config, or None if sentences said why not."""
    problems: tuple[str, ...] = ()
    try:
        return load_config(path=path, environ=environ or {}, flags=flags)
    except StartupError as error:
        problems = error.problems
    assert problems
    for problem in problems:
        assert problem
        assert "Traceback" not in problem
        assert "errors.pydantic.dev" not in problem
        assert len(problem) < 3000
    return None


@quick
@given(MAPPINGS)
def test_any_mapping_in_a_file_is_a_config_or_told(tmp_path: Path, content: dict[str, Any]):
    file = tmp_path / "router.yaml"
    file.write_text(json.dumps(content))  # JSON is YAML, mostly
    config = loads(file)
    if config is not None:
        assert RouterConfig.model_validate(config) == config


@quick
@given(st.text(max_size=200) | st.binary(max_size=200))
@example("worker_urls: &a [*a]")
@example("a: &a [" + "*a, " * 3 + "]")
@example("[" * 3000)
@example("{" * 3000)
@example("? " * 1500)
@example("- " * 1500)
@example("!!python/object/apply:os.system ['true']")
@example("a: 2024-13-01")
@example("a: 0b_")
@example("\t")
@example("policy: {<<: [1]}")
@example("1: 2\n[1, 2]: 3")
@example("a: !!binary x")
@example("a: !!timestamp x")
@example("a: !!int x")
@example("a: !!float ''")
@example("a: !!set {x}\nb: !!omap [a: 1]\nc: !!pairs [a]")
def test_any_text_is_a_config_file_or_told(tmp_path: Path, text: str | bytes):
    for suffix in (".yaml", ".toml"):
        file = tmp_path / f"router{suffix}"
        with contextlib.suppress(UnicodeEncodeError):
            file.write_bytes(text if isinstance(text, bytes) else text.encode())
            loads(file)


@quick
@given(st.dictionaries(st.sampled_from([field.variable for field in FIELDS]), WORDS, max_size=4))
def test_any_environment_is_a_config_or_told(environ: dict[str, str]):
    loads(environ={name: value.replace("\x00", "") for name, value in environ.items()})


@quick
@given(
    st.lists(WORDS, max_size=3),
    st.lists(st.sampled_from([*ODD, "=", "a=b", "=b", "a="]) | st.text(max_size=30), max_size=3),
    WORDS,
)
def test_any_flags_are_a_config_or_told(urls: list[str], options: list[str], port: str):
    loads(worker_urls=urls, policy_option=options, port=port)


@pytest.mark.parametrize("field", [field.path for field in FIELDS])
def test_every_setting_refuses_what_it_is_not(field: str):
    for value in ({"no": {"such": ["thing"]}}, [[[]]], object()):
        content: Any = value
        for part in reversed(field.split(".")):
            content = {part: content}
        with contextlib.suppress(ValueError):
            RouterConfig.model_validate(content)
