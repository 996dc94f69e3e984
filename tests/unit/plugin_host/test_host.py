"""A hook that one plugin alone implements is called without pluggy's machinery, and nobody can tell."""

from __future__ import annotations

import pytest

from router_core.api import hookimpl
from router_core.plugin_host.host import PluginHost

ARGUMENTS = {
    "select_single": {"workers": ("w0", "w1"), "request": "r"},
    "on_request_complete": {
        "worker_url": "http://w0",
        "success": True,
        "worker": "w0",
        "request": "r",
        "outcome": "o",
    },
}


class NamesSome:
    """Names some of the arguments, in an order of its own."""

    @hookimpl
    def select_single(self, request, workers):
        return request, workers

    @hookimpl
    def on_request_complete(self, outcome, worker_url):
        return outcome, worker_url


class NamesNone:
    @hookimpl
    def select_single(self):
        return None

    @hookimpl
    def on_request_complete(self):
        return None


class PassesOn:
    @hookimpl(wrapper=True)
    def select_single(self):
        return (yield)

    @hookimpl(wrapper=True)
    def on_request_complete(self):
        return (yield)


class Raises:
    @hookimpl
    def select_single(self):
        raise ValueError("boom")


@pytest.mark.parametrize("plugin", [NamesSome(), NamesNone()], ids=lambda plugin: type(plugin).__name__)
@pytest.mark.parametrize("hook", list(ARGUMENTS))
def test_a_hook_that_is_called_directly_answers_as_through_pluggy(plugin, hook):
    alone, wrapped = (PluginHost("mine", "mine", plugins).hook(hook) for plugins in ([plugin], [plugin, PassesOn()]))
    assert alone(**ARGUMENTS[hook]) == wrapped(**ARGUMENTS[hook])


def test_what_a_hook_raises_comes_out_as_it_is():
    call = PluginHost("mine", "mine", [Raises()]).hook("select_single")
    with pytest.raises(ValueError, match="boom"):
        call(**ARGUMENTS["select_single"])


def test_nothing_calls_a_hook_that_nobody_implements():
    assert PluginHost("mine", "mine", [NamesNone()]).hook("select_pair") is None


def test_a_wrapper_alone_is_called_through_pluggy():
    call = PluginHost("mine", "mine", [PassesOn()]).hook("select_single")
    assert call(**ARGUMENTS["select_single"]) is None
