use super::*;

#[test]
fn advertised_names_are_labels_and_others_are_other() {
    let names = ToolNames::new();
    assert!(names.is_empty());
    assert_eq!(names.learn("weather", ["get_weather", "get_tide"]), 0);
    assert_eq!(names.label("get_weather").as_str(), "get_weather");
    assert_eq!(names.label("rm_rf"), ToolLabel::OTHER);
    assert_eq!(names.label(""), ToolLabel::OTHER);
    assert_eq!(names.len(), 2);
}

#[test]
fn learning_again_changes_nothing() {
    let names = ToolNames::new();
    names.learn("a", ["x", "x", "y"]);
    let before = names.label("x");
    assert_eq!(names.learn("b", ["x", "y"]), 0);
    assert_eq!(names.len(), 2);
    assert_eq!(names.label("x"), before);
}

#[test]
fn the_table_stops_at_its_cap() {
    let names = ToolNames::new();
    let many: Vec<String> = (0..3 * TOOL_NAMES_MAX)
        .map(|n| format!("tool_{n}"))
        .collect();
    let refused = names.learn("hostile", many.iter().map(String::as_str));
    assert_eq!(names.len(), TOOL_NAMES_MAX);
    assert_eq!(refused, 2 * TOOL_NAMES_MAX);
    assert_eq!(names.learn("late", ["newcomer"]), 1);
    assert_eq!(names.label("newcomer"), ToolLabel::OTHER);
    assert_eq!(names.label("tool_0").as_str(), "tool_0");
}

#[test]
fn unfit_names_are_refused() {
    let names = ToolNames::new();
    let long = "x".repeat(TOOL_NAME_BYTES_MAX + 1);
    assert_eq!(names.learn("p", ["", long.as_str(), "a\nb", "ok"]), 3);
    assert_eq!(names.len(), 1);
    assert_eq!(names.label(&long), ToolLabel::OTHER);
}

#[test]
fn readers_and_writers_do_not_lose_names() {
    let names = ToolNames::new();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let names = &names;
            scope.spawn(move || {
                for n in 0..50 {
                    let name = format!("t{thread}_{n}");
                    names.learn("p", [name.as_str()]);
                    assert_eq!(names.label(&name).as_str(), name);
                }
            });
        }
    });
    assert_eq!(names.len(), 200);
}

#[test]
fn any_status_falls_into_the_registered_set() {
    let labels: HashSet<u16> = (0..=u16::MAX).map(status_label).collect();
    assert!(labels.len() < 70, "{}", labels.len());
    for (status, label) in [
        (200, 200),
        (299, 200),
        (499, 499),
        (498, 400),
        (599, 500),
        (7, 500),
    ] {
        assert_eq!(status_label(status), label);
    }
}
