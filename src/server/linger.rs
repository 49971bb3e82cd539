//! The end of a connection on which more may come than anybody reads.

use std::future::poll_fn;
use std::time::Duration;

use tokio::time::timeout;

use crate::transport::buffer::BUFFER_BYTES;
use crate::transport::h1::down::H1Down;

/// How much of an unread body is read away, and for how long, so that closing does not turn into
/// a reset that destroys the answer on its way.
const LINGER_BYTES: usize = 1024 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(2);

/// Closes our side and reads the other away for a while.
pub(super) async fn linger(mut down: H1Down) {
    let conn = down.conn();
    let reading = async {
        conn.shutdown().await;
        let mut left = LINGER_BYTES;
        while left > 0 {
            let read = poll_fn(|context| conn.poll_fill(context, BUFFER_BYTES)).await;
            match read {
                Ok(read) if read > 0 => left = left.saturating_sub(read),
                _ => return,
            }
            drop(conn.take_ahead());
        }
    };
    let _ = timeout(LINGER_TIME, reading).await;
}
