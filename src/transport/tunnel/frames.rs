//! Where WebSocket frames begin and end (RFC 6455 section 5.2).

/// Follows the borders of WebSocket frames in one direction.
#[derive(Default)]
pub(super) struct Frames {
    head: [u8; 14],
    filled: usize,
    payload: u64,
}

impl Frames {
    /// May another frame begin here?
    pub(super) fn at_border(&self) -> bool {
        self.filled == 0 && self.payload == 0
    }

    /// Looks at the next bytes.
    pub(super) fn feed(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() {
            if self.payload > 0 {
                let skip = self.payload.min(piece.len() as u64);
                self.payload -= skip;
                piece = &piece[usize::try_from(skip).unwrap_or(piece.len())..];
                continue;
            }
            self.head[self.filled] = piece[0];
            self.filled += 1;
            piece = &piece[1..];
            if self.filled == self.head_length() {
                self.payload = self.payload_length();
                self.filled = 0;
            }
        }
    }

    /// Length of the head that has begun: two bytes, more for long payloads, four for a mask.
    fn head_length(&self) -> usize {
        if self.filled < 2 {
            return 2;
        }
        let extended = match self.head[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        2 + extended + if self.head[1] & 0x80 == 0 { 0 } else { 4 }
    }

    fn payload_length(&self) -> u64 {
        match self.head[1] & 0x7f {
            126 => u64::from(u16::from_be_bytes([self.head[2], self.head[3]])),
            127 => {
                let mut long = [0; 8];
                long.copy_from_slice(&self.head[2..10]);
                u64::from_be_bytes(long)
            }
            short => u64::from(short),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_borders_are_found_on_every_split() {
        let mut bytes = vec![0x81, 3, b'a', b'b', b'c'];
        bytes.extend([0x81, 0x80 | 2, 1, 2, 3, 4, b'x', b'y']);
        bytes.extend([0x82, 126, 0, 200]);
        bytes.extend([7; 200]);
        bytes.extend([0x82, 127, 0, 0, 0, 0, 0, 0, 0, 1, 9]);
        let borders = [0, 5, 13, 217, 228];
        for split in 0..=bytes.len() {
            let mut frames = Frames::default();
            frames.feed(&bytes[..split]);
            assert_eq!(frames.at_border(), borders.contains(&split), "at {split}");
            frames.feed(&bytes[split..]);
            assert!(frames.at_border());
        }
    }
}
