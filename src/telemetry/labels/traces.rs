//! Why spans were not sent.

closed_set! {
    /// Why a span was dropped.
    pub enum SpanLoss {
        /// As many as may wait were waiting to be sent.
        QueueFull = "queue_full",
        /// The collector does not take it.
        Refused = "refused",
        /// The collector could not be reached, or was not ready, as often as it was tried.
        Unreachable = "unreachable",
        /// The collector did not answer in time, as often as it was tried.
        Timeout = "timeout",
        /// The process left before it could be sent.
        Shutdown = "shutdown",
    }
}
