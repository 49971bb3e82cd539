//! The texts that one configuration is read from, seen as one long text: a [`Span`] then tells by itself
//! which of them it lies in.

use super::node::Span;

/// The texts, one behind the other, in the order in which they were read.
#[derive(Debug, Default)]
pub(super) struct Sources(Vec<Source>);

/// One text.
#[derive(Debug)]
pub(super) struct Source {
    /// The file, as problems name it.
    pub(super) file: String,
    pub(super) text: String,
    /// Where it begins among all.
    start: usize,
}

impl Sources {
    /// Adds a text. Where it begins: by so much its spans are moved.
    pub(super) fn add(&mut self, file: String, text: String) -> usize {
        // One more than its length, for the place at its end is its own.
        let end = |last: &Source| last.start + last.text.len() + 1;
        let start = self.0.last().map_or(0, end);
        self.0.push(Source { file, text, start });
        start
    }

    /// The text in which a span lies, and the span within it; `None` if there is no text at all.
    pub(super) fn find(&self, span: Span) -> Option<(&Source, Span)> {
        let after = self.0.partition_point(|source| source.start <= span.start);
        let source = self.0.get(after.checked_sub(1)?)?;
        let within = Span::new(span.start - source.start, span.end - source.start);
        Some((source, within))
    }

    /// Is there more than one?
    pub(super) fn are_several(&self) -> bool {
        self.0.len() > 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_found_in_its_text_up_to_the_end() {
        let mut sources = Sources::default();
        assert!(sources.find(Span::default()).is_none());
        let starts: Vec<usize> = [("a", "xy"), ("b", ""), ("c", "z")]
            .map(|(file, text)| sources.add(file.into(), text.into()))
            .into();
        assert_eq!(starts, [0, 3, 4]);
        for (start, end, file, within) in [
            (0, 1, "a", (0, 1)),
            (2, 2, "a", (2, 2)),
            (3, 3, "b", (0, 0)),
            (4, 5, "c", (0, 1)),
            (5, 9, "c", (1, 5)),
        ] {
            let (source, found) = sources.find(Span::new(start, end)).unwrap();
            assert_eq!((&*source.file, (found.start, found.end)), (file, within));
        }
    }
}
