use proptest::prelude::*;

use super::*;

const UUID: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";

fn keyring(seeds: &[u8]) -> Keyring {
    let key = |seed: &u8| SealingKey::from_bytes([*seed; 32]);
    Keyring::new(seeds.iter().map(key).collect()).expect("a ring of different keys")
}

fn claims(kind: IdKind, server_id: &str) -> Claims {
    Claims {
        kind,
        pool: NameHash::of("weather"),
        endpoint: NameHash::of("w1"),
        server_id: server_id.into(),
        minted_at: 1_790_000_000,
        principal: PrincipalHash::of(b"alice"),
    }
}

fn sealed(ring: &Keyring, claims: &Claims) -> String {
    ring.seal(claims, [7; NONCE_LEN])
        .expect("a server id of allowed length")
}

fn reason(ring: &Keyring, text: &[u8], kind: IdKind) -> Option<Reason> {
    ring.open(text, kind).err().map(|unknown| unknown.reason)
}

#[test]
fn an_id_is_short_and_of_visible_ascii() {
    let ring = keyring(&[1]);
    let hex = UUID.replace('-', "");
    for (server_id, len) in [
        (UUID, 126),
        (&hex, 126),
        ("", 104),
        (&UUID.to_uppercase(), 152),
    ] {
        let id = sealed(&ring, &claims(IdKind::Session, server_id));
        assert_eq!(id.len(), len, "{server_id}");
        assert!(id.starts_with('T') && id.bytes().all(|byte| byte.is_ascii_graphic()));
    }
}

#[test]
fn the_format_never_changes_under_ids_in_the_field() {
    let id = sealed(&keyring(&[1]), &claims(IdKind::Session, UUID));
    assert_eq!(
        id,
        "TEQfGEQHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwecln2iCoPNgMcgC5aU8EDUtzwbB8_w4nWe\
         X7ydivoURtQNb_rpCETMB2YellkbOqnMr610j8MRf8Hctoke2modNQ"
    );
}

#[test]
fn every_shape_of_server_id_comes_back_as_it_was() {
    let ring = keyring(&[1]);
    let shapes = [
        UUID.to_owned(),
        UUID.to_uppercase(),
        UUID.replace('-', ""),
        UUID.replace('-', "").to_uppercase(),
        UUID.replace("-a165-", "-A165-"),
        UUID.replace('-', "_"),
        UUID.replacen('0', "g", 1),
        "0f8fad5bd-9cb-469f-a165-70867728950e".to_owned(),
        "é".repeat(18),
        "é".repeat(16),
        "0".repeat(32),
        String::new(),
        "s".repeat(SERVER_ID_MAX),
    ];
    for server_id in shapes {
        let claims = claims(IdKind::Session, &server_id);
        assert_eq!(
            ring.open(sealed(&ring, &claims).as_bytes(), IdKind::Session),
            Ok(claims)
        );
    }
}

#[test]
fn a_server_id_of_greatest_length_fits_and_a_longer_one_is_refused() {
    let ring = keyring(&[1]);
    for kind in [IdKind::Session, IdKind::Sse] {
        let max = kind.server_id_max();
        let full = claims(kind, &"/".repeat(max));
        let id = sealed(&ring, &full);
        assert_eq!(id.len(), kind.text_max());
        assert_eq!(ring.open(id.as_bytes(), kind), Ok(full));

        let over = claims(kind, &"/".repeat(max + 1));
        assert_eq!(
            ring.seal(&over, [7; NONCE_LEN]),
            Err(IdTooLong { len: max + 1, max })
        );
        assert_eq!(
            reason(&ring, format!("{id}A").as_bytes(), kind),
            Some(Reason::Malformed)
        );
    }
}

