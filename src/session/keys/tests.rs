use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Barrier;

use tempfile::TempDir;

use super::*;
use crate::session::{Claims, IdKind, NameHash, PrincipalHash};

const HEX: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

fn directory() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("the file is there").mode() & 0o7777
}

fn key_file(directory: &TempDir, name: &str, text: &str, mode: u32) -> PathBuf {
    let path = directory.path().join(name);
    fs::write(&path, text).expect("the directory is writable");
    fs::set_permissions(&path, Permissions::from_mode(mode)).expect("the file is ours");
    path
}

fn load(files: &[PathBuf]) -> Result<Loaded, KeyError> {
    load_or_create(files, Path::new("/nonexistent/and/not/needed"))
}

fn claims() -> Claims {
    Claims {
        kind: IdKind::Session,
        pool: NameHash::of("weather"),
        endpoint: NameHash::of("w1"),
        server_id: "abc".into(),
        minted_at: 1,
        principal: PrincipalHash::ANONYMOUS,
    }
}

fn opens(ring: &Keyring, id: &str) -> bool {
    ring.open(id.as_bytes(), IdKind::Session) == Ok(claims())
}

#[test]
fn a_missing_key_is_made_once_and_found_again() {
    let directory = directory();
    let state = directory.path().join("state/tidegate");
    let first = load_or_create(&[], &state).expect("a key is made");
    assert_eq!(first.warnings, [""; 0]);
    assert_eq!((mode(&state), mode(&state.join(KEY_FILE))), (0o700, 0o600));

    let id = first
        .keyring
        .seal(&claims(), fresh_nonce())
        .expect("a short id");
    let again = load_or_create(&[], &state).expect("the key is read");
    assert!(opens(&again.keyring, &id));

    let names: Vec<_> = fs::read_dir(&state)
        .expect("listed")
        .map(|e| e.expect("entry").file_name())
        .collect();
    assert_eq!(names, [KEY_FILE], "no draft stays behind");
    let text = fs::read_to_string(state.join(KEY_FILE)).expect("read");
    assert!(text.len() == 65 && text.ends_with('\n'));
}

#[test]
fn processes_that_start_together_agree_on_one_key() {
    let directory = directory();
    let state = directory.path().join("state");
    let barrier = Barrier::new(8);
    let rings: Vec<Keyring> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    load_or_create(&[], &state)
                        .expect("a key is made or read")
                        .keyring
                })
            })
            .collect();
        starts
            .into_iter()
            .map(|start| start.join().expect("no panic"))
            .collect()
    });
    let id = rings[0].seal(&claims(), fresh_nonce()).expect("a short id");
    assert!(rings.iter().all(|ring| opens(ring, &id)));
}

#[test]
fn an_existing_key_is_never_replaced() {
    let directory = directory();
    let path = key_file(&directory, KEY_FILE, "broken", 0o600);
    assert!(load_or_create(&[], directory.path()).is_err());
    assert_eq!(fs::read_to_string(path).expect("read"), "broken");
}

#[test]
fn the_first_file_seals_and_all_open() {
    let directory = directory();
    let old = key_file(&directory, "old", &format!("{HEX}\n"), 0o600);
    let new = key_file(&directory, "new", &HEX.replace('0', "A"), 0o640);
    let before = load(std::slice::from_ref(&old)).expect("one key").keyring;
    let Loaded { keyring, warnings } = load(&[new.clone(), old.clone()]).expect("two keys");
    assert_eq!((keyring.len(), warnings.len()), (2, 0));

    let id = before.seal(&claims(), fresh_nonce()).expect("a short id");
    assert!(opens(&keyring, &id));
    let id = keyring.seal(&claims(), fresh_nonce()).expect("a short id");
    assert!(opens(&load(&[new]).expect("one key").keyring, &id));
    assert!(!opens(&before, &id));
    assert!(matches!(load(&[old.clone(), old]), Err(KeyError::Ring(_))));
}

#[test]
fn a_file_that_is_no_key_is_refused_with_advice() {
    let directory = directory();
    let cases = [
        ("", "is empty"),
        ("\n", "is empty"),
        (&HEX[1..], "is too short"),
        (&format!("{HEX}0\n"), "is too long"),
        (&"x".repeat(5000), "is too long"),
        (&"0".repeat(64), "is one digit repeated"),
        (
            &HEX.replace('0', "g"),
            "holds something else than hex digits",
        ),
        (&format!("{HEX} # the key"), "is too long"),
    ];
    for (text, problem) in cases {
        let path = key_file(&directory, "key", text, 0o600);
        let error = load(&[path]).expect_err("not a key").to_string();
        assert!(
            error.contains(problem) && error.contains("openssl rand -hex 32"),
            "{error}"
        );
        assert!(
            !error.contains(&HEX[..8]),
            "a message never holds a part of a key"
        );
    }
}

#[test]
fn what_cannot_be_read_is_named() {
    let directory = directory();
    let missing = directory.path().join("missing");
    let error = load(std::slice::from_ref(&missing)).expect_err("there is no such file");
    assert!(matches!(error, KeyError::Unreadable { .. }));
    assert!(error.to_string().contains(&missing.display().to_string()));
    let error = load(&[directory.path().to_owned()]).expect_err("a directory is no file");
    assert!(error.to_string().contains("is not a regular file"));
}

#[test]
fn a_key_that_others_can_write_is_refused() {
    let directory = directory();
    for mode in [0o620, 0o602, 0o666] {
        let path = key_file(&directory, "key", HEX, mode);
        let error = load(&[path]).expect_err("others could forge sessions");
        assert!(matches!(error, KeyError::Writable { mode: found, .. } if found == mode));
        assert!(error.to_string().contains("chmod go-w"));
    }
}

#[test]
fn a_key_that_everyone_can_read_is_worth_a_warning() {
    let directory = directory();
    for (mode, warnings) in [(0o644, 1), (0o640, 0), (0o400, 0)] {
        let path = key_file(&directory, "key", HEX, mode);
        assert_eq!(
            load(std::slice::from_ref(&path))
                .expect("a key")
                .warnings
                .len(),
            warnings,
            "{mode:o}"
        );
        fs::remove_file(path).expect("the file is ours");
    }
}

#[test]
fn a_state_directory_that_others_can_write_is_worth_a_warning() {
    let directory = directory();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).expect("ours");
    let loaded = load_or_create(&[], directory.path()).expect("a key is made");
    assert!(
        loaded.warnings[0].contains("state directory"),
        "{:?}",
        loaded.warnings
    );
}

#[test]
fn a_state_directory_that_cannot_be_made_is_an_error_with_advice() {
    let directory = directory();
    let file = key_file(&directory, "file", "", 0o600);
    let error = load_or_create(&[], &file.join("state")).expect_err("a file holds no directory");
    assert!(error.to_string().contains("sessions.key_files"), "{error}");
}
