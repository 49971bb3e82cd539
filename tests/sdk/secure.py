"""Tidegate with TLS on its listener, and what makes the conformance suite speak it: by HTTP/1.1, or by
HTTP/2 through ALPN. Nothing stands between the suite and Tidegate (`over_tls.mjs`).
"""

import collections
import json

import certificates
from harness import HERE, NODE, Tidegate

# How the access log calls the versions.
HTTP = {"tls": "1.1", "tls-h2": "2"}


class Secure(Tidegate):
    """`via` is `tls` or `tls-h2`. With `speaks_h2=False` clients speak HTTP/1.1 whatever it is, which
    `doubts` must notice."""

    def __init__(self, work, binary, ports, path, via, speaks_h2=True):
        self.version = HTTP[via]
        super().__init__(work, binary, ports, path, log=work.file("access.log"), tls=certificates.made(work))
        # How a Node program is started, and with what around it.
        self.node = [NODE, "--import", str(HERE / "over_tls.mjs")]
        self.env = {"NODE_EXTRA_CA_CERTS": str(self.tls.ca), "TIDEGATE_TEST_HTTP": self.version if speaks_h2 else "1.1"}

    def doubts(self):
        """What speaks against TLS and this version of HTTP for every request; empty if nothing does. To be
        called after `stop`."""
        spoken = collections.Counter()
        for line in self.log.read_text().splitlines():
            entry = json.loads(line)
            # Until it was ready it was asked whether it is.
            if entry.get("path") != "/ready":
                spoken[f"HTTP/{entry['http_version']}, TLS {entry.get('tls')}"] += 1
        if set(spoken) == {f"HTTP/{self.version}, TLS 1.3"}:
            return ""
        return f"HTTP/{self.version} over TLS 1.3 alone was to come, not {dict(spoken) or 'nothing'}"