#[test]
fn an_id_of_one_kind_cannot_serve_as_the_other() {
    let ring = keyring(&[1]);
    let session = sealed(&ring, &claims(IdKind::Session, UUID));
    let sse = sealed(&ring, &claims(IdKind::Sse, UUID));
    assert_eq!(
        reason(&ring, session.as_bytes(), IdKind::Sse),
        Some(Reason::WrongKind)
    );
    assert_eq!(
        reason(&ring, sse.as_bytes(), IdKind::Session),
        Some(Reason::WrongKind)
    );

    // Not even if the mark is rewritten.
    let mut bytes = URL_SAFE_NO_PAD.decode(&sse).expect("an id is base64url");
    bytes[0] = IdKind::Session.mark();
    let rewritten = URL_SAFE_NO_PAD.encode(bytes);
    assert_eq!(
        reason(&ring, rewritten.as_bytes(), IdKind::Session),
        Some(Reason::Forged)
    );
}

#[test]
fn an_old_key_opens_and_the_first_key_seals() {
    let (old, rotated, done) = (keyring(&[1]), keyring(&[2, 1]), keyring(&[2]));
    let claims = claims(IdKind::Session, UUID);
    let before = sealed(&old, &claims);
    let after = sealed(&rotated, &claims);
    let open = |ring: &Keyring, id: &str| ring.open(id.as_bytes(), IdKind::Session);
    assert_eq!(open(&rotated, &before), Ok(claims.clone()));
    assert_eq!(open(&rotated, &after), Ok(claims.clone()));
    assert_eq!(open(&done, &after), Ok(claims));
    assert_eq!(
        reason(&old, after.as_bytes(), IdKind::Session),
        Some(Reason::UnknownKey)
    );
    assert_eq!(
        reason(&done, before.as_bytes(), IdKind::Session),
        Some(Reason::UnknownKey)
    );
}

#[test]
fn keys_that_share_an_id_are_both_tried() {
    let mut ring = keyring(&[1, 2]);
    let id = sealed(&keyring(&[2]), &claims(IdKind::Session, UUID));
    let mut bytes = URL_SAFE_NO_PAD.decode(id).expect("an id is base64url");
    // The key id is associated data, so a collision has to be made before sealing.
    ring.slots[0].key_id = ring.slots[1].key_id;
    assert!(ring.unseal(&mut bytes, IdKind::Session).is_ok());
}

#[test]
fn a_ring_holds_one_to_sixteen_different_keys() {
    let build = |seeds: Vec<u8>| {
        Keyring::new(
            seeds
                .into_iter()
                .map(|seed| SealingKey::from_bytes([seed; 32]))
                .collect(),
        )
        .map(|ring| ring.len())
    };
    assert_eq!(build(vec![]), Err(KeyringError::Empty));
    assert_eq!(build((0..16).collect()), Ok(16));
    assert_eq!(build((0..17).collect()), Err(KeyringError::TooMany(17)));
    assert_eq!(build(vec![1, 2, 1]), Err(KeyringError::Duplicate(0, 2)));
}

#[test]
fn secrets_do_not_show_in_debug_output() {
    let key = SealingKey::from_bytes([0xab; 32]);
    assert_eq!(format!("{key:?}"), "SealingKey(..)");
    assert_eq!(format!("{:?}", keyring(&[0xab])), "Keyring(1 keys)");
}

#[test]
fn ids_of_servers_are_malformed() {
    let ring = keyring(&[1]);
    for text in [
        UUID,
        "",
        "T",
        "deadbeef",
        "AAAA",
        "%00",
        "a b",
        "\u{1F600}",
        &"T".repeat(126),
    ] {
        let reason = reason(&ring, text.as_bytes(), IdKind::Session);
        let junk_of_our_shape = text.len() == 126;
        assert!(
            reason == Some(Reason::Malformed) || junk_of_our_shape,
            "{text}: {reason:?}"
        );
        assert!(reason.is_some());
    }
}

fn any_claims() -> impl Strategy<Value = Claims> {
    let server_id = prop_oneof![
        "[0-9a-f]{32}",
        "[!-~]{0,512}",
        "\\PC{0,100}",
        Just(UUID.to_owned())
    ];
    let kind = prop_oneof![Just(IdKind::Session), Just(IdKind::Sse)];
    (kind, any::<[u64; 4]>(), server_id).prop_map(|(kind, [a, b, c, d], server_id)| Claims {
        kind,
        pool: NameHash::from_u64(a),
        endpoint: NameHash::from_u64(b),
        server_id: server_id.into(),
        minted_at: c,
        principal: PrincipalHash(d),
    })
}

