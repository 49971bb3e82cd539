//! One configuration out of several files.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::super::{Config, Problems, load};

const MAIN: &str = "\
listeners: [{ bind: 127.0.0.1:80 }]
include: [conf.d/*.yaml]
routes: [{ path: /main, pool: main }]
pools: { main: { endpoints: [127.0.0.1:9001] } }
";

/// A directory with these files.
fn dir(files: &[(&str, &str)]) -> TempDir {
    let dir = TempDir::new().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

fn loaded(dir: &TempDir) -> Result<Config, Problems> {
    load(&dir.path().join("main.yaml"))
}

fn pool(name: &str, port: u16) -> String {
    format!(
        "routes:\n  - path: /{name}\n    pool: {name}\npools:\n  {name}:\n    endpoints: [127.0.0.1:{port}]\n"
    )
}

/// File, line and column of each problem, with its message.
fn places(problems: &Problems, dir: &TempDir) -> Vec<(String, usize, usize, String)> {
    let place = |problem: &super::Problem| {
        let file = Path::new(&problem.file).strip_prefix(dir.path());
        let file = file.unwrap().display().to_string();
        (file, problem.line, problem.column, problem.message.clone())
    };
    problems.as_slice().iter().map(place).collect()
}

/// The only problem, which stands there and says this.
fn check(files: &[(&str, &str)], file: &str, place: (usize, usize), says: &str) {
    let dir = dir(files);
    let problems = loaded(&dir).expect_err("it is wrong");
    let found = places(&problems, &dir);
    let one = &found[0];
    assert_eq!(found.len(), 1, "{problems}");
    assert_eq!(
        (one.0.as_str(), one.1, one.2),
        (file, place.0, place.1),
        "{problems}"
    );
    assert!(one.3.contains(says), "{problems}");
    assert!(problems.to_string().contains('^'), "{problems}");
}

#[test]
fn files_are_joined_in_the_order_of_their_names_behind_the_one_that_includes_them() {
    let (a, b) = (pool("a", 9002), pool("b", 9003));
    let more = "listeners:\n  - bind: 127.0.0.1:81\n";
    let dir = dir(&[
        ("main.yaml", MAIN),
        ("conf.d/20-b.yaml", &b),
        ("conf.d/10-a.yaml", &a),
        ("conf.d/30-more.yaml", more),
        ("conf.d/40-nothing.yaml", "# nothing yet\n"),
        (
            "conf.d/50-emptied.yaml",
            "routes:\n  # - path: /x\npools:\n",
        ),
        ("conf.d/.hidden.yaml", "no: thing"),
        ("conf.d/notes.txt", "no: thing"),
    ]);
    let config = loaded(&dir).unwrap();
    let pools: Vec<&str> = config.pools.iter().map(|pool| &*pool.name).collect();
    assert_eq!(pools, ["main", "a", "b"]);
    let binds: Vec<String> = config
        .listeners
        .iter()
        .map(|one| one.bind.to_string())
        .collect();
    assert_eq!(binds, ["127.0.0.1:80", "127.0.0.1:81"]);
    let routed: Vec<_> = config
        .routes
        .iter()
        .map(|route| route.pool().unwrap().0)
        .collect();
    assert_eq!(routed, [0, 1, 2]);
    let names: Vec<_> = config
        .files
        .iter()
        .map(|file| file.file_name().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "main.yaml",
            "10-a.yaml",
            "20-b.yaml",
            "30-more.yaml",
            "40-nothing.yaml",
            "50-emptied.yaml"
        ]
    );
    assert_eq!(
        config.effective["pools"]["b"]["endpoints"][0],
        "127.0.0.1:9003"
    );
}

#[test]
fn a_pattern_that_matches_nothing_is_no_mistake_and_a_missing_name_is() {
    assert!(loaded(&dir(&[("main.yaml", MAIN)])).is_ok());
    let main = MAIN.replace("conf.d/*.yaml", "conf.d/a.yaml");
    check(
        &[("main.yaml", &main)],
        "main.yaml",
        (2, 11),
        "conf.d/a.yaml` cannot be read: No such file",
    );
}

#[test]
fn the_main_file_may_leave_routes_and_pools_to_others_and_a_file_is_read_once() {
    let main = "listeners: [{ bind: 127.0.0.1:80 }]\ninclude: ['a.yaml', '*.yaml', './a.y?ml']\n";
    let dir = dir(&[("main.yaml", main), ("a.yaml", &pool("a", 9001))]);
    let config = loaded(&dir).unwrap();
    assert_eq!((config.files.len(), config.pools.len()), (2, 1));
}

#[test]
fn what_is_wrong_in_an_included_file_is_shown_there() {
    let a = pool("a", 9002).replace("pool: a", "pool: amy");
    check(
        &[("main.yaml", MAIN), ("conf.d/a.yaml", &a)],
        "conf.d/a.yaml",
        (3, 11),
        "no pool `amy`",
    );
    let broken = "routes: [\n";
    check(
        &[("main.yaml", MAIN), ("conf.d/a.yaml", broken)],
        "conf.d/a.yaml",
        (1, 9),
        "not closed",
    );
    check(
        &[("main.yaml", MAIN), ("conf.d/a.yaml", "- a\n")],
        "conf.d/a.yaml",
        (1, 3),
        "must be a map",
    );
    let wrong = "pools: [a]\n";
    check(
        &[("main.yaml", MAIN), ("conf.d/a.yaml", wrong)],
        "conf.d/a.yaml",
        (1, 8),
        "map from names",
    );
    let wrong = "routes: a\n";
    check(
        &[("main.yaml", MAIN), ("conf.d/a.yaml", wrong)],
        "conf.d/a.yaml",
        (1, 9),
        "takes a list",
    );
}

#[test]
fn what_is_there_twice_names_both_places() {
    let again = pool("main", 9002).replace("/main", "/again");
    let files = [("main.yaml", MAIN), ("conf.d/a.yaml", &again)];
    check(
        &files,
        "conf.d/a.yaml",
        (5, 3),
        "the pool `main` is here twice; the first is on line 4 of",
    );
    let (a, b) = (pool("a", 9002), pool("a", 9003).replace("/a", "/b"));
    let files = [
        ("main.yaml", MAIN),
        ("conf.d/a.yaml", &a),
        ("conf.d/b.yaml", &b),
    ];
    check(&files, "conf.d/b.yaml", (5, 3), "conf.d/a.yaml");
    let bind = "listeners:\n  - bind: 127.0.0.1:80\n";
    let files = [("main.yaml", MAIN), ("conf.d/a.yaml", bind)];
    check(&files, "conf.d/a.yaml", (2, 11), "main.yaml accepts on");
}

#[test]
fn what_is_said_once_for_the_process_stands_in_the_main_file() {
    for (key, says) in [
        ("threads: 2", "`threads` cannot stand in an included file"),
        ("admin: off", "`admin` cannot stand in an included file"),
        ("include: [x.yaml]", "includes nothing itself"),
        ("rutes: []", "did you mean `routes`?"),
    ] {
        check(
            &[("main.yaml", MAIN), ("conf.d/a.yaml", key)],
            "conf.d/a.yaml",
            (1, 1),
            says,
        );
    }
}

#[test]
fn a_pattern_that_cannot_be_followed_is_shown() {
    for (pattern, says) in [
        ("'**/*.yaml'", "`**`"),
        ("'a[.yaml'", "is no pattern"),
        ("''", "missing"),
    ] {
        let main = MAIN.replace("conf.d/*.yaml", pattern);
        check(&[("main.yaml", &main)], "main.yaml", (2, 11), says);
    }
    let main = MAIN.replace("[conf.d/*.yaml]", "conf.d/*.yaml");
    check(
        &[("main.yaml", &main)],
        "main.yaml",
        (2, 10),
        "takes a list",
    );
}

