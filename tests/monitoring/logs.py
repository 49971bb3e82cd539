"""What becomes of real lines of the access log in the two pipelines of conf/elk.

Vector's program runs on Vector's own compiler and runtime; Logstash's filters on a small interpreter (logstash.py),
because Logstash is no package here. Both must say the same of every line, and what they say must be right.
"""

import datetime
import json
import re

import yaml
from alerts import Gateway
from dashboard import until
from harness import Failed
from logstash import Pipeline
from prometheus import CONF, REPO
from traffic import SECRET, Traffic
from vrl_python import VRLRuntime

ELK = CONF / "elk"
MACHINE = "edge-1"
READ_AT = "2020-01-01T00:00:00.000+00:00"
LINES = 60
NOT_JSON = ("Traceback (most recent call last):", '{"timestamp":"2026-01-01T00:00:00.000Z","stat', "[1]", '"text"')
# What the shipper brings along, and the times, which are compared by themselves.
APART = {"fields", "file", "source_type", "timestamp", "@timestamp"}


def run(work, binary, count):
    gateway, traffic = Gateway(work, binary), None
    try:
        traffic = Traffic(gateway.port, 0.02, {"wrong": 1})
        until(lambda: gateway.log.exists() and gateway.log.read_text().count("\n") > LINES, 30, "too few lines")
        traffic.stop()
        gateway.stop()
        lines = gateway.log.read_text().splitlines()
        messages = [line for line in gateway.process.text().splitlines() if line.startswith("{")]
    finally:
        for one in (traffic, gateway):
            if one:
                one.stop()
    count("logs: the lines hold all cases", *varied(lines, messages))
    count("logs: the pipelines agree and are right", *piped(lines, messages))
    count("logs: Filebeat, and what it hands to Logstash", *filebeat(lines[0]))
    count("logs: the index template", *template(lines))


def varied(lines, messages):
    parsed = [json.loads(line) for line in lines]
    has = {
        "a tool": any("tool_name" in line for line in parsed),
        "no tool": any("tool_name" not in line for line in parsed),
        "a session": any("session" in line for line in parsed),
        "a failure": any(line["status"] >= 400 for line in parsed),
        "a stream": any(line["method"] == "GET" for line in parsed),
        "a message of the process": bool(messages),
        "no argument": not any(SECRET in line for line in lines),
    }
    return all(has.values()), f"{len(lines)} lines, {len(messages)} messages; lacking: {[name for name, there in has.items() if not there]}"


class Vector:
    """The program of the one transform, run as Vector would run it."""

    def __init__(self):
        config = yaml.safe_load((ELK / "vector.yaml").read_text())
        (transform,) = config["transforms"].values()
        (self.sink,) = config["sinks"].values()
        self.program, self.runtime = transform["source"], VRLRuntime()
        if problem := VRLRuntime.check_syntax(self.program):
            raise Failed(f"vector.yaml: {problem.formatted_message}")

    def event(self, text, file):
        read = {"message": text, "file": file, "host": MACHINE, "source_type": "file", "timestamp": READ_AT}
        return dict(self.runtime.execute(self.program, read).processed_event)


def piped(lines, messages):
    logstash, vector, wrong = Pipeline((ELK / "logstash.conf").read_text()), Vector(), []
    cases = [(line, service) for service in ("mcp-gateway", "mcp-server-weather") for line in [*lines, *messages, *NOT_JSON]]
    for line, service in cases:
        read = {"message": line, "host": {"name": MACHINE}, "fields": {"service": service}, "@timestamp": READ_AT}
        one = logstash.filter(read)
        other = vector.event(line, f"/var/log/mcp/{service}.log")
        wrong += [f"Logstash: {problem} in {line[:80]}" for problem in problems(line, service, one, logstash.index(one))]
        wrong += [f"Vector: {problem} in {line[:80]}" for problem in problems(line, service, other, index(vector.sink, other))]
        if {name: got for name, got in one.items() if name not in APART} != {name: got for name, got in other.items() if name not in APART}:
            wrong.append(f"they differ in {line[:80]}: {one} {other}")
    return not wrong, f"{len(cases)} lines" if not wrong else f"{len(wrong)} wrong: {wrong[0]}"


def index(sink, event):
    """Vector takes the day from `timestamp`, if this is a time, and the present one otherwise."""
    return moment(event["timestamp"]).strftime(sink["bulk"]["index"])


def moment(text):
    return datetime.datetime.fromisoformat(str(text).replace(" UTC", "+00:00"))


def problems(line, service, event, index_name):
    """What is wrong with an event, by the line that it comes from."""
    try:
        said = json.loads(line)
    except ValueError:
        said = None
    if not isinstance(said, dict):
        expected = {"message": line, "tags": ["_jsonparsefailure"]}
        at = READ_AT
    else:
        expected = {name: what for name, what in said.items() if name not in ("host", "timestamp")}
        expected |= {"requested_host": said["host"]} if "host" in said else {}
        expected |= {"tool_category": said["tool_name"]} if "tool_name" in said else {}
        at = said["timestamp"]
    expected |= {"host": {"name": MACHINE}, "service_type": "mcp_server" if "mcp-server" in service else "mcp_gateway"}
    got = {name: what for name, what in event.items() if name not in APART}
    if got != expected:
        yield f"{dict(got.items() ^ expected.items()) if all(map(hashable, [*got.values(), *expected.values()])) else got}"
    if moment(event["@timestamp"]) != moment(at):
        yield f"@timestamp is {event['@timestamp']}"
    if index_name != moment(at).strftime("mcp-logs-%Y.%m.%d"):
        yield f"index {index_name}"


def hashable(what):
    return not isinstance(what, (dict, list))


def filebeat(line):
    """Every input has a service that the pipeline knows, and no file is read by two."""
    config, kinds = yaml.safe_load((ELK / "filebeat.yml").read_text()), {}
    for one in config["filebeat.inputs"]:
        event = {"message": line, "fields": one["fields"], "@timestamp": READ_AT}
        kinds[one["id"]] = Pipeline((ELK / "logstash.conf").read_text()).filter(event).get("service_type")
    (excluded,) = config["filebeat.inputs"][0]["prospector.scanner.exclude_files"]
    apart = re.search(excluded, "/var/log/mcp/mcp-server-weather.log") and not re.search(excluded, "/var/log/mcp/access.log")
    good = kinds == {"mcp-gateway": "mcp_gateway", "mcp-servers": "mcp_server"} and bool(apart)
    return good, str(kinds)


def template(lines):
    """Every number of a line has a type of its own, and every name in it is one that docs/logs.md knows."""
    properties = json.loads((ELK / "index-template.json").read_text())["template"]["mappings"]["properties"]
    numbers = {name for line in lines for name, what in json.loads(line).items() if isinstance(what, (int, float))}
    known = set(re.findall(r"`(\w+)`", (REPO / "docs/logs.md").read_text())) | {"@timestamp"}
    lacking, strange = numbers - properties.keys(), properties.keys() - known
    return not lacking and not strange, f"{len(properties)} fields; lacking {sorted(lacking)}, strange {sorted(strange)}"
