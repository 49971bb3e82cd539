//! The metrics page, read back.

use std::collections::BTreeMap;

/// Every sample of one page, by its name with labels as written.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Metrics(pub(crate) BTreeMap<String, f64>);

impl Metrics {
    /// Reads the Prometheus text format; panics at a line that is none.
    pub(crate) fn parse(text: &str) -> Self {
        let samples = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self(samples.map(sample).collect())
    }

    /// The sum over all label sets of a metric; 0 when it is not there.
    pub(crate) fn sum(&self, name: &str) -> f64 {
        self.with(name, &[])
    }

    /// The sum over the label sets of a metric that hold every one of these labels.
    pub(crate) fn with(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let mine = self.0.iter().filter(|(series, _)| {
            let (found, rest) = series.split_once('{').unwrap_or((series, ""));
            let holds = |(label, value): &(&str, &str)| {
                let wanted = format!("{label}=\"{value}\"");
                rest.trim_end_matches('}')
                    .split(',')
                    .any(|have| have == wanted)
            };
            found == name && labels.iter().all(holds)
        });
        mine.map(|(_, value)| value).sum()
    }
}

fn sample(line: &str) -> (String, f64) {
    let split = line.rsplit_once(' ');
    let parsed = split.and_then(|(series, value)| Some((series.to_owned(), value.parse().ok()?)));
    match parsed {
        Some(sample) => sample,
        None => panic!("not a metrics line: {line}"),
    }
}

#[cfg(test)]
mod tests {
    use super::Metrics;

    #[test]
    fn a_sum_takes_the_label_sets_that_were_asked_for() {
        let metrics = Metrics::parse(
            "# HELP calls_total Calls.\n# TYPE calls_total counter\n\
             calls_total{pool=\"a\",code=\"200\"} 3\ncalls_total{pool=\"b\",code=\"200\"} 4\n\
             calls_total_other 9\nup 1\n",
        );
        assert_eq!(metrics.sum("calls_total"), 7.0);
        assert_eq!(metrics.with("calls_total", &[("pool", "b")]), 4.0);
        assert_eq!(metrics.with("calls_total", &[("pool", "c")]), 0.0);
        assert_eq!(metrics.sum("up"), 1.0);
    }
}
