"""Look up every installed distribution in the public lists of known vulnerabilities; end with 1 if one is listed.

Where those lists cannot be reached (no network, a mirror without them) it says so and ends with 0: that nobody could
look is no fault of a change.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

_SERVICES = ("pypi", "osv")
_TIMEOUT_S = 120


def main() -> int:
    """Return the exit code."""
    for service in _SERVICES:
        report = _report(service)
        audited = [found for found in report if "vulns" in found]
        if not audited:
            continue
        listed = [found for found in audited if found["vulns"]]
        for found in listed:
            for each in found["vulns"]:
                fixed = ", ".join(each["fix_versions"]) or "no version yet"
                print(f"{found['name']} {found['version']}: {each['id']}, fixed in {fixed}")
        print(f"{len(audited)} distributions looked up with {service}, {len(listed)} with known vulnerabilities")
        return 1 if listed else 0
    print("dependencies were NOT audited: no list of known vulnerabilities could be reached", file=sys.stderr)
    return 0


def _report(service: str) -> list[dict[str, Any]]:  # Any: pip-audit's own JSON
    command = [sys.executable, "-m", "pip_audit", "--local", "--skip-editable", "--progress-spinner", "off"]
    try:
        done = subprocess.run(  # nothing of it comes from outside
            [*command, "--format", "json", "--vulnerability-service", service],
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
