"""Every slip pluggy lets pass is one sentence at startup: thing, place, remedy."""

import sys
from pathlib import Path

import pytest

from router_core.api import PolicyConfig, hookimpl
from router_core.contract.errors import PolicyContractError
from router_core.plugin_host.discovery import load_policy
from router_core.plugin_host.options import build_policy
from router_core.plugin_host.slips import find_slips

PLUGINS = Path(__file__).parents[1] / "plugins"

SLIPS = {
    "bad_async_select:AsyncSelect": [
        "AsyncSelect.select_single is async, but nobody awaits it; "
        "make it a plain def (on_start and on_stop may be async)"
    ],
    "bad_generator:Generator": [
        "Generator.on_start is an async generator, whose body never runs; make it a plain def without yield",
        "Generator.select_single is a generator, whose body never runs; use return instead of yield",
    ],
    "bad_misspelt_hook:MisspeltHook": [
        "MisspeltHook.on_request_completed carries @hookimpl, but there is no hook 'on_request_completed'; "
        "did you mean 'on_request_complete'?",
        "MisspeltHook.select_singel carries @hookimpl, but there is no hook 'select_singel'; "
        "did you mean 'select_single'?",
        "MisspeltHook.zzz carries @hookimpl, but there is no hook 'zzz'; hooks are on_first_token, "
        "on_request_complete, on_start, on_stop, on_worker_added, on_worker_removed, select_pair, select_single",
    ],
    "bad_missing_marker:MissingMarker": [
        "MissingMarker.on_request_complete has the name of a hook but no @hookimpl, so it is never called; "
        "put @hookimpl above it",
        "MissingMarker.select_single has the name of a hook but no @hookimpl, so it is never called; "
        "put @hookimpl above it",
    ],
    "bad_override:Override": [
        "Override.select_single has the name of a hook but no @hookimpl, so it is never called; put @hookimpl above it"
    ],
    "bad_unknown_argument:UnknownArgument": [
        "UnknownArgument.on_stop: unknown parameter 'pool'; it offers none",
        "UnknownArgument.select_single: unknown parameter 'worker'; did you mean 'workers'?",
        "UnknownArgument.select_single: unknown parameter 'temperature'; it offers workers, request",
    ],
    "bad_defaults:Defaults": [
        "Defaults.select_single: parameter 'request' has a default, which is never used; remove the default"
    ],
    "bad_keyword_only:KeywordOnly": [
        "KeywordOnly.select_single: parameter 'request' is keyword-only and never receives anything; "
        "remove the * before it"
    ],
    "bad_star_arguments:StarArguments": [
        "StarArguments.select_single: *args never receives anything; name the parameters you use of workers, request",
        "StarArguments.select_single: **kwargs never receives anything; "
        "name the parameters you use of workers, request",
    ],
    "bad_no_self:NoSelf": [
        "NoSelf.select_single does not take self; write def select_single(self, workers, request)",
    ],
    "bad_property:Property": [
        "Property.select_single is a property, which is never called; make it a plain method",
    ],
    "bad_no_select:NoSelect": [
        "NoSelect implements neither select_single nor select_pair; add an @hookimpl select_single",
    ],
    "bad_only_pair:OnlyPair": [
        "OnlyPair implements only select_pair, but the pool is regular; add an @hookimpl select_single",
    ],
    "bad_wrapper:Wraps": [
        "Wraps.on_first_token is marked hookwrapper=True, which a policy may not use; write a plain @hookimpl",
        "Wraps.on_request_complete is marked wrapper=True, which a policy may not use; write a plain @hookimpl",
    ],
    "bad_needs:Needs": [
        "Needs.needs holds 'gpu', which is unknown; known are text, prefix, telemetry and 'header:<lower-case-name>'",
        "Needs.needs holds 'header:X-Tenant', which is unknown; write 'header:x-tenant'",
        "Needs.needs holds 'prefixes', which is unknown; did you mean 'prefix'?",
        "Needs.needs holds 7; entries are strings: text, prefix, telemetry or 'header:<lower-case-name>'",
    ],
    "bad_needs:NeedsList": [
        "NeedsList.needs is a list; write a frozenset, such as needs = frozenset({'prefix'})",
    ],
    "bad_config:WrongConfig": ["WrongConfig.Config is not a PolicyConfig; write class Config(PolicyConfig)"],
    "bad_config:TakesNothing": [
        "TakesNothing.__init__ does not take the config alone; write def __init__(self, config: Config) -> None"
    ],
    "bad_config:WantsMore": [
        "WantsMore.__init__ does not take the config alone; write def __init__(self, config: Config) -> None"
    ],
    "bad_config:WantsConfig": [
        "WantsConfig.__init__ wants arguments but there is no Config; nest a class Config(PolicyConfig), or take none"
    ],
}


