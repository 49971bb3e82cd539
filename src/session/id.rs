//! Sealed session ids: the affinity of a session, carried by the client.
//!
//! A sealed id says which endpoint of which pool owns a session, what the server calls it, who may
//! use it and when it was made, all encrypted and authenticated with a key of ours. What a client
//! sees is opaque, unguessable and of visible ASCII, as the protocol asks of a session id.
//!
//! ```text
//! base64url, no padding, of:
//!   kind 1 | key id 4 | nonce 24 | sealed claims | tag 16
//!
//! claims, sealed with XChaCha20-Poly1305:
//!   form 1 | pool 8 | endpoint 8 | principal 8 | minted at 8 | server id
//! ```
//!
//! Kind and key id are associated data, so an id of one kind cannot serve as the other. A server id
//! that is a UUID or 32 hex digits is packed into 16 bytes: the whole is then 126 characters long.
//!
//! An id that does not open is an *unknown session*, whatever the reason. The reason exists for a
//! counter; telling it to the client would only help whoever is guessing.
//!
//! This module knows neither the clock nor the source of randomness: both come in as arguments.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use blake2::Blake2sMac256;
use blake2::digest::{FixedOutput as _, KeyInit as _, Update as _};
use chacha20poly1305::aead::AeadInPlace as _;
use chacha20poly1305::{Tag, XChaCha20Poly1305, XNonce};

use super::hash::{NameHash, PrincipalHash};

mod packed;

/// Most keys a keyring holds: the one in use and 15 that are still being rotated out.
pub const KEYS_MAX: usize = 16;
/// Longest server id, in bytes, that a sealed session id carries.
pub const SERVER_ID_MAX: usize = 512;
/// Longest server id, in bytes, that a sealed HTTP+SSE id carries. It holds a request target.
pub const SSE_SERVER_ID_MAX: usize = 2048;
/// Bytes of a nonce. Drawn at random, 192 bits never repeat in the life of a key.
pub const NONCE_LEN: usize = 24;

const KEY_ID_LEN: usize = 4;
const HEADER_LEN: usize = 1 + KEY_ID_LEN;
const TAG_LEN: usize = 16;
const CLAIMS_LEN: usize = 1 + 4 * 8;
const OVERHEAD: usize = HEADER_LEN + NONCE_LEN + CLAIMS_LEN + TAG_LEN;

/// Ids up to this size, in sealed bytes, are opened on the stack. A packed UUID needs 94.
const SHORT: usize = 192;

/// What a sealed id may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdKind {
    /// The value of `Mcp-Session-Id`.
    Session,
    /// The path segment that stands for the message endpoint of an HTTP+SSE stream (2024-11-05).
    Sse,
}

impl IdKind {
    /// Longest server id, in bytes, that an id of this kind can carry.
    pub const fn server_id_max(self) -> usize {
        match self {
            Self::Session => SERVER_ID_MAX,
            Self::Sse => SSE_SERVER_ID_MAX,
        }
    }

    /// Longest sealed text of this kind, in bytes; a longer one is not even decoded.
    pub const fn text_max(self) -> usize {
        ((OVERHEAD + self.server_id_max()) * 4).div_ceil(3)
    }

    /// The first byte of the sealed form. It also marks the version of the format: a new format
    /// takes new values. All of 0x4c to 0x4f make the text begin with a `T`, for whoever finds one
    /// in a log.
    const fn mark(self) -> u8 {
        match self {
            Self::Session => 0x4c,
            Self::Sse => 0x4d,
        }
    }

    const fn of_mark(mark: u8) -> Option<Self> {
        match mark {
            0x4c => Some(Self::Session),
            0x4d => Some(Self::Sse),
            _ => None,
        }
    }
}

/// What a sealed id says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// What the id may be used for.
    pub kind: IdKind,
    /// The pool that the session belongs to.
    pub pool: NameHash,
    /// The endpoint that owns the session, by name: its address may change.
    pub endpoint: NameHash,
    /// The server's own id, or for [`IdKind::Sse`] its request target. At most
    /// [`IdKind::server_id_max`] bytes.
    pub server_id: Arc<str>,
    /// When the id was sealed, in seconds since the Unix epoch.
    pub minted_at: u64,
    /// Who began the session. The caller compares it with who is calling now and treats a
    /// difference as an unknown session.
    pub principal: PrincipalHash,
}

