"""Two Tidegates one behind the other, so that peers who speak HTTP/1.1 alone test HTTP/2 on both sides.

    client -- HTTP/1.1 --> front -- HTTP/2 with prior knowledge --> back -- HTTP/1.1 --> servers

Both have a pool of kind mcp: every session is sealed twice, and both look after its streams.
"""

import collections
import contextlib
import json

from harness import Tidegate


class Chain:
    """A front with one endpoint, the back, which stands in front of `ports`.

    `http2=False` makes the chain speak HTTP/1.1 throughout, which `doubts` must notice.
    """

    def __init__(self, work, binary, ports, path="/mcp", http2=True):
        self.back = Tidegate(work, binary, ports, path, log=work.file("back-access.log"))
        try:
            self.front = Tidegate(work, binary, [self.back.port], path, http2=http2, log=work.file("front-access.log"))
        except BaseException:
            self.back.stop()
            raise
        self.port = self.front.port
        # Whether both logs have all of their lines.
        self.whole = True

    def stop(self):
        # The front has sessions of its own to give back, through the back.
        self.front.stop()
        self.back.stop()

    def doubts(self):
        """What speaks against HTTP/2 between the two, a text; empty if nothing does. To be called after `stop`."""
        came, went = self.versions(self.front, "server"), self.versions(self.back, "pool")
        if set(came) != {"1.1"}:
            return f"HTTP/1.1 alone was to reach the front, not {dict(came) or 'nothing'}"
        # The back has seen the checks of the front as well.
        if set(went) != {"2"} or self.whole and went["2"] < came["1.1"]:
            return f"the front sent {came['1.1']} requests on; HTTP/2 alone was to reach the back, not {dict(went) or 'nothing'}"
        return ""

    @staticmethod
    def versions(gate, field):
        """How many requests came in each version of HTTP, of those whose line in the log has a field."""
        counts = collections.Counter()
        for line in gate.log.read_text().splitlines():
            # A killed process may leave half a line.
            with contextlib.suppress(json.JSONDecodeError):
                entry = json.loads(line)
                counts[entry["http_version"]] += field in entry
        return +counts