@pytest.fixture(autouse=True)
def clean_imports(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in [name for name in sys.modules if name.startswith("bad_")]:
        del sys.modules[name]


@pytest.mark.parametrize("target", SLIPS)
def test_slip_is_told_in_one_sentence(target):
    assert find_slips(load_policy(target, app_dir=PLUGINS).cls, kind="policy") == SLIPS[target]


def test_every_slip_stops_the_build_and_names_the_plugin():
    loaded = load_policy("bad_missing_marker:MissingMarker", app_dir=PLUGINS)
    with pytest.raises(PolicyContractError) as caught:
        build_policy(loaded, {})
    plugin = "policy 'bad_missing_marker:MissingMarker' of in-house bad_missing_marker:MissingMarker"
    assert caught.value.problems == tuple(f"{plugin}: {slip}" for slip in SLIPS["bad_missing_marker:MissingMarker"])


def test_observer_may_not_select():
    cls = load_policy("bad_observer:SelectingObserver", app_dir=PLUGINS).cls
    assert find_slips(cls, kind="observer") == [
        "SelectingObserver.select_single: an observer may not select; remove it, or offer the class as a policy"
    ]


def test_only_pair_is_fine_in_a_pool_of_pairs():
    cls = load_policy("bad_only_pair:OnlyPair", app_dir=PLUGINS).cls
    assert find_slips(cls, kind="policy", needs_pair=True) == []


def test_all_slips_of_a_class_come_together():
    class Everything:
        needs = ("text",)
        Config = int

        def select_single(self, worker=None):
            pass

        @hookimpl
        async def on_worker_add(self):
            pass

    assert find_slips(Everything, kind="policy") == [
        "Everything.on_worker_add carries @hookimpl, but there is no hook 'on_worker_add'; "
        "did you mean 'on_worker_added'?",
        "Everything.select_single has the name of a hook but no @hookimpl, so it is never called; "
        "put @hookimpl above it",
        "Everything.select_single: unknown parameter 'worker'; did you mean 'workers'?",
        "Everything.needs is a tuple; write a frozenset, such as needs = frozenset({'prefix'})",
        "Everything.Config is not a PolicyConfig; write class Config(PolicyConfig)",
    ]


def test_sound_policy_has_no_slips():
    class Base:
        @hookimpl
        def select_single(self, workers, request):
            return workers[0]

        @hookimpl
        def on_stop(self):
            pass

    class Sound(Base):
        needs = frozenset({"text", "prefix", "telemetry", "header:x-tenant"})
        on_stop = None

        class Config(PolicyConfig):
            margin: int = 8

        def __init__(self, config: Config) -> None:
            self.margin = config.margin

        @hookimpl
        async def on_start(self, pool):
            pass

        @staticmethod
        @hookimpl
        def on_worker_added(worker):
            pass

        @hookimpl
        @classmethod
        def on_worker_removed(cls, worker):
            pass

        @hookimpl(specname="on_first_token")
        def remember(self, worker, /):
            pass

        def helper(self, anything=1, *args, **kwargs):
            pass

    assert find_slips(Sound, kind="policy") == []


def test_wrapper_must_wrap_what_it_would_replace():
    class Wrapper:
        @hookimpl
        def select_single(self, workers):
            return workers[0]

        @hookimpl(hookwrapper=True)
        def select_pair(self):
            yield

        @hookimpl(wrapper=True)
        def on_request_complete(self):
            return None

        @hookimpl(wrapper=True)
        def on_start(self):
            return (yield)

        @hookimpl
        def on_first_token(self, worker):
            pass

    assert find_slips(Wrapper, kind="wrapper") == [
        "Wrapper.on_request_complete is marked as a wrapper but never yields; "
        "write outcome = yield, then return outcome",
        "Wrapper.on_start wraps on_start, which each plugin has for itself; write a plain @hookimpl",
        "Wrapper.select_pair is marked hookwrapper=True, pluggy's old form; write @hookimpl(wrapper=True)",
        "Wrapper.select_single would replace the policy's own; write @hookimpl(wrapper=True) and yield once",
    ]


def test_needs_that_depend_on_the_config_are_left_to_the_instance():
    class Late:
        @property
        def needs(self):
            return frozenset({"text"})

        @hookimpl
        def select_single(self, workers):
            return workers[0]

    assert find_slips(Late, kind="policy") == []
