//! What came of reading the configuration again.

closed_set! {
    /// What came of reading the configuration again.
    pub enum ReloadResult {
        /// It is in force.
        Ok = "ok",
        /// Something was wrong, and all stayed as it was.
        Failed = "failed",
    }
}
