//! TLS towards endpoints: whom we trust, who we are, and what an endpoint is called.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pingora::protocols::tls::CaType;
use pingora::upstreams::peer::{HttpPeer, Scheme};
use pingora::utils::tls::{CertKey, WrappedX509, parse_x509};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::words;
use super::{H2, HTTP_11, Socket, Tls};
use crate::transport::Error;

/// What we show an endpoint that wants to know who we are.
#[derive(Debug, Clone, Copy)]
pub struct Proof<'a> {
    /// Our certificate, and those that lead from it to a root.
    pub chain: &'a [CertificateDer<'static>],
    /// Its private key.
    pub key: &'a PrivateKeyDer<'static>,
}

/// Whose certificates are good, and who we are. The same for as many endpoints as have it so; sessions
/// are resumed by it, on whichever thread.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Offers HTTP/1.1 alone.
    one: Arc<ClientConfig>,
    /// Offers HTTP/2 as well.
    two: Arc<ClientConfig>,
    /// The same as Pingora wants it, for the plain lane.
    stock: Arc<Stock>,
    /// Tells connections that were made by these rules from those made by others.
    id: u64,
}

/// What Pingora makes its rules of, anew with each connection. It knows the system's authorities
/// itself.
struct Stock {
    authorities: Option<Arc<CaType>>,
    proof: Option<Arc<CertKey>>,
    verify: bool,
}

impl std::fmt::Debug for Stock {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stock")
            .field("verify", &self.verify)
            .finish_non_exhaustive()
    }
}

/// Who vouches for an endpoint.
#[derive(Debug, Clone, Copy)]
pub enum Trust<'a> {
    /// These authorities, of the operator's choice.
    These(&'a [CertificateDer<'static>]),
    /// These, which are the system's.
    System(&'a [CertificateDer<'static>]),
    /// Nobody: any certificate is taken.
    Anybody,
}

impl Rules {
    /// Rules by which an endpoint is trusted, and may hear who we are.
    ///
    /// # Errors
    /// If no authority can be used, or the key does not belong to the certificate.
    pub fn new(trust: Trust<'_>, proof: Option<Proof<'_>>) -> Result<Self, rustls::Error> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .dangerous()
            .with_custom_certificate_verifier(verifier(trust, &provider)?);
        let mut one = match proof {
            None => builder.with_no_client_auth(),
            Some(proof) => {
                builder.with_client_auth_cert(proof.chain.to_vec(), proof.key.clone_key())?
            }
        };
        one.alpn_protocols = vec![HTTP_11.to_vec()];
        // Its parts are shared, sessions that can be resumed among them.
        let mut two = one.clone();
        two.alpn_protocols = vec![H2.to_vec(), HTTP_11.to_vec()];
        let authorities = match trust {
            Trust::These(authorities) => Some(stock_authorities(authorities)),
            Trust::System(_) | Trust::Anybody => None,
        };
        let stock = Stock {
            authorities,
            proof: proof.map(|proof| {
                let chain = proof.chain.iter().map(|cert| cert.to_vec()).collect();
                Arc::new(CertKey::new(chain, proof.key.secret_der().to_vec()))
            }),
            verify: !matches!(trust, Trust::Anybody),
        };
        Ok(Self {
            one: Arc::new(one),
            two: Arc::new(two),
            stock: Arc::new(stock),
            id: NEXT.fetch_add(1, Ordering::Relaxed),
        })
    }

    /// A number that no other rules of this process have.
    pub fn id(&self) -> u64 {
        self.id
    }
}

fn stock_authorities(authorities: &[CertificateDer<'static>]) -> Arc<CaType> {
    let wrap = |cert: &CertificateDer<'_>| WrappedX509::new(cert.to_vec(), parse_x509);
    authorities.iter().map(wrap).collect()
}

fn verifier(
    trust: Trust<'_>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, rustls::Error> {
    let authorities = match trust {
        Trust::Anybody => return Ok(Arc::new(Anybody(Arc::clone(provider)))),
        Trust::These(authorities) | Trust::System(authorities) => authorities,
    };
    let mut roots = RootCertStore::empty();
    // Systems hold some that are of no use.
    roots.add_parsable_certificates(authorities.iter().cloned());
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
    Ok(verifier)
}

/// Takes any certificate, as long as the endpoint has its key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// How TLS is spoken to one endpoint.
#[derive(Debug, Clone)]
pub struct Client {
    rules: Rules,
    name: ServerName<'static>,
}

impl Client {
    /// By these rules, to an endpoint whose certificate must be for `name`: a DNS name or an address.
    ///
    /// # Errors
    /// If it is neither.
    pub fn new(rules: Rules, name: &str) -> Result<Self, rustls::pki_types::InvalidDnsNameError> {
        let name = ServerName::try_from(name)?.to_owned();
        Ok(Self { rules, name })
    }

    /// The rules.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Shakes hands on a connection that was just made, offering HTTP/2 as well where that is wanted.
    /// The caller bounds the time.
    ///
    /// # Errors
    /// [`Error::Connect`] with the reason in words, or [`Error::Connect`] as well if the endpoint
    /// closed the connection: no byte of a request was sent.
    pub async fn shake(&self, stream: TcpStream, http2: bool) -> Result<Box<Tls>, Error> {
        let rules = if http2 {
            &self.rules.two
        } else {
            &self.rules.one
        };
        let connector = TlsConnector::from(Arc::clone(rules));
        let shaking = connector.connect(self.name.clone(), Socket::new(stream));
        match shaking.into_fallible().await {
            Ok(stream) => Ok(Box::new(Tls::new(stream.into()))),
            Err((_, socket)) if socket.is_plain() => Err(Error::Connect(
                "it does not speak TLS here: it answered in plain text".to_owned(),
            )),
            Err((error, _)) => Err(Error::Connect(words::of(&error))),
        }
    }

    /// Has Pingora speak TLS to `peer` in the same way, and agree on HTTP/2 if `http2`.
    pub(in crate::transport) fn dress(&self, peer: &mut HttpPeer, http2: bool) {
        let stock = &self.rules.stock;
        peer.scheme = Scheme::HTTPS;
        peer.sni = self.name.to_str().into_owned();
        peer.client_cert_key = stock.proof.clone();
        peer.options.ca = stock.authorities.clone();
        peer.options.verify_cert = stock.verify;
        peer.options.verify_hostname = stock.verify;
        let most = if http2 { 2 } else { 1 };
        peer.options.set_http_version(most, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_other_rules_have_the_same_number() {
        let one = Rules::new(Trust::Anybody, None).unwrap();
        let other = Rules::new(Trust::Anybody, None).unwrap();
        assert_ne!(one.id(), other.id());
        assert_eq!(one.id(), one.clone().id());
    }

    #[test]
    fn an_authority_that_cannot_be_used_is_told() {
        let garbage = [CertificateDer::from(vec![1, 2, 3])];
        assert!(Rules::new(Trust::These(&garbage), None).is_err());
        assert!(Rules::new(Trust::System(&[]), None).is_err());
    }

    #[test]
    fn an_endpoint_is_called_by_a_name_or_an_address() {
        let rules = Rules::new(Trust::Anybody, None).unwrap();
        for name in ["w1.internal", "10.0.0.1", "::1"] {
            assert!(Client::new(rules.clone(), name).is_ok(), "{name}");
        }
        assert!(Client::new(rules, "not a name").is_err());
    }
}
