"""Plugins are listed from metadata alone, loaded one at a time, and no broken distribution hides another."""

import os
import re
import sys
from pathlib import Path

import pytest

from router_core.contract.errors import AmbiguousPolicyError, PolicyLoadError, PolicyNotFoundError
from router_core.plugin_host.discovery import OBSERVER_GROUP, installed_policies, load_policy

PLUGINS = Path(__file__).parents[1] / "plugins"
GROUP = "router_core.policies_of_these_tests"


class Site:
    """A folder on `sys.path` that distributions are installed into by writing their metadata."""

    def __init__(self, folder):
        self.folder = folder

    def install(self, name, version="0.1.0", *, entry_points="", metadata=None, module=None, source="", stem=None):
        info = self.folder / f"{stem or name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        if metadata is None:
            metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nSummary: Picks  a worker.\n"
        if metadata:
            (info / "METADATA").write_bytes(metadata if isinstance(metadata, bytes) else metadata.encode())
        (info / "entry_points.txt").write_text(entry_points)
        if module is not None:
            (self.folder / f"{module}.py").write_text(source)
        return info

    def offer(self, distribution, version="0.1.0", **targets):
        lines = "\n".join(f"{name} = {target}" for name, target in targets.items())
        return self.install(distribution, version, entry_points=f"[{GROUP}]\n{lines}\n")


@pytest.fixture
def site(tmp_path, monkeypatch):
    known = set(sys.modules)
    (tmp_path / "site").mkdir()
    monkeypatch.syspath_prepend(str(PLUGINS))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    yield Site(tmp_path / "site")
    for name in set(sys.modules) - known:
        if name.startswith(("bad_", "good_")):
            del sys.modules[name]


GOOD = "class Policy:\n    pass\n"


# --- listing ---


def test_listing_reads_metadata_and_imports_nothing(site):
    site.install(
        "router-policy-good",
        entry_points=f"[{GROUP}]\nzebra = good_listed:Policy\nant = good_listed:Policy\n[other]\nx = y:Z\n",
        module="good_listed",
        source="raise AssertionError('imported')",
    )
    inventory = installed_policies(GROUP)
    assert [plugin.name for plugin in inventory.plugins] == ["ant", "zebra"]
    ant = inventory.plugins[0]
    assert (ant.group, ant.distribution, ant.version) == (GROUP, "router-policy-good", "0.1.0")
    assert (ant.summary, ant.target, ant.problems) == ("Picks a worker.", "good_listed:Policy", ())
    assert inventory.damaged == ()
    assert "good_listed" not in sys.modules


def test_listing_names_who_disputes_a_name(site):
    site.offer("router-policy-one", "1.0", same="bad_slow:Slow")
    site.offer("router-policy-two", "2.0", same="bad_slow:Slow")
    problem = "policy 'same' is offered by router-policy-one 1.0 and router-policy-two 2.0; uninstall all but one"
    assert [plugin.problems for plugin in installed_policies(GROUP).plugins] == [(problem,), (problem,)]


def test_listing_shows_a_missing_module_and_a_malformed_target(site):
    site.offer("router-policy-x", gone="a_module_nobody_has.deep:Policy", shape="bad_slow")
    gone, shape = installed_policies(GROUP).plugins
    assert gone.problems == ("its module 'a_module_nobody_has' is not there; reinstall its distribution",)
    assert shape.problems == ("its target 'bad_slow' is not of the form module:Class; correct it in the entry point",)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        ({"metadata": ""}, "METADATA is missing; reinstall or delete it"),
        ({"metadata": "Version: 1\n"}, "METADATA names no distribution; reinstall or delete it"),
        ({"metadata": b"Name: \xff\xfe\n"}, "METADATA is unreadable (UnicodeDecodeError: "),
        ({"entry_points": "[router_core.policies]\nnonsense\n"}, "entry_points.txt is unreadable ("),
        ({"stem": "~outer_policy_x"}, "left over from an interrupted pip run; reinstall or delete it"),
    ],
    ids=["no metadata", "no name", "not text", "entry points", "interrupted"],
)
def test_damaged_distribution_is_shown_and_hides_nobody(site, damage, problem):
    info = site.install("router-policy-broken", **damage)
    site.offer("router-policy-good", fine="bad_slow:Slow")
    inventory = installed_policies(GROUP)
    assert [plugin.name for plugin in inventory.plugins] == ["fine"]
    assert [entry.path for entry in inventory.damaged] == [str(info)]
    assert inventory.damaged[0].problem.startswith(problem)
    assert load_policy("fine", group=GROUP).cls.__name__ == "Slow"


