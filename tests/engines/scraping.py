"""What an engine says of itself over HTTP."""

from __future__ import annotations

import urllib.error
import urllib.request

_TIMEOUT_S = 10.0


def answers(url: str) -> str:
    """Return the answer to a GET; empty while there is none or it is an error."""
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response:
            return str(response.read().decode())
    except urllib.error.HTTPError as error:
        error.close()
    except OSError:
        pass
    return ""


def figure(url: str, name: str) -> float:
    """Return a figure of `<url>/metrics`, summed over its labels; 0 if it is not there (yet)."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=_TIMEOUT_S) as response:
        lines = response.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))