/// The id did not open: for the caller an unknown session and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown session ({reason})")]
pub struct Unknown {
    /// Why, for a counter. Never told to the client.
    pub reason: Reason,
}

/// Why an id did not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Not an id of ours at all: wrong alphabet, length or format. Servers' own ids land here.
    Malformed,
    /// Sealed with a key that this keyring does not hold.
    UnknownKey,
    /// The key is known and the seal is broken.
    Forged,
    /// An id of the other kind, whether or not it is genuine.
    WrongKind,
}

impl Reason {
    /// The reason as a metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownKey => "unknown_key",
            Self::Forged => "forged",
            Self::WrongKind => "wrong_kind",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

impl From<Reason> for Unknown {
    fn from(reason: Reason) -> Self {
        Self { reason }
    }
}

/// The server's id is longer than an id of this kind may carry. The session cannot be offered to
/// the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server's session id is {len} bytes long, more than {max}")]
pub struct IdTooLong {
    /// Bytes of the server's id.
    pub len: usize,
    /// Most bytes allowed.
    pub max: usize,
}

/// Why a keyring could not be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// There is no key to seal with.
    #[error("no session key given")]
    Empty,
    /// More than [`KEYS_MAX`] keys.
    #[error("{0} session keys given, at most {KEYS_MAX} are allowed")]
    TooMany(usize),
    /// Two keys are the same; the second can only be a mistake in a rotation. Counted from zero.
    #[error("session keys {0} and {1} (counted from 0) are the same")]
    Duplicate(usize, usize),
}

/// One secret key of 256 bits.
#[derive(Clone, PartialEq, Eq)]
pub struct SealingKey([u8; 32]);

impl SealingKey {
    /// Takes 32 bytes that nobody can guess.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Reads exactly 64 hex digits of either case.
    pub fn from_hex(text: &[u8]) -> Option<Self> {
        let mut bytes = [0; 32];
        packed::unhex(text, &mut bytes).then_some(Self(bytes))
    }

    /// The key as 64 lower-case hex digits, as it stands in a key file.
    pub fn to_hex(&self) -> String {
        packed::hex(&self.0)
    }

    /// The public name of the key inside an id: four bytes of a MAC under it, which tell nothing
    /// about the key itself.
    fn id(&self) -> [u8; KEY_ID_LEN] {
        let mac = Blake2sMac256::new_from_slice(&self.0).expect("BLAKE2s takes keys of 32 bytes");
        let tag = mac.chain(b"tidegate session key id").finalize_fixed();
        [tag[0], tag[1], tag[2], tag[3]]
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKey(..)")
    }
}

/// The keys that make and open sealed ids: the first seals, all open.
///
/// To rotate without losing a session, put the new key first and keep the old one behind it until
/// the oldest session is gone.
pub struct Keyring {
    /// 1 to [`KEYS_MAX`]. Two keys share a key id once in four thousand million rings; then both
    /// are tried.
    slots: Vec<Slot>,
}

struct Slot {
    key_id: [u8; KEY_ID_LEN],
    cipher: XChaCha20Poly1305,
}

impl Keyring {
    /// Builds a ring of 1 to [`KEYS_MAX`] different keys.
    pub fn new(keys: Vec<SealingKey>) -> Result<Self, KeyringError> {
        if keys.is_empty() {
            return Err(KeyringError::Empty);
        }
        if keys.len() > KEYS_MAX {
            return Err(KeyringError::TooMany(keys.len()));
        }
        for (second, key) in keys.iter().enumerate() {
            if let Some(first) = keys[..second].iter().position(|other| other == key) {
                return Err(KeyringError::Duplicate(first, second));
            }
        }
        let slot = |key: &SealingKey| Slot {
            key_id: key.id(),
            cipher: chacha20poly1305::KeyInit::new(&key.0.into()),
        };
        Ok(Self {
            slots: keys.iter().map(slot).collect(),
        })
    }

    /// Keys in the ring.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Always false: a ring holds a key.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Does it hold every key of `other`, as their public names tell?
    pub fn holds_all_of(&self, other: &Self) -> bool {
        let is_here = |slot: &Slot| self.slots.iter().any(|own| own.key_id == slot.key_id);
        other.slots.iter().all(is_here)
    }

