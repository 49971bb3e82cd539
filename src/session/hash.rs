//! Stable hashes of names, principals and session ids.
//!
//! They travel inside sealed ids, so another process, another build and another version must come
//! to the same value: the standard library's hasher promises none of that. They also decide whether
//! two principals are the same one, so a collision must not be makeable by somebody who may choose
//! his own name: hence BLAKE2s (RFC 7693) and not a faster hash with a public key. One block costs
//! about a tenth of a microsecond.

use std::fmt;

use blake2::{Blake2s256, Digest};

/// The hash of a pool's or an endpoint's name: the first eight bytes of BLAKE2s, so that a sealed
/// id stays short however long the names are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NameHash(u64);

impl NameHash {
    /// The hash of `name`. Equal names hash equally in every process and version.
    pub fn of(name: &str) -> Self {
        Self(digest64(Domain::Name, name.as_bytes()))
    }

    /// Wraps a value that [`Self::get`] once gave out.
    pub const fn from_u64(value: u64) -> Self {
        Self(value)
    }

    /// The hash as a number, for those who keep it without knowing this type.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for NameHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NameHash({:016x})", self.0)
    }
}

/// The hash of who is calling, as far as authentication told us.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PrincipalHash(pub u64);

impl PrincipalHash {
    /// Nobody in particular: the route asks for no authentication. All such clients share this
    /// value, so the cap per principal does not apply to it.
    pub const ANONYMOUS: Self = Self(0);

    /// The hash of an authenticated principal. Never [`Self::ANONYMOUS`].
    ///
    /// `principal` must be unambiguous over issuers (an issuer and a subject, with a separator that
    /// neither can hold), because everything with the same bytes shares its sessions.
    pub fn of(principal: &[u8]) -> Self {
        Self(digest64(Domain::Principal, principal).max(1))
    }

    /// As much of it as a log shows.
    pub const fn tag(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

impl fmt::Debug for PrincipalHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrincipalHash({:016x})", self.0)
    }
}

/// What is being hashed. The first byte of every input, so that no value of one kind can be passed
/// off as a value of another. The numbers are part of the id format and never change.
#[derive(Clone, Copy)]
enum Domain {
    Name = 1,
    Principal = 2,
    Session = 3,
}

/// The key of a session in the table: the parts before the server's id have fixed lengths, so two
/// different sessions never feed the hash the same bytes.
pub(super) fn session_digest(pool: NameHash, endpoint: NameHash, server_id: &str) -> u128 {
    let mut hasher = Blake2s256::new();
    hasher.update([Domain::Session as u8]);
    hasher.update(pool.0.to_be_bytes());
    hasher.update(endpoint.0.to_be_bytes());
    hasher.update(server_id.as_bytes());
    u128::from_be_bytes(prefix(&hasher.finalize().into()))
}

fn digest64(domain: Domain, bytes: &[u8]) -> u64 {
    let mut hasher = Blake2s256::new();
    hasher.update([domain as u8]);
    hasher.update(bytes);
    u64::from_be_bytes(prefix(&hasher.finalize().into()))
}

fn prefix<const N: usize>(digest: &[u8; 32]) -> [u8; N] {
    const { assert!(N <= 32) };
    let mut out = [0; N];
    out.copy_from_slice(&digest[..N]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_never_change_between_versions() {
        // Computed with Python's hashlib: blake2s(b"\x01weather").hexdigest()[:16], and so on. If
        // one of these fails, every sealed id in the field has just become unknown.
        assert_eq!(NameHash::of("weather").get(), 0xbaf5_4ab7_4985_f4cd);
        assert_eq!(PrincipalHash::of(b"alice").0, 0x908a_6cdc_84cb_7e63);
        let (pool, endpoint) = (NameHash::from_u64(1), NameHash::from_u64(2));
        assert_eq!(
            session_digest(pool, endpoint, "abc"),
            0x5fb4_957d_6cd9_110d_dcac_4e4c_7b31_6c45
        );
    }

    #[test]
    fn an_authenticated_principal_is_never_the_anonymous_one() {
        for name in [&b""[..], b"0", b"anonymous"] {
            assert_ne!(PrincipalHash::of(name), PrincipalHash::ANONYMOUS);
        }
    }

    #[test]
    fn a_name_and_a_principal_of_the_same_bytes_hash_differently() {
        assert_ne!(NameHash::of("x").get(), PrincipalHash::of(b"x").0);
    }
}
