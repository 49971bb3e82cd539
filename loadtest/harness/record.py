"""What was measured: values of every round, their medians, and what failed."""

import collections
import statistics


class Record:
    def __init__(self, about):
        self.about = about
        self.scenarios = {}

    def _entry(self, scenario, proxy):
        of_proxies = self.scenarios.setdefault(scenario, {"note": "", "proxies": {}})["proxies"]
        return of_proxies.setdefault(
            proxy,
            {
                "figures": {},
                "calls": 0,
                "failed_calls": 0,
                "failures": collections.Counter(),
                "unsent_calls": 0,
                "problems": [],
            },
        )

    def note(self, scenario, text):
        """What a reader must know about this run of a scenario."""
        self.scenarios.setdefault(scenario, {"note": "", "proxies": {}})["note"] = text

    def others(self, scenario, percent):
        """What other programs took of the machine meanwhile."""
        self.scenarios[scenario]["others_percent"] = round(percent, 1)

    def add(self, scenario, proxy, **figures):
        """One round's values; `None` is a value that could not be had."""
        entry = self._entry(scenario, proxy)
        for name, value in figures.items():
            if value is not None:
                entry["figures"].setdefault(name, []).append(value)

    def calls(self, scenario, proxy, calls, failures, unsent=0):
        """How many calls were made, what failed, and how many there was no time to send: then the
        rate was not reached."""
        entry = self._entry(scenario, proxy)
        entry["unsent_calls"] += unsent
        entry["calls"] += calls
        entry["failed_calls"] += sum(failures.values())
        entry["failures"].update(failures)

    def problem(self, scenario, proxy, reason):
        """The proxy did not get through a round, or could not take part."""
        self._entry(scenario, proxy)["problems"].append(reason)

    def median(self, scenario, proxy, figure):
        values = self.scenarios.get(scenario, {}).get("proxies", {}).get(proxy, {}).get("figures", {}).get(figure)
        return statistics.median(values) if values else None

    def result(self):
        """Everything, ready for JSON."""
        out = {"about": self.about, "scenarios": {}}
        for scenario, content in self.scenarios.items():
            proxies = {}
            for proxy, entry in content["proxies"].items():
                figures = {
                    name: {
                        "median": statistics.median(values),
                        "min": min(values),
                        "max": max(values),
                        "rounds": values,
                    }
                    for name, values in entry["figures"].items()
                }
                proxies[proxy] = entry | {"figures": figures, "failures": dict(entry["failures"])}
            out["scenarios"][scenario] = content | {"proxies": proxies}
        return out
