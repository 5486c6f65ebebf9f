//! The manual is whole: its pages are without fault, every option has its place, and what it says of tests is true.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use postern_tests::kind::bin_dir;

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn page(name: &str) -> String {
    fs::read_to_string(top().join("man").join(name)).unwrap()
}

/// The long options that a program tells of.
fn told(program: &str, command: &[&str]) -> BTreeSet<String> {
    let output = Command::new(bin_dir().join(program)).args(command).arg("--help").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let options = text.lines().filter_map(|line| line.trim_start().trim_start_matches("-h, ").strip_prefix("--"));
    let name = |option: &str| option.split([' ', '=', '[', '.']).next().unwrap().to_owned();
    options.map(name).filter(|name| name != "help").collect()
}

/// The long options that have a place of their own in a page.
fn placed(page: &str) -> BTreeSet<String> {
    let items = page.lines().filter_map(|line| line.strip_prefix(".It "));
    let words = items.flat_map(|item| item.split(" Fl -").skip(1).chain(item.strip_prefix("Fl -")).collect::<Vec<_>>());
    words.map(|words| words.split([' ', ',']).next().unwrap().replace("\\-", "-")).collect()
}

// mandoc(1): -T lint
#[test]
fn every_page_is_without_fault() {
    let pages = fs::read_dir(top().join("man")).unwrap().map(|page| page.unwrap().path());
    let output = Command::new("mandoc").args(["-Tlint", "-Wwarning"]).args(pages).output().expect("mandoc");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn every_option_has_its_place_and_there_is_no_other() {
    let server = ["virtiofs", "9p", "proxy"].map(|frontend| told("postern-server", &[frontend]));
    let programs = [
        ("postern-server.1", server.into_iter().flatten().collect()),
        ("postern-helper.8", told("postern-helper", &[])),
    ];
    for (name, told) in programs {
        let told: BTreeSet<String> = told;
        let placed = placed(&page(name));
        assert!(told.len() > 10, "{told:?}");
        assert_eq!(told.difference(&placed).collect::<Vec<_>>(), Vec::<&String>::new(), "not in {name}");
        assert_eq!(placed.difference(&told).collect::<Vec<_>>(), Vec::<&String>::new(), "only in {name}");
    }
}

/// postern-security(7): each of its rows names a test, which there is.
#[test]
fn every_row_of_the_manual_names_a_test() {
    let page = page("postern-security.7");
    let mut left = ["tests/tests", "helper", "ipc/src", "policy", "server/src"].map(|dir| top().join(dir)).to_vec();
    let mut source = String::new();
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|end| end == "rs") {
            source += &fs::read_to_string(path).unwrap();
        }
    }
    let named: Vec<_> = page.lines().filter_map(|line| line.strip_prefix(".Li ")).collect();
    assert!(named.len() > 30, "{}", named.len());
    for name in named {
        assert!(source.contains(&format!("fn {name}(")), "{name}");
    }
    // Each fault that has a number has a test of that number.
    let headings = page.split("\n.Ss ").skip(1).map(|row| row.split_once('\n').unwrap());
    for (heading, row) in headings {
        for number in heading.split(['(', ')', ',', ' ']).filter(|word| word.starts_with("CVE-")) {
            assert!(row.contains(&number.to_lowercase().replace('-', "_")), "{number}");
        }
    }
}
