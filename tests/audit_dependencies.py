"""Look up every installed distribution in the public lists of known vulnerabilities; end with 1 if one is listed.

    python tests/audit_dependencies.py [--osv-url URL]     # a list of one's own, which answers as OSV's, and no other

Where those lists cannot be reached (no network, a mirror without them) it says so and ends with 0: that nobody could
look is no fault of a change.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

_SERVICES = (("pypi",), ("osv",))
_TIMEOUT_S = 120


def main() -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(description="Look up what is installed in lists of known vulnerabilities.")
    parser.add_argument("--osv-url", metavar="URL", help="ask this list, which answers as OSV's does, and no other")
    own = parser.parse_args().osv_url
    for service, *options in _SERVICES if own is None else (("osv", "--osv-url", own),):
        report = _report(service, *options)
        audited = [found for found in report if "vulns" in found]
        if not audited:
            continue
        listed = [found for found in audited if found["vulns"]]
        for found in listed:
            for each in found["vulns"]:
                fixed = ", ".join(each["fix_versions"]) or "no version yet"
                print(f"{found['name']} {found['version']}: {each['id']}, fixed in {fixed}", file=sys.stderr)
        result = f"{len(audited)} distributions looked up with {service}, {len(listed)} with known vulnerabilities"
        if listed:
            print(f"{result}; require the fixed versions in pyproject.toml", file=sys.stderr)
            return 1
        print(result)
        return 0
    print("dependencies were NOT audited: no list of known vulnerabilities could be reached", file=sys.stderr)
    return 0


def _report(service: str, *options: str) -> list[dict[str, Any]]:  # Any: pip-audit's own JSON
    command = [sys.executable, "-m", "pip_audit", "--local", "--skip-editable", "--progress-spinner", "off"]
    try:
        done = subprocess.run(  # nothing of it comes from outside
            [*command, "--format", "json", "--vulnerability-service", service, *options],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
        report: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, json.JSONDecodeError, KeyError):
        return []
    return report


if __name__ == "__main__":
    sys.exit(main())
