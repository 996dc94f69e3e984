"""When a change of the settings' files counts as one."""

from __future__ import annotations

import os

import pytest

from router_core.cli.settings_source import SettingsSource
from router_core.config import RouterConfig
from router_core.contract.errors import StartupError


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "router.yaml"
    file.write_text("first")
    return file


def loaded(file, config=None):
    source = SettingsSource(lambda: config or RouterConfig(), file)
    source.load()
    assert not source.has_changed()
    return source


def test_a_change_counts_once_it_stands_still(file):
    source = loaded(file)
    file.write_text("")  # truncated, about to be written
    assert not source.has_changed()
    file.write_text("second")
    assert not source.has_changed()
    assert source.has_changed()
    source.load()
    assert not source.has_changed()
    assert not source.has_changed()


def test_a_file_replaced_by_renaming_has_changed(file, tmp_path):
    source = loaded(file)
    (tmp_path / "router.yaml~").write_text("second")
    (tmp_path / "router.yaml~").replace(file)
    assert [source.has_changed(), source.has_changed()] == [False, True]


def test_a_mounted_config_map_has_changed_when_its_link_is_turned(tmp_path):
    """Kubernetes keeps `router.yaml -> ..data/router.yaml` and turns `..data`; size and time stamp may be the same."""
    for number in (1, 2):
        (tmp_path / f"..{number}").mkdir()
        (tmp_path / f"..{number}" / "router.yaml").write_text(f"port: {number}")
        os.utime(tmp_path / f"..{number}" / "router.yaml", ns=(0, 0))
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "router.yaml").symlink_to("..data/router.yaml")
    source = loaded(tmp_path / "router.yaml")
    (tmp_path / "..data_tmp").symlink_to("..2")
    (tmp_path / "..data_tmp").rename(tmp_path / "..data")
    assert [source.has_changed(), source.has_changed()] == [False, True]


def test_a_file_that_was_only_touched_has_not_changed(file):
    source = loaded(file)
    os.utime(file)
    assert [source.has_changed(), source.has_changed()] == [False, False]


def test_a_bad_file_is_tried_once_for_each_change(file):
    def load():
        if file.read_text() == "bad":
            raise StartupError(["bad"])
        return RouterConfig()

    source = SettingsSource(load, file)
    source.load()
    source.has_changed()
    file.write_text("bad")
    assert [source.has_changed(), source.has_changed()] == [False, True]
    with pytest.raises(StartupError):
        source.load()
    assert [source.has_changed(), source.has_changed()] == [False, False]
    file.unlink()
    assert [source.has_changed(), source.has_changed()] == [False, True]


def test_what_changes_while_it_is_read_is_a_change_yet_to_come(file):
    def load():
        config = RouterConfig()
        file.write_text("second")
        return config

    source = SettingsSource(load, file)
    source.load()
    assert [source.has_changed(), source.has_changed()] == [False, True]


def test_the_file_of_keys_is_watched_too_and_follows_the_settings(file, tmp_path):
    keys = [tmp_path / "a.yaml", tmp_path / "b.yaml"]
    for each in keys:
        each.write_text("old")
    named = keys[0]
    source = SettingsSource(lambda: RouterConfig.model_validate({"auth": {"keys_file": named}}), file)
    source.load()
    assert source.files == (file, keys[0])
    named = keys[1]
    source.load()
    keys[0].write_text("new")
    assert [source.has_changed(), source.has_changed()] == [False, False]
    keys[1].write_text("new")
    assert [source.has_changed(), source.has_changed()] == [False, True]
