from __future__ import annotations

import asyncio
import contextlib
import json
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from router_core.contract.errors import StartupError
from router_core.contract.membership import WorkerSpec
from router_core.fleet.membership.file import FileMembership
from router_core.fleet.membership.static import StaticMembership

A, B = "http://a:1", "http://b:1"
HOUR_NS = 3600 * 1_000_000_000


class Looks:
    """Lets a source look at its file when the test says so."""

    def __init__(self, path: Path, *, age_ns: int = HOUR_NS, **options: object) -> None:
        config = FileMembership.Config.model_validate({"path": path, **options})
        self.reports: list[tuple[WorkerSpec, ...]] = []
        self.signs_of_life = 0
        self._waiting = asyncio.Event()
        self._go = asyncio.Event()
        self._source = FileMembership(config, sleep=self._sleep, wall_clock_ns=lambda: path.stat().st_mtime_ns + age_ns)
        self._task: asyncio.Task[None] | None = None

    def _report(self, specs: tuple[WorkerSpec, ...]) -> None:
        if self.reports and specs is self.reports[-1]:
            self.signs_of_life += 1
        else:
            self.reports.append(specs)

    @property
    def urls(self) -> list[str]:
        return [spec.url for spec in self.reports[-1]]

    @contextlib.asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        self._task = asyncio.ensure_future(self._source.run(self._report))
        try:
            await self._looked()
            yield
        finally:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def look(self) -> None:
        self._waiting.clear()
        self._go.set()
        await self._looked()

    async def _looked(self) -> None:
        assert self._task is not None
        waiting = asyncio.ensure_future(self._waiting.wait())
        await asyncio.wait((waiting, self._task), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if self._task.done():
            self._task.result()

    async def _sleep(self, seconds: float) -> None:
        self._waiting.set()
        await self._go.wait()
        self._go.clear()


def replace(path: Path, text: str) -> None:
    """Replace a file atomically, as configuration tools do."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(path)


async def test_yaml_and_json_lists_are_read(tmp_path: Path):
    for name, text in (("w.yaml", f"- {A}\n- {{url: {B}, role: decode}}\n"), ("w.json", json.dumps([A, {"url": B}]))):
        path = tmp_path / name
        path.write_text(text)
        looks = Looks(path)
        async with looks.following():
            assert looks.urls == [A, B]


async def test_a_changed_file_is_reported_once(tmp_path: Path):
    path = tmp_path / "w.yaml"
    path.write_text(f"- {A}\n")
    looks = Looks(path)
    async with looks.following():
        await looks.look()
        replace(path, f"- {B}\n")
        await looks.look()
        await looks.look()
        assert [[spec.url for spec in report] for report in looks.reports] == [[A], [B]]
        path.write_text("[]\n")
        await looks.look()
        assert looks.urls == []


async def test_a_replaced_file_of_the_same_size_and_time_is_noticed(tmp_path: Path):
    path = tmp_path / "w.yaml"
    path.write_text(f"- {A}\n")
    looks = Looks(path)
    async with looks.following():
        before = path.stat()
        replace(path, f"- {B}\n")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        await looks.look()
        assert looks.urls == [B]


async def test_a_fresh_file_is_read_again_even_if_its_time_stamp_did_not_move(tmp_path: Path):
    path = tmp_path / "w.yaml"
    path.write_text(f"- {A}\n")
    looks = Looks(path, age_ns=0)
    async with looks.following():
        before = path.stat()
        path.write_text(f"- {B}\n")  # in place: same inode, same size
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        await looks.look()
        assert looks.urls == [B]


async def test_a_mounted_config_map_is_followed_through_its_symlinks(tmp_path: Path):
    for version, url in (("v1", A), ("v2", B)):
        (tmp_path / version).mkdir()
        (tmp_path / version / "workers.yaml").write_text(f"- {url}\n")
    data, path = tmp_path / "..data", tmp_path / "workers.yaml"
    data.symlink_to("v1")
    path.symlink_to("..data/workers.yaml")
    looks = Looks(path)
    async with looks.following():
        (tmp_path / "..data_tmp").symlink_to("v2")
        (tmp_path / "..data_tmp").replace(data)
        await looks.look()
        assert looks.urls == [B]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty; write []"),
        (f"- {B}\n- {{url: http", "is not YAML"),
        ("- 2026-99-99\n", "is not YAML"),
        ("- !!float ''\n", "is not YAML"),
        ("- !!timestamp x\n", "is not YAML"),
        (f"- {B}\n- nonsense\n", "[1].url: 'nonsense' lacks http"),
        (f"workers: [{B}]\n", "it is not a list"),
        (f"- {B}\n- {B}\n", "stands there more than once"),
        (f"- {{url: {B}, port: 3}}\n", "[0].port: is unknown; remove it; the last"),
        ("- a\n" * 9, "[2].url: 'a' lacks http:// or https://; write 'http://a'; and 6 more; the last"),
        ("\x00", "is not YAML"),
    ],
)
async def test_the_last_good_list_stays_while_the_file_is_wrong(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, sentence: str
):
    path = tmp_path / "w.yaml"
    path.write_text(f"- {A}\n")
    looks = Looks(path, age_ns=0)
    async with looks.following():
        path.write_text(text)
        for _ in range(3):
            await looks.look()
        assert len(looks.reports) == 1
        assert len(caplog.records) == 1
        assert sentence in caplog.text
        assert "the last good list stays" in caplog.text
        path.write_text(f"- {A}\n- {B}\n")
        await looks.look()
        assert looks.urls == [A, B]


async def test_a_file_that_vanishes_and_returns_unchanged_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    path = tmp_path / "w.yaml"
    path.write_text(f"- {A}\n")
    looks = Looks(path)
    async with looks.following():
        text = path.read_text()
        path.unlink()
        for _ in range(3):
            await looks.look()
        path.write_text(text)
        await looks.look()
        assert len(looks.reports) == 1
    assert caplog.text.count("No such file") == 1


async def test_requests_go_on_while_a_long_list_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    readers = []
    read = yaml.safe_load
    monkeypatch.setattr(yaml, "safe_load", lambda text: readers.append(threading.current_thread()) or read(text))
    path = tmp_path / "w.yaml"
    path.write_text(f"- {A}\n")
    looks = Looks(path)
    async with looks.following():
        replace(path, f"- {A}\n- {B}\n")
        await looks.look()
        assert looks.urls == [A, B]
    assert len(readers) == 2
    assert threading.current_thread() not in readers


async def test_a_missing_file_is_an_error_at_start(tmp_path: Path):
    with pytest.raises(StartupError, match="is not there; create it, or set must_exist: false"):
        async with Looks(tmp_path / "w.yaml").following():
            pass


async def test_a_missing_file_is_waited_for_if_it_need_not_exist(tmp_path: Path):
    path = tmp_path / "w.yaml"
    looks = Looks(path, must_exist=False)
    async with looks.following():
        assert looks.reports == [()]
        replace(path, f"- {A}\n")
        await looks.look()
        assert looks.urls == [A]


@pytest.mark.parametrize("must_exist", [True, False])
async def test_a_wrong_file_is_an_error_at_start(tmp_path: Path, must_exist: bool):
    path = tmp_path / "w.json"
    path.write_text("[1, 2")
    with pytest.raises(StartupError, match=r"w\.json: is not JSON"):
        async with Looks(path, must_exist=must_exist).following():
            pass


async def test_static_workers_are_reported_once():
    config = StaticMembership.Config.model_validate({"workers": [A, {"url": B, "labels": {"zone": "a"}}]})
    reports: list[tuple[WorkerSpec, ...]] = []
    task = asyncio.ensure_future(StaticMembership(config).run(reports.append))
    done, _ = await asyncio.wait((task,), timeout=0)
    assert not done
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert [[spec.url for spec in report] for report in reports] == [[A, B]]
    assert dict(reports[0][1].labels) == {"zone": "a"}


async def test_each_look_at_a_good_file_is_a_sign_of_life_and_none_at_a_bad_one(tmp_path: Path):
    path = tmp_path / "workers.yaml"
    path.write_text(f"- {A}\n")
    looks = Looks(path)
    async with looks.following():
        await looks.look()
        await looks.look()
        assert looks.signs_of_life == 2
        replace(path, "- [")
        await looks.look()
        await looks.look()
        assert looks.signs_of_life == 2