def test_folder_that_is_twice_on_the_path_counts_once(site, monkeypatch):
    site.offer("router-policy-good", fine="bad_slow:Slow")
    monkeypatch.syspath_prepend(str(site.folder) + os.sep)
    assert [plugin.problems for plugin in installed_policies(GROUP).plugins] == [()]
    assert load_policy("fine", group=GROUP).version == "0.1.0"


def test_earlier_folder_shadows_a_distribution_in_a_later_one(site, tmp_path, monkeypatch):
    site.offer("router-policy-good", "0.1.0", fine="bad_slow:Slow")
    Site(tmp_path / "newer").offer("Router.Policy_Good", "0.2.0", fine="bad_slow:Slow")
    monkeypatch.syspath_prepend(str(tmp_path / "newer"))
    assert [plugin.version for plugin in installed_policies(GROUP).plugins] == ["0.2.0"]


def test_leftover_metadata_of_an_older_version_is_told_and_does_not_dispute(site):
    for version in ("0.9.0", "0.10.0"):
        site.offer("router-policy-good", version, fine="bad_slow:Slow")
    (plugin,) = installed_policies(GROUP).plugins
    assert plugin.version == "0.10.0"
    assert plugin.problems == (
        f"router-policy-good has leftover metadata of versions 0.9.0 and 0.10.0 in {site.folder}; reinstall it",
    )
    assert load_policy("fine", group=GROUP).version == "0.10.0"


# --- loading ---


def test_loading_imports_only_what_was_named(site):
    site.install("router-policy-a", entry_points=f"[{GROUP}]\na = good_a:Policy\n", module="good_a", source=GOOD)
    site.install("router-policy-b", entry_points=f"[{GROUP}]\nb = good_b:Policy\n", module="good_b", source=GOOD)
    loaded = load_policy("a", group=GROUP)
    assert (loaded.name, loaded.distribution, loaded.version) == ("a", "router-policy-a", "0.1.0")
    assert (loaded.target, loaded.source) == ("good_a:Policy", "router-policy-a 0.1.0")
    assert loaded.cls is sys.modules["good_a"].Policy
    assert "good_b" not in sys.modules


def test_unknown_name_is_answered_with_the_nearest_the_installed_and_the_remedy(site):
    site.offer("router-policy-x", cache_aware="bad_slow:Slow", random="bad_slow:Slow")
    with pytest.raises(PolicyNotFoundError) as caught:
        load_policy("cache_awre", group=GROUP)
    assert caught.value.problems == (
        "policy 'cache_awre' is not installed; did you mean 'cache_aware'? "
        "The built-in ones come with pip install 'router-core[policies]' (installed: cache_aware, random)",
    )


def test_default_policy_that_is_not_installed_is_answered_with_the_command(site, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(site.folder)])
    with pytest.raises(PolicyNotFoundError) as caught:
        load_policy("cache_aware")
    assert caught.value.problems == (
        "policy 'cache_aware' is not installed; add it with pip install router-policy-cache-aware, "
        "the built-in ones with pip install 'router-core[policies]' (installed: none)",
    )


