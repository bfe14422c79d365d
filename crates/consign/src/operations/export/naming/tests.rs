//! Names of delivered files.

use proptest::prelude::*;

use super::*;

fn targets(naming: &Naming, files: &[&str]) -> Vec<String> {
    naming.names(files.iter().copied()).unwrap().into_iter().map(|name| name.target).collect()
}

fn exact(pattern: &str, files: &[&str]) -> Vec<String> {
    targets(&Naming::Exact(pattern.to_owned()), files)
}

#[test]
fn exact_names_count_and_spell_percent_signs() {
    assert_eq!(exact("out/r-%d.pdf", &["a", "b", "c"]), ["out/r-1.pdf", "out/r-2.pdf", "out/r-3.pdf"]);
    assert_eq!(exact("%03d-%d", &["a", "b"]), ["001-1", "002-2"]);
    assert_eq!(exact("%010d", &["a"]), ["0000000001"]);
    assert_eq!(exact("100%%-%%d-%d", &["a"]), ["100%-%d-1"]);
    for literal in ["50% off", "%", "%x", "%5d", "%0d", "%00d", "%021d", "%0 3d", "%0+3d", "a%2Fb.pdf", "%é"] {
        assert_eq!(exact(literal, &["a"]), [literal]);
    }
    assert_eq!(exact("/äö//x", &["a"]), ["/äö//x"], "byte for byte");
}

#[test]
fn one_exact_name_for_several_files_is_refused() {
    for pattern in ["same.pdf", "100%%d", "%0d"] {
        let error = Naming::Exact(pattern.to_owned()).names(["a", "b"]).unwrap_err();
        assert_eq!(error.code, Code::NameConflict);
    }
}

#[test]
fn prefixes_are_taken_as_they_are_and_directories_joined() {
    let prefix = |text: &str| Naming::object(None, Some(text.to_owned()));
    assert_eq!(targets(&prefix("in%d/x-"), &["a.txt"]), ["in%d/x-a.txt"]);
    assert_eq!(targets(&prefix("in"), &["a.txt"]), ["ina.txt"]);
    let directory = |text: &str| Naming::file(None, Some(text.to_owned()));
    assert_eq!(targets(&directory("in"), &["a.txt"]), ["in/a.txt"]);
    assert_eq!(targets(&directory("in/"), &["a.txt"]), ["in/a.txt"]);
    assert_eq!(targets(&directory("/"), &["a.txt"]), ["/a.txt"]);
    assert_eq!(Naming::file(Some(String::new()), Some(String::new())), Naming::Own);
    assert_eq!(targets(&Naming::Own, &["a.txt"]), ["a.txt"]);
}

#[test]
fn equal_names_are_both_kept() {
    let files = ["a.txt", "a.txt", "a-2.txt", "a.txt", "b", "b", ".c", ".c", "x.tar.gz", "x.tar.gz"];
    let expected = ["a.txt", "a-3.txt", "a-2.txt", "a-4.txt", "b", "b-2", ".c", ".c-2", "x.tar.gz", "x.tar-2.gz"];
    assert_eq!(targets(&Naming::Own, &files), expected);
    let names = Naming::Prefix("p/".to_owned()).names(["a.txt", "a.txt"]).unwrap();
    assert_eq!(names[1], Name { target: "p/a-2.txt".into(), shown: "a-2.txt".into(), is_changed: true });
    assert!(!names[0].is_changed);
}

#[test]
fn the_shown_name_is_the_last_part() {
    let shown = |naming: &str| Naming::Exact(naming.to_owned()).names(["own.txt"]).unwrap().remove(0).shown;
    assert_eq!(shown("a/b.pdf"), "b.pdf");
    assert_eq!(shown("a/"), "own.txt");
}

#[test]
fn giving_both_is_a_fault_of_the_second() {
    let mut faults = Faults::default();
    check_either(&mut faults, ("key", Some("a")), ("key_prefix", Some("")));
    assert!(faults.is_empty());
    check_either(&mut faults, ("key", Some("a")), ("key_prefix", Some("b")));
    assert_eq!(faults.0["key_prefix"], ["Give key or key_prefix, not both."]);
}

proptest! {
    #[test]
    fn names_are_distinct_and_stay_behind_the_prefix(
        files in prop::collection::vec(r"[ab./\\\x00-]{0,6}|[a.]{254,256}", 0..12),
        prefix in "[a-z/.%d]{0,6}",
    ) {
        let naming = Naming::Prefix(prefix.clone());
        let names = naming.names(files.iter().map(String::as_str)).unwrap();
        prop_assert_eq!(names.len(), files.len());
        let mut seen = HashSet::new();
        for name in names {
            prop_assert!(seen.insert(name.target.clone()), "{} twice", name.target);
            let own = name.target.strip_prefix(&prefix).unwrap();
            prop_assert!(!own.is_empty() && own != "." && own != ".." && own.len() <= 255);
            prop_assert!(!own.contains(['/', '\\', '\0']));
        }
    }

    #[test]
    fn a_number_makes_exact_names_distinct(start in "[a%0-9d]{0,8}", count in 2_usize..30) {
        let files = vec!["f"; count];
        if let Ok(names) = Naming::Exact(format!("{start}%d")).names(files) {
            let seen: HashSet<_> = names.iter().map(|name| &name.target).collect();
            prop_assert_eq!(seen.len(), count);
        }
    }
}
