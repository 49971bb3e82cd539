//! Why a connection came to nothing before there was a request on it.

closed_set! {
    /// Why a TLS handshake with a client came to nothing.
    pub enum HandshakeFailure {
        /// The client spoke HTTP without TLS.
        Plain = "plain_http",
        /// The client closed the connection, as a check of the port alone does.
        Closed = "closed",
        /// It was not done in time.
        Timeout = "timeout",
        /// No version or cipher in common, or no TLS at all.
        Protocol = "protocol",
        /// The certificate for the name that was asked for has been ordered, and is not there yet.
        NoCertificate = "no_certificate",
    }
}

closed_set! {
    /// Why the header of the PROXY protocol came to nothing.
    pub enum HeaderFailure {
        /// The connection began with something else.
        Missing = "missing",
        /// It began like a header, and went on otherwise or for too long.
        Malformed = "malformed",
        /// The connection was closed before it was complete.
        Closed = "closed",
        /// It was not complete in time.
        Timeout = "timeout",
        /// Whoever has connected is none of the trusted proxies.
        Untrusted = "untrusted",
    }
}