def test_unknown_name_points_at_damaged_distributions_that_may_have_held_it(site):
    info = site.install("router-policy-lost", metadata="")
    with pytest.raises(PolicyNotFoundError, match=re.escape(f"unreadable, may hold it: {info})")):
        load_policy("lost", group=GROUP)


def test_disputed_name_is_refused_and_both_are_named(site):
    site.offer("router-policy-one", "1.0", same="bad_slow:Slow")
    site.offer("router-policy-two", "2.0", same="bad_slow:Slow")
    with pytest.raises(AmbiguousPolicyError) as caught:
        load_policy("same", group=GROUP)
    assert caught.value.problems == (
        "policy 'same' is offered by router-policy-one 1.0 and router-policy-two 2.0; uninstall all but one",
    )


@pytest.mark.parametrize(
    ("target", "cause", "reason"),
    [
        (
            "bad_import:BadImport",
            ModuleNotFoundError,
            "cannot be loaded: ModuleNotFoundError: No module named 'a_module_nobody_has'",
        ),
        ("bad_exit:Policy", SystemExit, "cannot be loaded: SystemExit: no licence found"),
        (
            "bad_slow:Fast",
            AttributeError,
            "cannot be loaded: AttributeError: module 'bad_slow' has no attribute 'Fast'",
        ),
        (
            "bad_instance:policy",
            type(None),
            "is an instance of Policy, not a class; name the class, the core builds the instance",
        ),
        ("bad_instance:make_policy", type(None), "is a function, not a class; name the policy class itself"),
        ("bad_instance", type(None), "the target is not of the form module:Class; correct it in the entry point"),
    ],
)
def test_load_failure_names_distribution_version_target_and_cause(site, target, cause, reason):
    site.offer("router-policy-x", "1.2", x=target)
    with pytest.raises(PolicyLoadError) as caught:
        load_policy("x", group=GROUP)
    assert caught.value.problems == (f"policy 'x' of router-policy-x 1.2 (target {target}): {reason}",)
    assert isinstance(caught.value.__cause__, cause)


def test_keyboard_interrupt_while_importing_is_the_users(site):
    site.install(
        "router-policy-x",
        entry_points=f"[{GROUP}]\nx = good_slow_import:Policy\n",
        module="good_slow_import",
        source="raise KeyboardInterrupt",
    )
    with pytest.raises(KeyboardInterrupt):
        load_policy("x", group=GROUP)


def test_observers_have_a_group_and_a_word_of_their_own(site):
    with pytest.raises(PolicyNotFoundError, match="observer 'nobody' is not installed"):
        load_policy("nobody", group=OBSERVER_GROUP)


# --- in-house ---


def test_unpackaged_class_is_looked_up_in_the_app_folder_first(site, tmp_path):
    (tmp_path / "good_inhouse.py").write_text(GOOD)
    loaded = load_policy("good_inhouse:Policy", app_dir=tmp_path)
    assert (loaded.distribution, loaded.version, loaded.source) == (None, None, "in-house good_inhouse:Policy")
    assert sys.path[0] == str(tmp_path.resolve())


def test_app_folder_stays_off_the_path_for_an_installed_policy(site, tmp_path):
    site.offer("router-policy-good", fine="bad_slow:Slow")
    load_policy("fine", group=GROUP, app_dir=tmp_path)
    assert str(tmp_path) not in sys.path


def test_unpackaged_class_that_is_not_there_names_the_folder(site, tmp_path):
    with pytest.raises(PolicyLoadError) as caught:
        load_policy("good_nowhere:Policy", app_dir=tmp_path)
    assert caught.value.problems == (
        f"in-house policy 'good_nowhere:Policy' (looked up in {tmp_path.resolve()}): "
        "cannot be loaded: ModuleNotFoundError: No module named 'good_nowhere'",
    )


def test_malformed_unpackaged_name_is_explained(site):
    with pytest.raises(PolicyLoadError, match="is not of the form module:Class; write for example"):
        load_policy("my-policies:Sticky")
