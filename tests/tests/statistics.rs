//! `--stats-socket` and `postern stat`: what a server does, told to whoever started it.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use postern_tests::kind::bin_dir;
use postern_tests::prelude::*;
use postern_tests::proxy::{Helper, Proxy};
use postern_tests::share::Scratch;
use postern_tests::stream::{Client, listen};
use tempfile::TempDir;

/// A directory in which the server may listen, whoever it is.
fn place() -> (TempDir, PathBuf) {
    let dir = TempDir::new_in("/var/tmp").unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let socket = dir.path().join("stat");
    (dir, socket)
}

fn stat(socket: &Path, more: &[&str]) -> Output {
    Command::new(bin_dir().join("postern")).arg("stat").arg(socket).args(more).output().unwrap()
}

/// The table since the server's start: its first line, and of each operation how many there were and how many failed.
fn table(socket: &Path) -> (String, Vec<(String, u64, u64)>) {
    let output = stat(socket, &["--once"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let row = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        (words[0].to_owned(), words[1].parse().unwrap(), words[3].parse().unwrap())
    };
    let mut rows: Vec<_> = text.lines().skip(2).map(row).collect();
    rows.sort();
    (text.lines().next().unwrap().to_owned(), rows)
}

fn counts(rows: &[(String, u64, u64)], name: &str) -> (u64, u64) {
    rows.iter().find(|row| row.0 == name).map_or((0, 0), |row| (row.1, row.2))
}

// postern(1): stat: "how many there were, how many of them failed"
#[apply(promise)]
fn every_request_of_a_guest_is_counted_once(on: Kind) {
    let (_dir, socket) = place();
    let share = on.setup().arg(&format!("--stats-socket={}", socket.display())).serve();
    for n in 0..7 {
        share.mkdir(format!("d{n}").as_str(), 0o755).unwrap();
        assert_eq!(share.lookup("none").map(|e| e.nodeid), Err(ENOENT));
    }
    let file = share.create("f", O_RDWR, 0o644).unwrap();
    share.write(&file, 0, b"hello").unwrap();
    assert_eq!(share.read(&file, 0, 9).unwrap(), b"hello");
    let (first, rows) = table(&socket);
    let counted = ["mkdir", "lookup", "create", "write", "read", "init"].map(|name| counts(&rows, name));
    assert_eq!(counted, [(7, 0), (7, 7), (1, 0), (1, 0), (1, 0), (1, 0)], "{rows:?}");
    assert!(first.contains("; the helper was asked 8 times") && first.contains("; workers slept "), "{first}");
    share.server.assert_contained();
}

// postern-server(1): --poll-us: "with 0 they never do"
#[apply(promise)]
fn who_is_not_to_look_sleeps(on: Kind) {
    let (_dir, socket) = place();
    let share = on.setup().arg("--poll-us=0").arg(&format!("--stats-socket={}", socket.display())).serve();
    for n in 0..40 {
        share.mkdir(format!("d{n}").as_str(), 0o755).unwrap();
    }
    let (first, _) = table(&socket);
    assert!(first.contains("; the helper was asked 40 times; workers slept "), "{first}");
    assert!(first.ends_with(", and looking spared them 0"), "{first}");
}

// postern-server(1): --stats-socket, on every frontend
#[test]
fn qemus_requests_are_counted_too() {
    let (_dir, socket) = place();
    let option = format!("--stats-socket={}", socket.display());
    let mut qemu = Proxy::serve(Helper::Postern(Kind::Root), &[&option]);
    qemu.stat("/").unwrap();
    qemu.stat("/none").unwrap_err();
    let (first, rows) = table(&socket);
    assert_eq!(rows, [("lstat".into(), 2, 1)]);
    assert!(first.starts_with("2 requests in ") && first.ends_with("; the helper was asked 0 times"), "{first}");
}

// postern-server(1): --poll-us: where the helper has a CPU of its own, who asked it looks for the answer
#[apply(promise)]
fn who_asks_the_helper_looks_for_its_answer(on: Kind) {
    let (_dir, socket) = place();
    let share = on.setup().arg("--poll-us=1000").arg(&format!("--stats-socket={}", socket.display())).serve();
    let looked = || table(&socket).0.contains(" times, and looking spared ");
    let mut names = (0..10_000).map(|n| format!("d{n}"));
    while std::thread::available_parallelism().unwrap().get() > 1 && !looked() {
        for _ in 0..64 {
            let name = names.next().expect("an answer within a thousandth of a second");
            share.mkdir(name.as_str(), 0o755).unwrap();
        }
    }
}

// The same of clients on a stream
#[test]
fn requests_of_clients_on_a_stream_are_counted_together() {
    let (_dir, socket) = place();
    let scratch = Scratch::new(Kind::Root, false);
    let _server = listen(Kind::Root, &scratch, &["--trust-client", &format!("--stats-socket={}", socket.display())]);
    for _ in 0..2 {
        Client::connect(&scratch).attach(0).unwrap();
    }
    let (_, rows) = table(&socket);
    assert_eq!(rows, [("attach".into(), 2, 0), ("version".into(), 2, 0)]);
}

// postern-server(1): "Only the user who started the server, and root, may ask"
#[test]
fn nobody_else_is_told() {
    let (_dir, socket) = place();
    let _share = Kind::Root.setup().arg(&format!("--stats-socket={}", socket.display())).serve();
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
}

// postern-server(1): who connects and does not read keeps no guest waiting
#[test]
fn who_asks_and_does_not_listen_harms_no_guest() {
    let (_dir, socket) = place();
    let share = Kind::Mapped.setup().arg(&format!("--stats-socket={}", socket.display())).serve();
    let deaf: Vec<_> = (0..200).map(|_| UnixStream::connect(&socket)).take_while(Result::is_ok).collect();
    share.put("f", b"x").unwrap();
    assert_eq!(share.get("f").unwrap(), b"x");
    drop(deaf);
    let mut text = String::new();
    UnixStream::connect(&socket).unwrap().read_to_string(&mut text).unwrap();
    assert!(text.starts_with("postern 2\nuptime "), "{text}");
}

// postern(1): EXIT STATUS; one line says what to do
#[test]
fn without_a_server_there_are_no_figures() {
    let (_dir, socket) = place();
    let output = stat(&socket, &[]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.starts_with("postern: cannot ask ") && said.contains("--stats-socket"), "{said}");
}
