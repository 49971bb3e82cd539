"""As much of Logstash as conf/elk/logstash.conf uses, and not a filter more.

Logstash itself is no package here. Its grammar is that of another implementation (lscl); what the filters do is
written down from their documentation, so a misunderstanding of ours would not be found. Anything that is not
known here is an error.
"""

import datetime
import json
import re

from lscl.lang import LsclBlock, LsclConditions, LsclEqualTo, LsclIn, LsclMatch, LsclSelector
from lscl.parser import parse_lscl


class Unknown(Exception):
    """Something that this interpreter has no notion of."""


class Pipeline:
    """The filters of a configuration."""

    def __init__(self, text):
        self.blocks = {block.name: block.content for block in parse_lscl(text)}

    def index(self, event):
        """Where Elasticsearch puts the event."""
        plain = {one.name: one.content for one in self.blocks["output"][0].content}["index"]
        day = datetime.datetime.fromisoformat(event["@timestamp"]).strftime("%Y.%m.%d")
        return plain.replace("%{+YYYY.MM.dd}", day)

    def filter(self, event):
        """The event as it goes out. `@metadata` stays behind."""
        self.run(self.blocks["filter"], event)
        event.pop("@metadata", None)
        return event

    def run(self, content, event):
        for one in content:
            if isinstance(one, LsclConditions):
                branch = next((body for condition, body in one.conditions if holds(condition, event)), one.default)
                self.run(branch or [], event)
            elif isinstance(one, LsclBlock) and one.name in FILTERS:
                FILTERS[one.name](event, **{option.name: option.content for option in one.content})
            else:
                raise Unknown(one)


def holds(condition, event):
    if isinstance(condition, LsclSelector):
        # A field that is not there, null and false.
        return get(event, condition.names) not in (None, False)
    if isinstance(condition, LsclEqualTo):
        return value(condition.first, event) == value(condition.second, event)
    if isinstance(condition, LsclMatch):
        found = value(condition.value, event)
        return isinstance(found, str) and condition.pattern.search(found) is not None
    if isinstance(condition, LsclIn):
        return value(condition.needle, event) in (value(condition.haystack, event) or ())
    raise Unknown(condition)


def value(one, event):
    return get(event, one.names) if isinstance(one, LsclSelector) else one


def names(reference):
    """The names in `[a][b]`, or in `a`."""
    return re.findall(r"\[([^\]]*)\]", reference) or [reference]


def get(event, path):
    for name in path:
        if not isinstance(event, dict) or name not in event:
            return None
        event = event[name]
    return event


def put(event, path, what):
    for name in path[:-1]:
        event = event.setdefault(name, {})
    event[path[-1]] = what


def mutate(event, rename=None, add_field=None):
    for old, new in (rename or {}).items():
        old = names(old)
        holder = get(event, old[:-1])
        if isinstance(holder, dict) and old[-1] in holder:
            put(event, names(new), holder.pop(old[-1]))
    for name, text in (add_field or {}).items():
        put(event, names(name), re.sub(r"%\{([^}]*)\}", lambda found: str(get(event, names(found[1]))), text))


def parse_json(event, source, tag_on_failure):
    try:
        parsed = json.loads(get(event, names(source)))
        if not isinstance(parsed, dict):
            raise ValueError
    except ValueError:
        event.setdefault("tags", []).extend(tag_on_failure)
        return
    event.update(parsed)


def date(event, match, target):
    field, form = match
    if form != "ISO8601":
        raise Unknown(form)
    try:
        moment = datetime.datetime.fromisoformat(get(event, names(field)))
    except (TypeError, ValueError):
        event.setdefault("tags", []).append("_dateparsefailure")
        return
    put(event, names(target), moment.isoformat(timespec="milliseconds"))


FILTERS = {"mutate": mutate, "json": parse_json, "date": date}