    /// Seals `claims` with the first key. `nonce` must be drawn at random for every id
    /// ([`super::fresh_nonce`]).
    ///
    /// Refuses a server id that is longer than [`IdKind::server_id_max`].
    pub fn seal(&self, claims: &Claims, nonce: [u8; NONCE_LEN]) -> Result<String, IdTooLong> {
        let (len, max) = (claims.server_id.len(), claims.kind.server_id_max());
        if len > max {
            return Err(IdTooLong { len, max });
        }
        let slot = &self.slots[0];
        let mut sealed = Vec::with_capacity(OVERHEAD + len);
        sealed.push(claims.kind.mark());
        sealed.extend_from_slice(&slot.key_id);
        sealed.extend_from_slice(&nonce);
        write_claims(claims, &mut sealed);

        let (header, rest) = sealed.split_at_mut(HEADER_LEN);
        let tag = slot
            .cipher
            .encrypt_in_place_detached(XNonce::from_slice(&nonce), header, &mut rest[NONCE_LEN..])
            .expect("an id is far shorter than what the cipher can take");
        sealed.extend_from_slice(&tag);
        Ok(URL_SAFE_NO_PAD.encode(&sealed))
    }

    /// Opens an id of the wanted kind, as it stood in the request.
    ///
    /// Takes any bytes. Does no work for a text longer than [`IdKind::text_max`], and allocates
    /// only the server id for one of the usual length.
    pub fn open(&self, text: &[u8], kind: IdKind) -> Result<Claims, Unknown> {
        if text.len() > kind.text_max() {
            return Err(Reason::Malformed.into());
        }
        let mut short = [0; SHORT];
        let mut long = Vec::new();
        let buffer = match base64::decoded_len_estimate(text.len()) {
            len if len <= SHORT => &mut short[..],
            len => {
                long.resize(len, 0);
                &mut long[..]
            }
        };
        let len = URL_SAFE_NO_PAD
            .decode_slice(text, buffer)
            .map_err(|_| Reason::Malformed)?;
        self.unseal(&mut buffer[..len], kind)
    }

    fn unseal(&self, sealed: &mut [u8], kind: IdKind) -> Result<Claims, Unknown> {
        if sealed.len() < OVERHEAD {
            return Err(Reason::Malformed.into());
        }
        let (header, rest) = sealed.split_at_mut(HEADER_LEN);
        match IdKind::of_mark(header[0]) {
            None => return Err(Reason::Malformed.into()),
            Some(found) if found != kind => return Err(Reason::WrongKind.into()),
            Some(_) => {}
        }
        let (nonce, rest) = rest.split_at_mut(NONCE_LEN);
        let (body, tag) = rest.split_at_mut(rest.len() - TAG_LEN);

        let mut reason = Reason::UnknownKey;
        for slot in self.slots.iter().filter(|slot| slot.key_id == header[1..]) {
            // A failed attempt leaves the body as it was: the tag is verified before decrypting.
            let (nonce, tag) = (XNonce::from_slice(nonce), Tag::from_slice(tag));
            match slot
                .cipher
                .decrypt_in_place_detached(nonce, header, body, tag)
            {
                Ok(()) => return read_claims(body, kind).ok_or_else(|| Reason::Malformed.into()),
                Err(_) => reason = Reason::Forged,
            }
        }
        Err(reason.into())
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring({} keys)", self.slots.len())
    }
}

fn write_claims(claims: &Claims, out: &mut Vec<u8>) {
    let (form, packed) = packed::pack(&claims.server_id);
    out.push(form as u8);
    for number in [
        claims.pool.get(),
        claims.endpoint.get(),
        claims.principal.0,
        claims.minted_at,
    ] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    match packed {
        Some(bytes) => out.extend_from_slice(&bytes),
        None => out.extend_from_slice(claims.server_id.as_bytes()),
    }
}

/// Reads what [`write_claims`] wrote. The bytes are authentic, so `None` means that another version
/// wrote them, under the same mark, which it must not.
fn read_claims(body: &[u8], kind: IdKind) -> Option<Claims> {
    let (&form, mut rest) = body.split_first()?;
    let mut number = || {
        let (first, others) = rest.split_first_chunk::<8>()?;
        rest = others;
        Some(u64::from_be_bytes(*first))
    };
    Some(Claims {
        kind,
        pool: NameHash::from_u64(number()?),
        endpoint: NameHash::from_u64(number()?),
        principal: PrincipalHash(number()?),
        minted_at: number()?,
        server_id: packed::unpack(form, rest)?.into(),
    })
}

#[cfg(test)]
mod tests;
