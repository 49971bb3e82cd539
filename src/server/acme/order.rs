//! One order: from the account to the chain of certificates, as RFC 8555 has it.
//!
//! An order of several names goes like this: the authority says what it wants to see for each, we show it
//! at every listener with a certificate that is ordered (RFC 8737), tell the authority, wait until it has
//! looked, and hand in the key. Nothing is remembered here from one order to the next but the account.

use std::sync::Arc;
use std::time::Duration;

use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, ChallengeType, Error, Identifier, NewAccount,
    NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::crypto::ring::sign::any_ecdsa_type;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::files::Files;
use super::http::{Asked, Http, Wrong};
use super::short;
use crate::config;
use crate::telemetry::AcmeResult;
use crate::transport::tls::Proofs;

/// How long a whole order may take.
const ORDER_TIME: Duration = Duration::from_secs(5 * 60);
/// How long the authority may take to look at the proofs, and to write the certificate.
const WAIT: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(500))
    .backoff(1.5)
    .timeout(Duration::from_secs(120));
/// What an authority says of an account that it does not have (RFC 8555 section 6.7).
const NO_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";
/// What it says of a number that it has given out, and does not know any more.
const BAD_NONCE: &str = "urn:ietf:params:acme:error:badNonce";

/// What was had, as PEM.
pub(super) struct Had {
    /// The certificate, and those that lead from it to a root.
    pub(super) chain: String,
    /// Its key.
    pub(super) key: String,
}

/// Why nothing was had.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) result: AcmeResult,
    /// In words, with the step at which it was.
    pub(super) why: String,
    /// How long the authority wants us to wait.
    pub(super) asked: Option<Duration>,
    /// It is likely to go better at once.
    pub(super) chance: bool,
}

impl Failure {
    /// One that is nobody's but ours.
    pub(super) fn own(why: String) -> Self {
        Self {
            result: AcmeResult::Failed,
            why,
            asked: None,
            chance: false,
        }
    }

    fn at(step: &str, error: &Error) -> Self {
        let (result, chance) = match error {
            Error::Api(problem) => (
                AcmeResult::Refused,
                problem.r#type.as_deref() == Some(BAD_NONCE),
            ),
            Error::Timeout(_) => (AcmeResult::Timeout, false),
            Error::Other(other) => match other.downcast_ref::<Wrong>() {
                Some(wrong) => (wrong.result, false),
                None => (AcmeResult::Failed, false),
            },
            _ => (AcmeResult::Failed, false),
        };
        Self {
            result,
            why: format!("{step}: {error}"),
            asked: None,
            chance,
        }
    }
}

/// The account in its file.
#[derive(Serialize, Deserialize)]
struct Kept {
    contact: Vec<String>,
    credentials: AccountCredentials,
}

/// What an order is made with.
pub(super) struct Orderer<'a> {
    pub(super) config: &'a config::Acme,
    pub(super) files: &'a Arc<Files>,
    /// Held while an account is looked for, so that two orders do not make two.
    pub(super) accounts: &'a Mutex<()>,
    pub(super) proofs: &'a Arc<Proofs>,
}

/// Shows nothing any more when it is dropped.
struct Showing<'a>(&'a Proofs, &'a [String]);

impl Drop for Showing<'_> {
    fn drop(&mut self) {
        self.0.hide(self.1);
    }
}

