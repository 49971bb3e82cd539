//! The grammar of JSON numbers (RFC 8259, section 6). A number is checked and never computed.

/// What the last byte of a number was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    Minus,
    Zero,
    Digit,
    Point,
    Fraction,
    Exponent,
    Sign,
    Power,
}

impl Number {
    /// May the number end here?
    pub(super) fn is_complete(self) -> bool {
        matches!(
            self,
            Self::Zero | Self::Digit | Self::Fraction | Self::Power
        )
    }

    fn next(self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Minus, b'0') => Self::Zero,
            (Self::Minus, b'1'..=b'9') | (Self::Digit, b'0'..=b'9') => Self::Digit,
            (Self::Zero | Self::Digit, b'.') => Self::Point,
            (Self::Point | Self::Fraction, b'0'..=b'9') => Self::Fraction,
            (Self::Zero | Self::Digit | Self::Fraction, b'e' | b'E') => Self::Exponent,
            (Self::Exponent, b'+' | b'-') => Self::Sign,
            (Self::Exponent | Self::Sign | Self::Power, b'0'..=b'9') => Self::Power,
            _ => return None,
        })
    }

    /// Goes on from `at` to the end of the number or of the input.
    #[inline]
    pub(super) fn run(mut self, input: &[u8], mut at: usize) -> (Self, usize) {
        loop {
            // Further digits change nothing there.
            if matches!(self, Self::Digit | Self::Fraction | Self::Power) {
                while input.get(at).is_some_and(u8::is_ascii_digit) {
                    at += 1;
                }
            }
            match input.get(at).and_then(|&byte| self.next(byte)) {
                Some(next) => self = next,
                None => return (self, at),
            }
            at += 1;
        }
    }
}
