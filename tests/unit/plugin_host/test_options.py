"""Options become a policy, or sentences with the full path in the config."""

from typing import Annotated, Literal

import pytest
from pydantic import Field, field_validator, model_validator

from router_core.api import PolicyConfig, hookimpl
from router_core.contract.errors import PolicyLoadError, StartupError
from router_core.plugin_host.discovery import LoadedPlugin
from router_core.plugin_host.options import OptionInfo, build_policy, describe_options

SOURCE = "(policy 'cache_aware' of router-policy-cache-aware 0.1.0)"


class Bare:
    @hookimpl
    def select_single(self, workers):
        return workers[0]


class CacheAware(Bare):
    class Config(PolicyConfig):
        threshold: float = Field(0.5, ge=0, le=1, description="Share of the prompt that\n must match.")
        mode: Literal["fast", "exact"] = "fast"
        weights: list[int] = Field(default_factory=lambda: [1, 2], min_length=1)
        limit: int | None = None
        """Most blocks kept."""

        @field_validator("limit")
        @classmethod
        def even(cls, value):
            if value is not None and value % 2:
                raise ValueError("an even number, please")
            return value

        @model_validator(mode="after")
        def together(self):
            if self.mode == "exact" and self.limit == 2:
                raise ValueError("exact wants a limit above 2")
            return self

    def __init__(self, config):
        self.config = config


class Required(Bare):
    class Config(PolicyConfig):
        table: str = Field(description="Where the table is.")
        size: int = Field(alias="table-size", default=4, multiple_of=2)

    def __init__(self, config):
        self.config = config


def loaded(cls):
    return LoadedPlugin("cache_aware", cls, "router-policy-cache-aware", "0.1.0", "m:C")


def problems_of(cls, options, error=StartupError, **where):
    with pytest.raises(error) as caught:
        build_policy(loaded(cls), options, **where)
    return list(caught.value.problems)


class Base(PolicyConfig):
    size: int = 1
    """Inherited."""


class Limited:
    class Config(Base):
        share: Annotated[float, Field(ge=0, le=1)] | None = None
        """May be left out."""

        words: tuple[Annotated[str, Field(min_length=1)], ...] = ()
        """Some words."""

        weights: dict[str, int | None] = {}
        """Some weights."""


def test_types_are_named_as_people_write_them_and_own_options_come_first():
    described = describe_options(Limited)
    assert [(option.name, option.type, option.constraints) for option in described] == [
        ("share", "float | None", (">= 0", "<= 1")),
        ("words", "tuple[str, ...]", ()),
        ("weights", "dict[str, int | None]", ()),
        ("size", "int", ()),
    ]


def test_options_reach_the_constructor_validated():
    policy = build_policy(loaded(CacheAware), {"threshold": "0.25"})  # flags bring strings
    assert (policy.config.threshold, policy.config.mode) == (0.25, "fast")


def test_policy_without_config_is_built_without_options():
    assert isinstance(build_policy(loaded(Bare), {}), Bare)


def test_misspelt_option_is_answered_with_the_nearest():
    assert problems_of(CacheAware, {"treshold": 0.5}) == [
        f"policy.options.treshold: unknown option; did you mean 'threshold'? {SOURCE}"
    ]


def test_unknown_option_is_answered_with_the_known_ones():
    assert problems_of(CacheAware, {"zzz": 1}, where="pools[0].policy") == [
        f"pools[0].policy.options.zzz: unknown option; known options are threshold, mode, weights, limit {SOURCE}"
    ]


def test_all_errors_come_together():
    options = {"threshold": 1.5, "mode": "quick", "weights": [1, "two"], "limit": 3, "extra": 1}
    assert problems_of(CacheAware, options) == [
        f"policy.options.threshold: input should be less than or equal to 1, not 1.5 {SOURCE}",
        f"policy.options.mode: input should be 'fast' or 'exact', not 'quick' {SOURCE}",
        "policy.options.weights[1]: input should be a valid integer, unable to parse string as an integer, "
        f"not 'two' {SOURCE}",
        f"policy.options.limit: an even number, please {SOURCE}",
        f"policy.options.extra: unknown option; known options are threshold, mode, weights, limit {SOURCE}",
    ]


@pytest.mark.parametrize(("value", "shown"), [("", "''"), (None, "null, an empty value")])
def test_value_left_out_is_said_as_it_stands_in_the_config(value, shown):
    (problem,) = problems_of(CacheAware, {"threshold": value})
    assert problem.endswith(f", not {shown} {SOURCE}")


def test_rule_over_several_options_names_them_all_as_the_place():
    assert problems_of(CacheAware, {"mode": "exact", "limit": 2}) == [
        f"policy.options: exact wants a limit above 2 {SOURCE}"
    ]


def test_missing_option_is_described():
    assert problems_of(Required, {}) == [
        f"policy.options.table: required option is missing; set it: Where the table is. {SOURCE}"
    ]


def test_options_for_a_policy_that_takes_none_are_refused():
    assert problems_of(Bare, {"a": 1, "b": 2}) == [
        f"policy.options.a: takes no options; remove it {SOURCE}",
        f"policy.options.b: takes no options; remove it {SOURCE}",
    ]


def test_long_values_are_cut_short():
    (problem,) = problems_of(CacheAware, {"threshold": "x" * 500})
    assert len(problem) < 250


def test_constructor_that_raises_is_told(bad):
    assert problems_of(bad("bad_constructor:RaisingConstructor"), {}, PolicyLoadError) == [
        f"policy: the constructor raised RuntimeError: cannot reach the moon {SOURCE}"
    ]


def test_validator_that_raises_is_told(bad):
    assert problems_of(bad("bad_constructor:RaisingValidator"), {}, PolicyLoadError) == [
        f"policy.options: cannot be checked, the plugin raised ZeroDivisionError: oops {SOURCE}"
    ]


def test_options_are_described_for_people():
    assert describe_options(CacheAware) == (
        OptionInfo("threshold", "float", "0.5", "Share of the prompt that must match.", (">= 0", "<= 1")),
        OptionInfo("mode", "Literal['fast', 'exact']", '"fast"', "", ()),
        OptionInfo("weights", "list[int]", "[1, 2]", "", ("min length 1",)),
        OptionInfo("limit", "int | None", "null", "Most blocks kept.", ()),
    )


def test_required_options_and_aliases_are_described():
    assert describe_options(Required) == (
        OptionInfo("table", "str", "required", "Where the table is.", ()),
        OptionInfo("table-size", "int", "4", "", ("multiple of 2",)),
    )


def test_policy_without_config_has_no_options_to_describe():
    assert describe_options(Bare) == ()
