//! What a family of metrics is.

/// The type of a family, as the exposition names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only ever rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts per bucket of an upper bound.
    Histogram,
}

impl Kind {
    /// The word after `# TYPE`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One row of the table: a metric family.
#[derive(Debug)]
pub struct Family {
    /// Name, with its unit at the end where it has one.
    pub name: &'static str,
    /// Type.
    pub kind: Kind,
    /// Names of the labels, in the order in which values are given.
    pub labels: &'static [&'static str],
    /// The text of `# HELP`.
    pub help: &'static str,
}
