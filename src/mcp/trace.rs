//! Trace contexts: which trace a request belongs to, and which span of it is its parent (W3C Trace
//! Context, level 1, section 3.2).
//!
//! Clients tell it in the field `traceparent`, or in `params._meta.traceparent` of a message, where
//! MCP has reserved the key. What is not exactly as the standard writes it is no context: then a
//! trace begins here, as if nothing had been said.

/// Length of the text of the one version there is.
pub const TRACEPARENT_BYTES: usize = 55;
/// The flag that says that the caller may have recorded its part.
const SAMPLED: u8 = 1;

/// A place in a trace. Held as bytes, so that it takes no more room than it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace; never all 0.
    pub trace: [u8; 16],
    /// The span; never all 0.
    pub span: [u8; 8],
    /// The flags, of which only the lowest has a meaning.
    pub flags: u8,
}

impl TraceContext {
    /// Reads the value of `traceparent`. A later version may have more behind what we know.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (known, more) = text.split_at_checked(TRACEPARENT_BYTES)?;
        let (version, rest) = known.split_at(2);
        let version = hex(version)?;
        let fits = match version {
            0 => more.is_empty(),
            0xff => false,
            _ => more.is_empty() || more[0] == b'-',
        };
        if !fits || rest[0] != b'-' || rest[33] != b'-' || rest[50] != b'-' {
            return None;
        }
        let context = Self {
            trace: hex(&rest[1..33])?.to_be_bytes(),
            span: (hex(&rest[34..50])? as u64).to_be_bytes(),
            flags: hex(&rest[51..53])? as u8,
        };
        (context.trace != [0; 16] && context.span != [0; 8]).then_some(context)
    }

    /// Has the caller recorded its part, as far as it says?
    pub fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The same place, recorded or not. Other flags are those of the trace and stay.
    pub fn sampled(self, is_sampled: bool) -> Self {
        let flags = match is_sampled {
            true => self.flags | SAMPLED,
            false => self.flags & !SAMPLED,
        };
        Self { flags, ..self }
    }

    /// The value of `traceparent`, in the version we know.
    pub fn text(self) -> [u8; TRACEPARENT_BYTES] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        digits(&mut text[3..35], &self.trace);
        digits(&mut text[36..52], &self.span);
        // What we do not know is not passed on as if we did.
        digits(&mut text[53..], &[self.flags & SAMPLED]);
        text
    }
}

/// A number of hex digits in lower case, which are the only ones that the standard knows.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |sum, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(sum << 4 | u128::from(value))
    })
}

/// Writes bytes as hex digits into a room of twice their number.
pub fn digits(room: &mut [u8], bytes: &[u8]) {
    for (room, byte) in room.chunks_exact_mut(2).zip(bytes) {
        room[0] = b"0123456789abcdef"[usize::from(byte >> 4)];
        room[1] = b"0123456789abcdef"[usize::from(byte & 15)];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_context_is_read_and_written_as_the_standard_has_it() {
        let context = TraceContext::parse(TEXT.as_bytes()).unwrap();
        let trace = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128;
        assert_eq!(context.trace, trace.to_be_bytes());
        assert_eq!(context.span, 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes());
        assert!(context.is_sampled());
        assert_eq!(&context.text()[..], TEXT.as_bytes());
        let not = context.sampled(false);
        assert!(!not.is_sampled() && not.text().ends_with(b"-00"));
        assert_eq!(not.sampled(true), context);
    }

    #[test]
    fn what_a_later_version_adds_is_passed_over() {
        for text in [
            TEXT.replace("00-4b", "01-4b"),
            TEXT.replace("00-4b", "cc-4b") + "-more",
        ] {
            let read = TraceContext::parse(text.as_bytes());
            assert_eq!(read, TraceContext::parse(TEXT.as_bytes()), "{text}");
        }
    }

    #[test]
    fn what_is_not_as_the_standard_writes_it_is_no_context() {
        for text in [
            String::new(),
            TEXT[..54].to_owned(),
            format!("{TEXT}-more"),
            format!("{TEXT} "),
            format!(" {TEXT}"),
            TEXT.replace("00-4b", "ff-4b"),
            TEXT.replace("00-4b", "cc-4b") + "more",
            TEXT.replace("4bf92f", "4BF92F"),
            TEXT.replace("4bf92f", "4bg92f"),
            TEXT.replace('-', "_"),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01".to_owned(),
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01".to_owned(),
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x".to_owned(),
        ] {
            assert_eq!(TraceContext::parse(text.as_bytes()), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_was_written_is_read_again(
            trace in 1..u128::MAX, span in 1..u64::MAX, flags in 0..2_u8,
        ) {
            let (trace, span) = (trace.to_be_bytes(), span.to_be_bytes());
            let context = TraceContext { trace, span, flags };
            prop_assert_eq!(TraceContext::parse(&context.text()), Some(context));
        }

        #[test]
        fn nothing_that_a_client_sends_is_a_panic(text in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = TraceContext::parse(&text);
        }
    }
}
