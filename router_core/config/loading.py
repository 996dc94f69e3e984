"""Lays the sources over each other, has the schema judge the result, and says all that is wrong in one go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from router_core.config.fields import A_FILE, FILES, iter_fields
from router_core.config.schema import RouterConfig
from router_core.config.selection import DEFAULT_POLICY
from router_core.config.sources import CONFIG_VARIABLE, Setting, from_environment, from_file, from_flags
from router_core.config.values import ContradictionError
from router_core.config.wording import Location, place_of, what_is_wrong
from router_core.contract.errors import StartupError

_NO_WORKER = (
    "worker_urls: no worker is named; give --worker-urls http://HOST:PORT, set ROUTER_CORE_WORKER_URLS, "
    "or list them under worker_urls in a config file; membership names sources that find them"
)
_NO_LEG = {
    "prefill": "pd: no prefill worker is named; give --prefill URL [PORT] or list them under pd.prefill",
    "decode": "pd: no decode worker is named; give --decode URL or list them under pd.decode",
}


def load_config(*, path: Path | None, environ: Mapping[str, str], flags: Mapping[str, Any]) -> RouterConfig:
    """Return the settings for serving: flags over environment over file over defaults.

    Options belong to the policy they were written for: `--policy other` drops the options that the file or the
    environment gives to another one; naming the same policy keeps them and adds to them.

    Args:
        path: The config file, YAML or TOML; None takes `ROUTER_CORE_CONFIG`, and without that no file.
        environ: The environment.
        flags: What the command line sets, only that, by flag: `{"worker_urls": [...], "policy_option": ["KEY=VALUE"]}`.

    Returns:
        The validated settings, `app_dir` filled in, with at least one worker, a pair, or a source of workers.

    Raises:
        StartupError: With one sentence for each problem, naming the setting, what is wrong, the remedy and the source.
    """
    path = config_file(path, environ)
    problems: list[str] = []
    draft = _Draft()
    try:
        draft.lay_over(from_file(path) if path else ())
    except StartupError as error:
        problems += error.problems
    file_was_read = not problems
    draft.lay_over(from_environment(environ, problems))
    draft.lay_over(from_flags(flags, problems))
    app_dir = _app_dir(draft, path, problems)
    if path is not None:
        draft.resolve_files(path)
    config = _judged(draft, problems)
    if file_was_read:
        problems += _missing_workers(config, draft.values)
    if problems or config is None:
        raise StartupError(dict.fromkeys(problems))
    return config.model_copy(update={"app_dir": app_dir})


def config_file(path: Path | None, environ: Mapping[str, str]) -> Path | None:
    """Return the config file: the one named, else the environment's, else None."""
    if path is None and environ.get(CONFIG_VARIABLE, "").strip():
        return Path(environ[CONFIG_VARIABLE])
    return path


def config_of(settings: Iterable[Setting]) -> RouterConfig:
    """Return the config that these settings and the defaults make, workers or not: they may join later.

    Raises:
        StartupError: With one sentence for each problem, as `load_config` has them.
    """
    problems: list[str] = []
    draft = _Draft()
    draft.lay_over(settings)
    app_dir = _app_dir(draft, None, problems)
    config = _judged(draft, problems)
    if problems or config is None:
        raise StartupError(dict.fromkeys(problems))
    return config.model_copy(update={"app_dir": app_dir})


def _judged(draft: _Draft, problems: list[str]) -> RouterConfig | None:
    try:
        return RouterConfig.model_validate(draft.values)
    except ValidationError as error:
        problems += [_sentence(details, draft) for details in error.errors(include_url=False)]
        return None


def _missing_workers(config: RouterConfig | None, values: Mapping[str, Any]) -> list[str]:  # Any: not judged
    """Say which workers nobody names; sources of membership may find any."""
    if config is None:
        return [] if any(values.get(name) for name in ("worker_urls", "membership", "pd", "models")) else [_NO_WORKER]
    if config.membership:
        return []
    if not config.pd.is_on:
        return [] if config.worker_urls or any(model.urls for model in config.models) else [_NO_WORKER]
    return [sentence for role, sentence in _NO_LEG.items() if not getattr(config.pd, role)]


class _Draft:
    """The settings so far, not yet judged, with the source of each."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}  # Any: whatever users write
        self._sources: dict[Location, str] = {}

    def lay_over(self, settings: Iterable[Setting]) -> None:
        """Add a source; where both have a value, its value stands."""
        layer = {setting.path: setting for setting in settings}
        chosen = layer.get(("policy", "name"))
        policy = self.values.get("policy")
        if chosen and isinstance(policy, dict) and chosen.value != policy.get("name", DEFAULT_POLICY):
            policy.pop("options", None)
        for path, setting in layer.items():
            self._put(path, setting)

    def source_of(self, location: Location) -> str | None:
        """Return where the value at `location`, or the nearest thing around it, was written."""
        while location and location not in self._sources:
            location = location[:-1]
        return self._sources.get(location)

    def sources_of(self, location: Location) -> list[str]:
        """Return where the value at `location` was written: of a section, where any of its settings were."""
        inside = [source for path, source in self._sources.items() if path[: len(location)] == location]
        around = self.source_of(location)
        return inside if inside or around is None else [around]

    def resolve_files(self, file: Path) -> None:
        """Take paths of files that stand in the config file as relative to its folder."""
        home = file.absolute().parent
        for field in iter_fields():
            path = tuple(field.path.split("."))
            if field.expects not in (A_FILE, FILES) or self._sources.get(path) != str(file):
                continue
            inside = self.values
            for name in path[:-1]:
                inside = inside[name]
            value = inside[path[-1]]
            if isinstance(value, str):
                value = home / value if field.expects == A_FILE else value.replace(",", " ").split()
            if isinstance(value, list):
                value = [home / each if isinstance(each, str) else each for each in value]
            inside[path[-1]] = value

    def _put(self, path: tuple[str, ...], setting: Setting) -> None:
        inside = self.values
        for depth, name in enumerate(path[:-1]):
            if depth > 1 and not isinstance(inside.get(name), dict):
                inside[name] = {}  # an option, which the source above knows to be a mapping
            inside = inside.setdefault(name, {})
            if not isinstance(inside, dict):
                return  # the source below has no section here; the schema will say so
        inside[path[-1]] = setting.value
        self._sources[path] = setting.source


def _app_dir(draft: _Draft, file: Path | None, problems: list[str]) -> Path:
    """Return the absolute folder of in-house policies; in a file, it is relative to that file's folder."""
    home = file.absolute().parent if file else Path.cwd()
    given = draft.values.get("app_dir")
    if not isinstance(given, str | Path):
        return home
    source = draft.source_of(("app_dir",))
    app_dir = (home if file and source == str(file) else Path.cwd()) / given
    if not app_dir.is_dir():
        problems.append(f"app_dir: {app_dir} is not a folder; give one that exists ({source})")
    return app_dir


def _sentence(details: ErrorDetails, draft: _Draft) -> str:
    location = tuple(part for part in details["loc"] if part != "[key]")
    sources = draft.sources_of(location) if location else []
    error = details.get("ctx", {}).get("error")
    if isinstance(error, ContradictionError):
        sources += [source for other in error.others for source in draft.sources_of((*location[:-1], other))]
    where = f" ({', '.join(dict.fromkeys(sources))})" if sources else ""
    what = what_is_wrong(details, location)
    return f"{place_of(details, location)}: {what}{where}" if location else f"{what}{where}"
