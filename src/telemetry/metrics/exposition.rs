//! Writing the text format of Prometheus, for the families that are not in the registry.

use std::fmt::{Display, Write};

use super::Family;
use super::views::Distribution;

/// The text so far.
pub(super) struct Exposition {
    pub(super) text: String,
}

impl Exposition {
    pub(super) fn figure(&mut self, row: &Family, value: Option<impl Display>) {
        if let Some(value) = value {
            self.heading(row);
            self.sample(row, &[], value);
        }
    }

    pub(super) fn heading(&mut self, row: &Family) {
        let Family {
            name, kind, help, ..
        } = row;
        self.write(format_args!(
            "# HELP {name} {help}\n# TYPE {name} {}\n",
            kind.as_str()
        ));
    }

    pub(super) fn sample(&mut self, row: &Family, values: &[&str], value: impl Display) {
        self.text.push_str(row.name);
        self.labels(row, values);
        if !values.is_empty() {
            self.text.push('}');
        }
        self.write(format_args!(" {value}\n"));
    }

    pub(super) fn histogram(&mut self, row: &Family, values: &[&str], spread: &Distribution) {
        // The labels are the same in every line, but for the last one.
        let from = self.text.len();
        self.labels(row, values);
        let labels = self.text.split_off(from);
        let name = row.name;
        let mut count = 0;
        let bounds = spread.bounds.iter().map(Some).chain([None]);
        for (bound, own) in bounds.zip(&spread.counts) {
            count += own;
            match bound {
                Some(bound) => self.write(format_args!(
                    "{name}_bucket{labels},le=\"{bound}\"}} {count}\n"
                )),
                None => self.write(format_args!(
                    "{name}_bucket{labels},le=\"+Inf\"}} {count}\n"
                )),
            }
        }
        self.write(format_args!("{name}_sum{labels}}} {}\n", spread.sum));
        self.write(format_args!("{name}_count{labels}}} {count}\n"));
    }

    /// The labels with their values, without the brace that closes them.
    fn labels(&mut self, row: &Family, values: &[&str]) {
        debug_assert_eq!(row.labels.len(), values.len(), "{}", row.name);
        for (n, (label, value)) in row.labels.iter().zip(values).enumerate() {
            self.text.push(if n == 0 { '{' } else { ',' });
            self.text.push_str(label);
            self.text.push_str("=\"");
            self.label_value(value);
            self.text.push('"');
        }
    }

    fn label_value(&mut self, value: &str) {
        for character in value.chars() {
            match character {
                '\\' => self.text.push_str("\\\\"),
                '"' => self.text.push_str("\\\""),
                '\n' => self.text.push_str("\\n"),
                other => self.text.push(other),
            }
        }
    }

    fn write(&mut self, arguments: std::fmt::Arguments<'_>) {
        self.text
            .write_fmt(arguments)
            .expect("writing into a String does not fail");
    }
}
