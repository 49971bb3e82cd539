//! What is counted and told of certificates.

use std::sync::PoisonError;

use super::METRICS;
use crate::telemetry::labels::AcmeResult;

/// Until when a certificate of a listener is valid.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CertificateView {
    /// The listener's name.
    pub listener: String,
    /// The certificate's file.
    pub certificate: String,
    /// Its end, in seconds since 1970.
    pub until: i64,
}

/// Counts an order that has come to its end.
pub fn acme_ordered(result: AcmeResult) {
    METRICS.acme_orders[result as usize].inc();
}

/// Puts the certificates of all listeners in the place of those that were told before.
pub fn set_certificates(mut certificates: Vec<CertificateView>) {
    certificates.sort();
    // A series may stand in the text only once.
    certificates.dedup_by(|one, other| {
        (&one.listener, &one.certificate) == (&other.listener, &other.certificate)
    });
    *METRICS
        .certificates
        .lock()
        .unwrap_or_else(PoisonError::into_inner) = certificates;
}
