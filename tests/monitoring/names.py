"""The names of metrics in a query of Prometheus, and whether they exist."""

import re

# Families that rules and dashboard may name before this build has them.
AWAITED = {
    "tidegate_spans_dropped_total",
    "tidegate_spans_exported_total",
}
# What Prometheus itself makes.
MADE = {"up"}

STRINGS = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'")
COMMENTS = re.compile(r"#.*")
SELECTORS = re.compile(r"\{[^}]*\}|\[[^\]]*\]")
LABEL_LISTS = re.compile(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
WORDS = re.compile(r"(?<![\w:.])([a-zA-Z_:][\w:]*)(?![\w:])(?!\s*\()")
KEYWORDS = {"by", "without", "on", "ignoring", "group_left", "group_right", "and", "or", "unless", "bool", "offset", "inf", "nan"}


def names(expr):
    """The metrics that a query selects from."""
    bare = SELECTORS.sub("", COMMENTS.sub("", STRINGS.sub("''", expr)))
    bare = LABEL_LISTS.sub("", bare)
    # Functions stand before a bracket; so do aggregations whose labels come first, which are no names either.
    found = {word for word in WORDS.findall(bare) if word.lower() not in KEYWORDS}
    return found - {"sum", "min", "max", "avg", "count"}


def families(text):
    """The families of an exposition, by type: {name: type}."""
    return {line.split()[2]: line.split()[3] for line in text.splitlines() if line.startswith("# TYPE ")}


def family(name, known):
    """The family that has a series of this name; for one that does not exist, the name of what it would be."""
    for suffix in ("_bucket", "_sum", "_count"):
        base = name.removesuffix(suffix)
        if base != name and (known.get(base) == "histogram" or base in AWAITED):
            return base
    return name


def missing(expr, known, recorded):
    """The families that a query needs and that do not exist: (awaited, unknown)."""
    needed = {family(name, known) for name in names(expr) - recorded - MADE}
    # A histogram has no series of its bare name.
    absent = {name for name in needed if name not in known or (known[name] == "histogram" and name in names(expr))}
    return absent & AWAITED, absent - AWAITED
