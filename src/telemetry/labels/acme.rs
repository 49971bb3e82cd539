//! What came of an order.

closed_set! {
    /// What came of an order of a certificate.
    pub enum AcmeResult {
        /// The certificate is in force.
        Issued = "issued",
        /// The authority has said no, or has not found at a name what it was to find.
        Refused = "refused",
        /// The authority could not be reached.
        Unreachable = "unreachable",
        /// It did not answer, or was not done, in time.
        Timeout = "timeout",
        /// Something else, here or there: the state directory, or an answer that is of no use.
        Failed = "failed",
    }
}
