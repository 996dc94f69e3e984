"""Print the metrics of several routers side by side: what each has done since it started.

python compare.py http://127.0.0.1:30001 http://127.0.0.1:30002
"""

import re
import sys
import urllib.request

SAMPLE = re.compile(r"router_core_(\w+?)(?:\{(.*)\})? (\S+)")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class Scrape:
    """One router's metrics at one moment."""

    def __init__(self, router: str) -> None:
        with urllib.request.urlopen(f"{router}/metrics", timeout=10) as response:
            lines = response.read().decode().splitlines()
        found = [SAMPLE.fullmatch(line) for line in lines if not line.startswith("#")]
        self._samples = [(m[1], dict(LABEL.findall(m[2] or "")), float(m[3])) for m in found if m]

    def values(self, name: str, **labels: str) -> list[float]:
        """Return the values of a metric's series that have these labels."""
        return [value for key, has, value in self._samples if key == name and labels.items() <= has.items()]

    def total(self, name: str, **labels: str) -> float:
        """Return their sum."""
        return sum(self.values(name, **labels))

    def label(self, name: str, label: str) -> str:
        """Return a label of a metric's first series."""
        return next((has[label] for key, has, _ in self._samples if key == name), "?")

    def quantile(self, name: str, share: float) -> float:
        """Return the upper edge of the histogram's bucket that holds the quantile."""
        counts: dict[float, float] = {}
        for key, has, value in self._samples:
            if key == f"{name}_bucket":
                counts[float(has["le"])] = counts.get(float(has["le"]), 0) + value
        total = counts.get(float("inf"), 0)
        return next((edge for edge, count in sorted(counts.items()) if total and count >= share * total), float("nan"))


def summarise(router: str) -> dict[str, str]:
    """Return what matters, in words."""
    scrape = Scrape(router)
    requests = scrape.total("requests_total")
    prompt = scrape.total("prompt_tokens_total")
    decisions = scrape.total("policy_decision_seconds_count")
    per_worker = scrape.values("worker_requests_processed_total")
    return {
        "policy": scrape.label("policy_info", "policy"),
        "requests": f"{requests:.0f}",
        "successful": share(scrape.total("requests_total", status="success"), requests),
        "prompt tokens from cache": share(scrape.total("cached_tokens_total"), prompt),
        "first token, half within": f"{scrape.quantile('time_to_first_token_seconds', 0.5):g} s",
        "first token, 95 % within": f"{scrape.quantile('time_to_first_token_seconds', 0.95):g} s",
        "busiest worker's share": share(max(per_worker, default=0), sum(per_worker)),
        "time of a decision": f"{scrape.total('policy_decision_seconds_sum') / decisions * 1e6:.0f} us"
        if decisions
        else "-",
        "faults": f"{scrape.total('policy_faults_total'):.0f}",
    }


def share(part: float, whole: float) -> str:
    """Return a share in per cent."""
    return f"{100 * part / whole:.0f} %" if whole else "-"


def main(routers: list[str]) -> None:
    """Print one column for each router."""
    columns = [summarise(router) for router in routers]
    for name in columns[0]:
        print(f"{name:<26}" + "".join(f"{column[name]:>16}" for column in columns))


if __name__ == "__main__":
    main(sys.argv[1:])
