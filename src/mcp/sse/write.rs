//! The bytes that we put into a stream ourselves.

use super::{Line, SseScan};
use crate::mcp::peek::Utf8;

/// A comment that keeps a quiet stream alive. Clients ignore it. It may stand wherever
/// [`SseScan::at_boundary`] says so.
pub const KEEP_ALIVE: &[u8] = b": \n\n";

/// Appends an event that carries one JSON-RPC message.
///
/// Line ends in `json` can only be whitespace between its tokens; the text is spread over as many
/// `data` lines, which clients join again.
pub fn write_message_event(out: &mut Vec<u8>, json: &[u8]) {
    out.extend_from_slice(b"event: message\n");
    for line in json.split(|byte| matches!(byte, b'\n' | b'\r')) {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    out.push(b'\n');
}

/// The event that tells a client of HTTP+SSE where to send its messages. Control characters, which
/// no URI has, are left out, so that a uri cannot end the event.
pub fn endpoint_event(uri: &str) -> Vec<u8> {
    let mut out = b"event: endpoint\ndata: ".to_vec();
    out.extend(uri.bytes().filter(|byte| !byte.is_ascii_control()));
    out.extend_from_slice(b"\n\n");
    out
}

impl SseScan {
    /// Appends what must follow the bytes seen so far to make a client drop the event that they
    /// break off in. Nothing is appended where no event is open. Afterwards an event of ours may
    /// stand.
    ///
    /// An empty line alone would complete the event, and the client would parse half a message, or
    /// take `data` lines for the whole of it that were not. So the event is completed as another
    /// one:
    ///
    /// - A character that is cut in half is filled up, for clients whose decoder is strict.
    /// - In the middle of a line, `x` and a line end. The `x` spoils a field name that happens to
    ///   be one already, and a `retry` whose last digits are missing. After `\r` or `\n` the line
    ///   has ended, and another line end would be the empty line.
    /// - `event: aborted`. The last `event` line counts, and clients ignore types they do not know.
    /// - If the event has an id, the id of the last complete event. Clients remember the id of
    ///   every event, also of those they ignore; they would resume after the one that they never
    ///   saw.
    pub fn poison_partial(&self, out: &mut Vec<u8>) {
        if self.at_boundary() {
            return;
        }
        if self.line != Line::Start {
            self.fill_character(out);
            out.extend_from_slice(b"x\n");
        }
        out.extend_from_slice(b"event: aborted\n");
        if self.block.touches_id {
            out.extend_from_slice(b"id: ");
            out.extend_from_slice(self.ids.last().unwrap_or_default());
            out.push(b'\n');
        }
        out.push(b'\n');
    }

    fn fill_character(&self, out: &mut Vec<u8>) {
        for cut in 0..self.tail.len() {
            let [lead, rest @ ..] = &self.tail[cut..] else {
                return;
            };
            let mut open = Utf8::lead(*lead);
            for &byte in rest {
                open = open.and_then(|utf8| utf8.next(byte).flatten());
            }
            while let Some(utf8) = open {
                out.push(utf8.filler());
                open = utf8.next(utf8.filler()).flatten();
            }
        }
    }
}
