//! Where an MCP session lives.
//!
//! A client of the session era is given an id by the server that owns its session and shows that id
//! with every later request. A balancer that kept "id to endpoint" in a table would lose every
//! session with its table, and two balancers would have to share one. So the client gets an id of
//! ours instead: the server's own id and the endpoint's name, sealed with a key ([`id`], [`keys`]).
//! Whoever holds the key can serve the session, and nobody else can make an id up.
//!
//! Beside it stands a bounded [`table`] of the sessions that are known to be alive. It is there for
//! counting, draining, expiry and the status page; losing it loses no session.
//!
//! A client that lost its connection comes back for the events it has missed. Where the server gives
//! them no ids, they are lent some ([`event_id`]) and the last of a stream are kept ([`ring`]).
//!
//! This module knows nothing of HTTP, of pools and endpoints as objects (a name is a [`NameHash`]
//! here), nor of who a client is (a [`PrincipalHash`]). Only [`keys`] touches the file system and
//! the operating system's randomness.

pub mod event_id;
mod hash;
pub mod id;
pub mod keys;
pub mod ring;
pub mod table;

pub use event_id::{EventId, Place, Stamp, StreamOf};
pub use hash::{NameHash, PrincipalHash};
pub use id::{Claims, IdKind, IdTooLong, Keyring, KeyringError, Reason, SealingKey, Unknown};
pub use keys::{KeyError, Loaded, fresh_nonce, load_or_create};
pub use ring::{Budget, Ring, RingBounds, Share};
pub use table::{
    Cap, Caps, Key, Live, NewSession, Pulse, Refused, Revision, StreamGuard, Table, Touched,
};
