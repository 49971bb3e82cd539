//! What went wrong in a handshake with an endpoint, in words that say what to do about it.

use std::io;

use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

/// Why a handshake came to nothing.
pub(super) fn of(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    match inner {
        Some(error) => of_tls(error),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "it closed the connection in the TLS handshake".to_owned()
        }
        None => format!("the TLS handshake failed: {error}"),
    }
}

fn of_tls(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(wrong) => of_certificate(wrong),
        Error::AlertReceived(alert) => of_alert(*alert),
        Error::NoApplicationProtocol => {
            "it agreed neither to HTTP/2 nor to HTTP/1.1 (ALPN)".to_owned()
        }
        Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        ) => "it speaks neither TLS 1.2 nor 1.3".to_owned(),
        error => format!("the TLS handshake failed: {error}"),
    }
}

fn of_certificate(wrong: &CertificateError) -> String {
    match wrong {
        CertificateError::UnknownIssuer => {
            "its certificate is not signed by an authority that is trusted for it (`ca`)".to_owned()
        }
        CertificateError::Expired => "its certificate has expired".to_owned(),
        CertificateError::ExpiredContext { time, not_after } => {
            let ago = time.as_secs().saturating_sub(not_after.as_secs());
            format!("its certificate has expired, {} ago", span(ago))
        }
        CertificateError::NotValidYet => "its certificate is not valid yet".to_owned(),
        CertificateError::NotValidYetContext { time, not_before } => {
            let until = not_before.as_secs().saturating_sub(time.as_secs());
            format!(
                "its certificate will not be valid for another {}",
                span(until)
            )
        }
        CertificateError::NotValidForName => "its certificate is for another name".to_owned(),
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => {
            let expected = expected.to_str();
            match presented.as_slice() {
                [] => format!("its certificate is for no name at all, and so not for {expected}"),
                names => format!(
                    "its certificate is for {}, not for {expected} (`server_name`)",
                    listed(names)
                ),
            }
        }
        CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            "its certificate is that of an authority (CA:TRUE), which servers may not show"
                .to_owned()
        }
        wrong => format!("its certificate is not valid: {wrong}"),
    }
}

/// What a certificate is for, without what the library writes around it.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 4;
    let bare = |name: &String| {
        let inner = name.split_once('(').map_or(name.as_str(), |(_, rest)| rest);
        inner.trim_matches(['"', ')']).to_owned()
    };
    let mut shown: Vec<String> = names.iter().take(SHOWN).map(bare).collect();
    if names.len() > SHOWN {
        shown.push(format!("{} more", names.len() - SHOWN));
    }
    shown.join(", ")
}

fn of_alert(alert: AlertDescription) -> String {
    match meaning(alert) {
        Some(meaning) => meaning.to_owned(),
        None => format!("it refused the TLS handshake: {alert:?}"),
    }
}

/// What an alert means that other sides send for a reason we know.
fn meaning(alert: AlertDescription) -> Option<&'static str> {
    Some(match alert {
        AlertDescription::CertificateRequired => "it wants a client certificate (`cert`, `key`)",
        AlertDescription::HandshakeFailure => {
            "it refused the TLS handshake: no version, cipher or certificate suits both"
        }
        AlertDescription::UnrecognisedName => {
            "it does not know the name it was asked by (`server_name`)"
        }
        AlertDescription::UnknownCA => {
            "it refused our certificate (`cert`): it does not know who signed it"
        }
        AlertDescription::CertificateExpired => {
            "it refused our certificate (`cert`): it is not valid today"
        }
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateUnknown
        | AlertDescription::AccessDenied => "it refused our certificate (`cert`)",
        _ => return None,
    })
}

/// Why a connection ended that stood already, if the other side has said so. In TLS 1.3 a client learns
/// only then what became of its certificate.
pub(in crate::transport) fn alert(error: &io::Error) -> Option<&'static str> {
    match error.get_ref()?.downcast_ref()? {
        Error::AlertReceived(alert) => meaning(*alert),
        _ => None,
    }
}

fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}min", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::{ServerName, UnixTime};
    use std::time::Duration;

    fn said(error: Error) -> String {
        of(&io::Error::new(io::ErrorKind::InvalidData, error))
    }

    #[test]
    fn a_certificate_for_other_names_is_told_with_them() {
        let wrong = CertificateError::NotValidForNameContext {
            expected: ServerName::try_from("w1.internal").unwrap(),
            presented: vec![
                "DnsName(\"a.example\")".to_owned(),
                "DnsName(\"*.b.example\")".to_owned(),
            ],
        };
        assert_eq!(
            said(wrong.into()),
            "its certificate is for a.example, *.b.example, not for w1.internal (`server_name`)"
        );
    }

    #[test]
    fn an_expired_certificate_is_told_with_its_age() {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let wrong = CertificateError::ExpiredContext {
            time: at(10 * 86_400),
            not_after: at(86_400),
        };
        assert_eq!(
            said(wrong.into()),
            "its certificate has expired, 9 days ago"
        );
    }

    #[test]
    fn what_is_no_tls_error_is_told_as_it_is() {
        let closed = io::Error::from(io::ErrorKind::UnexpectedEof);
        assert!(of(&closed).contains("closed the connection"));
        let reset = io::Error::from(io::ErrorKind::ConnectionReset);
        assert!(of(&reset).contains("the TLS handshake failed"));
        let alert = Error::AlertReceived(AlertDescription::CertificateRequired);
        assert!(said(alert).contains("client certificate"));
    }
}