#[test]
fn problems_of_several_files_stand_in_the_order_of_the_files() {
    let (a, b) = (pool("a", 9002), pool("b", 9003));
    let wrong = |text: &str| text.replace("127.0.0.1:", "127.0.0.1");
    let files = [
        ("main.yaml", &*wrong(MAIN)),
        ("conf.d/b.yaml", &wrong(&b)),
        ("conf.d/a.yaml", &wrong(&a)),
    ];
    let dir = dir(&files);
    let problems = loaded(&dir).expect_err("it is wrong");
    let found = places(&problems, &dir);
    let found: Vec<_> = found.iter().map(|place| (&*place.0, place.1)).collect();
    let expected = [
        ("main.yaml", 1),
        ("main.yaml", 4),
        ("conf.d/a.yaml", 6),
        ("conf.d/b.yaml", 6),
    ];
    assert_eq!(found, expected, "{problems}");
    assert!(
        problems
            .to_string()
            .ends_with("4 problems in 3 files; nothing was started")
    );
}

#[test]
fn all_files_of_a_directory_are_one_configuration() {
    let files = [
        (
            "10-main.yaml",
            "listeners: [{ bind: 127.0.0.1:80 }]\nthreads: 2\n",
        ),
        ("20-a.yaml", &*pool("a", 9001)),
        ("30-more.yaml", "include: [more/*]\n"),
        ("more/b", &pool("b", 9002)),
        ("readme.md", "# no: YAML"),
    ];
    let whole = dir(&files);
    let config = load(whole.path()).unwrap();
    assert_eq!((config.pools.len(), config.threads.unwrap().get()), (2, 2));
    fs::write(whole.path().join("40-again.yaml"), "threads: 3\n").unwrap();
    let problems = load(whole.path()).expect_err("it is wrong");
    let found = places(&problems, &whole);
    assert_eq!(
        (&*found[0].0, found[0].1),
        ("40-again.yaml", 1),
        "{problems}"
    );
    assert!(
        found[0].3.contains("line 2 of") && found[0].3.contains("10-main.yaml"),
        "{problems}"
    );
    let problems = load(dir(&[]).path()).expect_err("it is empty");
    assert!(
        problems.to_string().contains("no file *.yaml"),
        "{problems}"
    );
}
