//! A target that is changed while the log is in use, as a reload does.

use std::fs;

use super::*;

fn named(id: &'static str) -> Entry<'static> {
    Entry {
        request_id: id,
        ..entry()
    }
}

#[test]
fn lines_go_to_the_new_target_and_none_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let [old, new] = ["old.log", "new.log"].map(|name| directory.path().join(name));
    let log = AccessLog::start(&LogTarget::File(old.clone())).unwrap();
    log.log(&LogFormat::Json, &named("before"));
    log.change(&LogTarget::File(new.clone())).unwrap();
    assert!(log.flush(SOON));
    log.log(&LogFormat::Json, &named("after"));
    assert!(log.flush(SOON));
    assert_eq!(request_ids(&old), ["before"]);
    assert_eq!(request_ids(&new), ["after"]);
    assert_eq!(log.dropped(), 0);
}

#[test]
fn a_target_that_cannot_be_opened_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let log = AccessLog::start(&LogTarget::File(path.clone())).unwrap();
    let missing = directory.path().join("missing/access.log");
    assert!(log.change(&LogTarget::File(missing)).is_err());
    log.log(&LogFormat::Json, &named("still"));
    assert!(log.flush(SOON));
    assert_eq!(request_ids(&path), ["still"]);
}

#[test]
fn a_log_can_be_turned_on_and_off() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let log = AccessLog::start(&LogTarget::Off).unwrap();
    let clone = log.clone();
    clone.log(&LogFormat::Json, &named("nowhere"));
    log.change(&LogTarget::File(path.clone())).unwrap();
    assert!(clone.is_on());
    clone.log(&LogFormat::Json, &named("on"));
    log.change(&LogTarget::Off).unwrap();
    assert!(!clone.is_on());
    clone.log(&LogFormat::Json, &named("off"));
    assert!(log.flush(SOON));
    assert_eq!(request_ids(&path), ["on"]);
    log.change(&LogTarget::File(path.clone())).unwrap();
    clone.log(&LogFormat::Json, &named("again"));
    assert!(log.flush(SOON));
    let lines = fs::read_to_string(&path).unwrap();
    assert_eq!(lines.lines().count(), 2);
}
