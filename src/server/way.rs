//! Whether a listener still serves something new to those that it let in.

use std::sync::Arc;

use pingora::server::ShutdownWatch;
use tokio::sync::watch;

/// The way in through one listener on one thread, for those that have come through it.
#[derive(Debug)]
pub struct Way {
    /// True once nothing new is served to them. A channel, because that is how Pingora's HTTP/2 is
    /// told to say GOAWAY.
    closed: watch::Sender<bool>,
}

impl Way {
    /// A way that is open.
    pub fn open() -> Arc<Self> {
        Arc::new(Self {
            closed: watch::Sender::new(false),
        })
    }

    /// Serves nothing new to those that have come in. Whoever waits must be woken.
    pub fn close(&self) {
        self.closed.send_replace(true);
    }

    /// Is nothing new served any more?
    pub fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// For whoever waits for the end.
    pub fn watch(&self) -> ShutdownWatch {
        self.closed.subscribe()
    }

    /// Closes it with the process.
    pub async fn follow(self: Arc<Self>, mut shutdown: ShutdownWatch) {
        if shutdown.wait_for(|is_over| *is_over).await.is_ok() {
            self.close();
        }
    }
}