proptest! {
    #[test]
    fn what_was_sealed_opens(claims in any_claims(), nonce: [u8; NONCE_LEN], key: [u8; 32]) {
        let ring = Keyring::new(vec![SealingKey::from_bytes(key)]).expect("one key");
        let id = ring.seal(&claims, nonce).expect("a server id of allowed length");
        prop_assert_eq!(ring.open(id.as_bytes(), claims.kind), Ok(claims));
    }

    #[test]
    fn a_changed_text_is_refused(
        claims in any_claims(),
        at: prop::sample::Index,
        other in 0x21u8..0x7f,
    ) {
        let ring = keyring(&[1]);
        let mut text = sealed(&ring, &claims).into_bytes();
        let at = at.index(text.len());
        prop_assume!(text[at] != other);
        text[at] = other;
        prop_assert!(ring.open(&text, claims.kind).is_err());
    }

    #[test]
    fn a_flipped_bit_is_refused(claims in any_claims(), bit: prop::sample::Index) {
        let ring = keyring(&[1, 2]);
        let mut bytes = URL_SAFE_NO_PAD.decode(sealed(&ring, &claims)).expect("base64url");
        let bit = bit.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        let text = URL_SAFE_NO_PAD.encode(bytes);
        prop_assert!(ring.open(text.as_bytes(), claims.kind).is_err());
    }

    #[test]
    fn a_cut_or_lengthened_text_is_refused(
        claims in any_claims(),
        keep: prop::sample::Index,
        tail in "[A-Za-z0-9_=-]{1,9}",
    ) {
        let ring = keyring(&[1]);
        let text = sealed(&ring, &claims);
        let cut = &text[..keep.index(text.len())];
        prop_assert!(ring.open(cut.as_bytes(), claims.kind).is_err());
        prop_assert!(ring.open((text + &tail).as_bytes(), claims.kind).is_err());
    }

    #[test]
    fn another_ring_refuses(claims in any_claims(), nonce: [u8; NONCE_LEN]) {
        let text = keyring(&[1]).seal(&claims, nonce).expect("a server id of allowed length");
        let reason = reason(&keyring(&[2, 3]), text.as_bytes(), claims.kind);
        prop_assert_eq!(reason, Some(Reason::UnknownKey));
    }

    #[test]
    fn garbage_is_refused_without_a_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..4000),
    ) {
        let ring = keyring(&[1]);
        for kind in [IdKind::Session, IdKind::Sse] {
            prop_assert!(ring.open(&bytes, kind).is_err());
            prop_assert!(ring.open(URL_SAFE_NO_PAD.encode(&bytes).as_bytes(), kind).is_err());
        }
    }

    #[test]
    fn garbage_behind_a_known_key_id_is_forged(
        mut bytes in proptest::collection::vec(any::<u8>(), OVERHEAD..OVERHEAD + SERVER_ID_MAX),
    ) {
        let ring = keyring(&[1]);
        bytes[0] = IdKind::Session.mark();
        bytes[1..HEADER_LEN].copy_from_slice(&ring.slots[0].key_id);
        let text = URL_SAFE_NO_PAD.encode(&bytes);
        prop_assert_eq!(reason(&ring, text.as_bytes(), IdKind::Session), Some(Reason::Forged));
    }

    #[test]
    fn hex_keys_come_back(key: [u8; 32]) {
        let key = SealingKey::from_bytes(key);
        let hex = key.to_hex();
        prop_assert_eq!(SealingKey::from_hex(&hex.as_bytes()[1..]), None);
        prop_assert_eq!(SealingKey::from_hex(hex.to_uppercase().as_bytes()), Some(key.clone()));
        prop_assert_eq!(SealingKey::from_hex(hex.as_bytes()), Some(key));
    }
}