impl Orderer<'_> {
    /// Orders a certificate, and waits for it.
    pub(super) async fn order(&self) -> Result<Had, Failure> {
        let asked = Asked::default();
        let ordered = timeout(ORDER_TIME, self.with_account(&asked)).await;
        let failed = match ordered {
            Ok(Ok(had)) => return Ok(had),
            Ok(Err(failure)) => failure,
            Err(_) => Failure {
                result: AcmeResult::Timeout,
                ..Failure::own(format!("the order took longer than {ORDER_TIME:?}"))
            },
        };
        Err(Failure {
            asked: asked.take(),
            ..failed
        })
    }

    async fn with_account(&self, asked: &Asked) -> Result<Had, Failure> {
        let account = {
            let _one_at_a_time = self.accounts.lock().await;
            self.account(asked).await?
        };
        self.certificate(&account).await
    }

    /// The account with this authority: the one in the file, or a new one.
    async fn account(&self, asked: &Asked) -> Result<Account, Failure> {
        let name = format!("account-{}.json", short(&[&self.config.directory]));
        let http = || {
            let http = Http::new(&self.config.trust, asked.clone());
            let failed = |error| Failure::own(format!("cannot verify the directory: {error}"));
            http.map(|http| Account::builder_with_http(Box::new(http)))
                .map_err(failed)
        };
        let contact: Vec<&str> = self.config.contact.iter().map(String::as_str).collect();
        let (files, file) = (Arc::clone(self.files), name.clone());
        if let Some(text) = apart(move || files.read(&file)).await? {
            let kept: Kept = serde_json::from_slice(&text)
                .map_err(|error| Failure::own(format!("cannot understand {name}: {error}")))?;
            let account = http()?.from_credentials(kept.credentials).await;
            let account = account.map_err(|error| Failure::at("directory", &error))?;
            if kept.contact == self.config.contact {
                return Ok(account);
            }
            return match account.update_contacts(&contact).await {
                Ok(()) => {
                    // With the key that it has: only the contact is written anew.
                    let mut kept: serde_json::Value = serde_json::from_slice(&text)
                        .map_err(|error| Failure::own(error.to_string()))?;
                    kept["contact"] = serde_json::json!(contact);
                    self.keep(&name, &kept).await?;
                    Ok(account)
                }
                Err(error) => Err(self.of_account("contact", &error).await),
            };
        }
        let new = NewAccount {
            contact: &contact,
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let directory = self.config.directory.clone();
        let made = http()?.create(&new, directory, None).await;
        let (account, credentials) = made.map_err(|error| Failure::at("account", &error))?;
        let kept = Kept {
            contact: self.config.contact.clone(),
            credentials,
        };
        self.keep(&name, &kept).await?;
        Ok(account)
    }

    async fn keep(&self, name: &str, kept: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_vec_pretty(kept);
        let text = text.map_err(|error| Failure::own(error.to_string()))?;
        let (files, name) = (Arc::clone(self.files), name.to_owned());
        apart(move || files.write(&name, &text)).await
    }

    /// A failure of a request in the name of the account. If the authority does not know the account,
    /// the next attempt makes another.
    async fn of_account(&self, step: &str, error: &Error) -> Failure {
        let failure = Failure::at(step, error);
        match error {
            Error::Api(problem) if problem.r#type.as_deref() == Some(NO_ACCOUNT) => {
                let name = format!("account-{}.json", short(&[&self.config.directory]));
                let files = Arc::clone(self.files);
                let chance = apart(move || files.set_aside(&name)).await.is_ok();
                Failure { chance, ..failure }
            }
            _ => failure,
        }
    }

    async fn certificate(&self, account: &Account) -> Result<Had, Failure> {
        let names = &self.config.names;
        let identifiers: Vec<Identifier> = names.iter().cloned().map(Identifier::Dns).collect();
        let mut order = match account.new_order(&NewOrder::new(&identifiers)).await {
            Ok(order) => order,
            Err(error) => return Err(self.of_account("order", &error).await),
        };
        let _showing = Showing(self.proofs, names);
        self.prove(&mut order).await?;
        match order.poll_ready(&WAIT).await {
            Ok(OrderStatus::Ready) => {}
            Ok(_) => return Err(refused(&mut order, "the authority has said no".to_owned()).await),
            Err(Error::Api(problem)) => return Err(refused(&mut order, problem.to_string()).await),
            Err(error) => return Err(Failure::at("proof", &error)),
        }
        let key = order.finalize().await;
        let key = key.map_err(|error| Failure::at("key", &error))?;
        let chain = order.poll_certificate(&WAIT).await;
        let chain = chain.map_err(|error| Failure::at("certificate", &error))?;
        Ok(Had { chain, key })
    }

    /// Shows what the authority wants to see for each name that it does not still believe to be ours,
    /// and tells it.
    async fn prove(&self, order: &mut Order) -> Result<(), Failure> {
        let failed = |error: Error| Failure::at("proof", &error);
        let mut authorizations = order.authorizations();
        while let Some(next) = authorizations.next().await {
            let mut authorization = next.map_err(failed)?;
            let name = authorization.identifier().to_string();
            match authorization.status {
                AuthorizationStatus::Valid => continue,
                AuthorizationStatus::Pending => {}
                other => {
                    let why = format!("proof: {name} is {other:?} before it was looked at");
                    return Err(Failure {
                        result: AcmeResult::Refused,
                        ..Failure::own(why)
                    });
                }
            }
            let Some(mut challenge) = authorization.challenge(ChallengeType::TlsAlpn01) else {
                let why = format!("proof: the authority does not take TLS-ALPN-01 for {name}");
                return Err(Failure {
                    result: AcmeResult::Refused,
                    ..Failure::own(why)
                });
            };
            let digest = challenge.key_authorization().digest();
            let proof = proof(&name, digest.as_ref());
            let proof = proof.map_err(|error| Failure::own(format!("proof: {error}")))?;
            self.proofs.show(&name, Arc::new(proof));
            challenge.set_ready().await.map_err(failed)?;
        }
        Ok(())
    }
}

/// What an authority is shown for a name (RFC 8737 section 3).
fn proof(name: &str, digest: &[u8]) -> Result<CertifiedKey, Box<dyn std::error::Error>> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new([name.to_owned()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let certificate = params.self_signed(&key)?;
    let private = PrivateKeyDer::try_from(key.serialize_der())?;
    // Not held against one another, since what reads certificates here refuses what it must hold.
    Ok(CertifiedKey::new(
        vec![certificate.der().clone()],
        any_ecdsa_type(&private)?,
    ))
}

/// An order that will never be ready, with what the authority has found at each name.
async fn refused(order: &mut Order, mut why: String) -> Failure {
    let mut authorizations = order.authorizations();
    while let Some(next) = authorizations.next().await {
        let Ok(mut authorization) = next else { break };
        if authorization.refresh().await.is_err() {
            break;
        }
        let name = authorization.identifier().to_string();
        for challenge in &authorization.challenges {
            let found = challenge.error.as_ref().map(ToString::to_string);
            // An order of one name has it from there already.
            if let Some(found) = found.filter(|found| !why.contains(found)) {
                why = format!("{why}; {name}: {found}");
            }
        }
    }
    Failure {
        result: AcmeResult::Refused,
        ..Failure::own(format!("proof: {why}"))
    }
}

/// Runs what blocks where it disturbs nobody.
pub(super) async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, Failure> {
    match spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| Failure::own(error.to_string())),
        Err(error) => Err(Failure::own(error.to_string())),
    }
}
