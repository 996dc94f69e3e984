"""The `router-core` command: finds the sub-command, turns its failures into sentences and an exit code.

What a sub-command needs is imported when it is named, so that the others start fast and work without it.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, NoReturn

from router_core.cli import arguments
from router_core.contract.errors import StartupError

INTERRUPTED = 130
BROKEN_PIPE = 141
UNUSABLE = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    Args:
        argv: The arguments, without the program's name; None takes the process's own.

    Returns:
        What the sub-command says; 2 for arguments or settings that cannot be used (a line for each problem on standard
        error, nothing has been opened), 130 after Ctrl-C, 141 when the reader of standard output has gone.
    """
    try:
        code = _run(sys.argv[1:] if argv is None else list(argv))
        sys.stdout.flush()  # a reader that has gone must show here, not while the interpreter exits
    except StartupError as error:
        for problem in error.problems:
            print(f"router-core: error: {problem}", file=sys.stderr)
        return UNUSABLE
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    return code


class Command(NamedTuple):
    """A sub-command: what it does in a few words, what it takes, and what runs it."""

    summary: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def _run(argv: list[str]) -> int:
    name = argv[0] if argv else ""
    if not name.startswith("-") and name not in _COMMANDS:
        raise StartupError([_unknown_command(name)])
    parser = _Parser(
        prog="router-core", description="Route LLM inference requests by plugin policies.", allow_abbrev=False
    )
    parser.add_argument("--version", action=_VersionAction)
    commands = parser.add_subparsers(metavar="COMMAND")
    parsers = {}
    for command_name, command in _COMMANDS.items():
        parsers[command_name] = commands.add_parser(
            command_name, help=command.summary, description=command.summary, allow_abbrev=False
        )
    if name in _COMMANDS:
        _COMMANDS[name].add_arguments(parsers[name])
    try:
        parsed, unknown = parser.parse_known_args(argv)
    except SystemExit as exit_:  # argparse has said why
        return exit_.code if isinstance(exit_.code, int) else UNUSABLE
    if unknown:
        raise StartupError(arguments.unknown_arguments(unknown, parsers.get(name, parser)))
    return _COMMANDS[name].run(parsed)


def _unknown_command(name: str) -> str:
    choices = ", ".join(_COMMANDS)
    if not name:
        return f"a command is missing; give one of {choices}, or --help"
    near = difflib.get_close_matches(name, _COMMANDS, n=1)
    return f"{name}: unknown command; " + (f"did you mean {near[0]!r}?" if near else f"give one of {choices}")


class _Parser(argparse.ArgumentParser):
    """Says in a sentence, as everything here, what argparse says under a screen of usage."""

    def error(self, message: str) -> NoReturn:
        raise StartupError([f"{message.removeprefix('argument ')}; see {self.prog} --help"])


class _VersionAction(argparse.Action):
    """Prints the version; looks it up only then."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help="show the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from router_core.plugin_host.discovery import OBSERVER_GROUP, installed_policies

        # Only the plugin host reads distribution metadata; the core itself stands there as the offerer of an observer.
        versions = {plugin.distribution: plugin.version for plugin in installed_policies(OBSERVER_GROUP).plugins}
        print(f"router-core {versions.get('router-core', 'of unknown version')}")
        parser.exit()


# --- the sub-commands ---


def _serve(parsed: argparse.Namespace) -> int:
    from router_core.cli.hangups import Hangups
    from router_core.cli.stop_signals import StopSignals

    # From before the settings are read: those who change them, or start and stop the router, may send them at any time.
    hangups, stops = Hangups(), StopSignals()

    from router_core.cli.settings_source import SettingsSource
    from router_core.config import config_file, load_config

    flags = dict(vars(parsed))
    path = config_file(flags.pop("config", None), os.environ)
    source = SettingsSource(partial(load_config, path=path, environ=os.environ, flags=flags), path)
    config = source.load()

    from router_core.cli.serve import run_server

    return run_server(config, source, hangups, stops)


def _add_launch_arguments(parser: argparse.ArgumentParser) -> None:
    from router_core.cli.launch.router_args import RouterArgs

    RouterArgs.add_cli_args(parser)


def _launch(parsed: argparse.Namespace) -> int:
    from router_core.cli.launch import command

    return command.run(parsed)


def _add_policies_arguments(parser: argparse.ArgumentParser) -> None:
    from router_core.cli import policies

    policies.add_arguments(parser)


def _policies(parsed: argparse.Namespace) -> int:
    from router_core.cli import policies

    return policies.run(parsed)


def _add_demo_arguments(parser: argparse.ArgumentParser) -> None:
    from router_core.cli import demo

    demo.add_arguments(parser)


def _demo(parsed: argparse.Namespace) -> int:
    from router_core.cli import demo

    return demo.run(parsed)


def _add_simulate_arguments(parser: argparse.ArgumentParser) -> None:
    from router_core.cli.simulate.arguments import add_simulate_arguments

    add_simulate_arguments(parser)


def _simulate(parsed: argparse.Namespace) -> int:
    from router_core.cli.simulate import command

    return command.run(parsed)


def _add_trace_arguments(parser: argparse.ArgumentParser) -> None:
    from router_core.cli.simulate import trace_command

    trace_command.add_arguments(parser)


def _trace(parsed: argparse.Namespace) -> int:
    from router_core.cli.simulate import trace_command

    return trace_command.run(parsed)


_COMMANDS: Mapping[str, Command] = {
    "serve": Command("Route requests to workers.", arguments.add_serve_arguments, _serve),
    "launch": Command("Route requests to workers, with the flags of sglang-router.", _add_launch_arguments, _launch),
    "policies": Command("Show the installed policies, or one of them in detail.", _add_policies_arguments, _policies),
    "demo": Command("Show a policy at work over simulated engines.", _add_demo_arguments, _demo),
    "simulate": Command("Replay a trace with policies, on simulated engines.", _add_simulate_arguments, _simulate),
    "trace": Command("Look at traces, convert other people's, make small ones up.", _add_trace_arguments, _trace),
}
