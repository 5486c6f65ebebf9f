//! What a program that cannot start says: one line with what, on what, why and what to do; and its exit status.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use postern_tests::kind::bin_dir;
use postern_tests::prelude::*;
use postern_tests::share::Scratch;
use postern_tests::{mounts, twin};

/// What a program says that ends by itself. Its descriptor 3 is no socket.
fn say(program: &str, args: &[&str]) -> Output {
    by(Command::new("sh").args(["-c", r#"exec "$0" "$@" 3</dev/null"#]).arg(bin_dir().join(program)).args(args))
}

fn by(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap()
}

/// The one line of a program that could not start, in all its words.
fn complaint(output: &Output) -> String {
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let lines: Vec<_> = said.lines().filter(|line| line.contains(": cannot ")).collect();
    assert_eq!(lines.len(), 1, "{said}");
    assert!(said.ends_with(&format!("{}\n", lines[0])), "{said}");
    lines[0].to_owned()
}

/// The line of a server that cannot start.
fn refusal(args: &[&str]) -> String {
    complaint(&say("postern-server", &[&["virtiofs"], args].concat()))
}

fn assert_says(line: &str, parts: &[&str]) {
    assert!(parts.iter().all(|part| line.contains(part)), "{line:?} lacks one of {parts:?}");
}

fn place() -> Scratch {
    Scratch::new(Kind::Root, false)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

// postern(1): doctor: "good ... BAD ... what would mend it is said behind"; EXIT STATUS
#[test]
fn the_doctor_says_whether_sharing_works_and_what_mends_it() {
    let doctor = bin_dir().join("postern");
    let said = |output: &Output| String::from_utf8(output.stdout.clone()).unwrap();
    let well = by(Command::new(&doctor).arg("doctor").arg(place().path("share")));
    assert_eq!(well.status.code(), Some(0), "{}", said(&well));
    assert!(said(&well).lines().any(|line| line.starts_with("good  kernel: ")), "{}", said(&well));
    let nowhere = by(Command::new(&doctor).args(["doctor", "/no/such/directory"]));
    assert_eq!(nowhere.status.code(), Some(1));
    assert_says(&said(&nowhere), &["BAD   directory: /no/such/directory: ENOENT", "create it"]);
    let script = r#"echo 0 >/proc/sys/user/max_user_namespaces && exec "$0" doctor"#;
    let mut confined = Command::new("unshare");
    let confined = by(confined.args(["--user", "--map-root-user", "sh", "-c", script]).arg(&doctor));
    assert_eq!(confined.status.code(), Some(1), "{confined:?}");
    assert_says(
        &said(&confined),
        &["BAD   user namespaces: ", "ENOSPC", "sysctl user.max_user_namespaces=10000", "--identity=soft"],
    );
}

// postern-9p(7): "refuses these words and says its own"
#[test]
fn a_word_of_qemus_is_answered_with_ours() {
    let line = complaint(&say("postern-server", &["9p", "-fsdev", "local,path=/srv/d,readonly=on"]));
    assert_says(
        &line,
        &["cannot take -fsdev", "say postern-server 9p --shared-dir=/srv/d --readonly", "postern-9p(7)"],
    );
    let line = complaint(&say("postern-server", &["9p", "--shared-dir=/usr", "--throttling.iops-total=9"]));
    assert_says(&line, &["--throttling.iops-total", "io.max"]);
    let line = complaint(&say("postern-server", &["handle", "--shared-dir=/usr"]));
    assert_says(&line, &["handle", "QEMU itself dropped it in 4.0"]);
    let line = complaint(&say("postern-server", &["proxy", "--shared-dir=/usr", "--fd=3", "--writeout=immediate"]));
    assert_says(&line, &["--writeout", "leave it on QEMU's command line"]);
}

/// The line about a directory, which the helper says, and the server's, which points to it.
fn about_dir(dir: &Path) -> String {
    let scratch = place();
    let socket = scratch.path("socket");
    let args = ["virtiofs", "--shared-dir", text(dir), "--socket-path", text(&socket)];
    let output = say("postern-server", &args);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let last = said.lines().find(|line| line.starts_with("postern-server: cannot ")).expect(&said);
    last.to_owned()
}

// postern-server(1), postern-helper(8): "The last line ... says what could not be done, why, and often what to do. The
// server is told the same."
#[test]
fn a_directory_that_is_not_there_is_named() {
    let line = about_dir(Path::new("/no/such/directory"));
    assert_says(&line, &["/no/such/directory", "ENOENT", "create it or name another"]);
}

// open(2): "ENOTDIR"
#[test]
fn a_shared_file_is_no_directory() {
    assert_says(&about_dir(Path::new("/etc/passwd")), &["/etc/passwd", "ENOTDIR", "name a directory"]);
}

// unix(7): sun_path is 108 bytes with its NUL
#[test]
fn a_socket_path_that_is_too_long_is_told_how_long_it_may_be() {
    let path = format!("/tmp/{}", "x".repeat(120));
    let line = refusal(&["--shared-dir=/usr", "--socket-path", &path]);
    assert_says(&line, &[&path, "125 bytes", "107", "choose a shorter one"]);
}

// bind(2): "ENOENT  A component in the directory prefix of the socket pathname does not exist"
#[test]
fn a_socket_path_without_its_directory_is_named() {
    let line = refusal(&["--shared-dir=/usr", "--socket-path=/no/such/directory/socket"]);
    assert_says(&line, &["/no/such/directory/socket", "ENOENT", "create its directory or choose another path"]);
}

// path_resolution(7): "If the process does not have search permission ... EACCES"
#[test]
fn a_directory_that_its_user_may_not_search_is_named() {
    let scratch = Scratch::new(Kind::User, true);
    let (dir, (uid, gid)) = (place(), Kind::User.starter());
    let dir = dir.path("");
    fs::set_permissions(scratch.path("share"), fs::Permissions::from_mode(0o700)).unwrap();
    std::os::unix::fs::chown(scratch.path("share"), Some(0), Some(0)).unwrap();
    for shared in [scratch.path("share"), dir] {
        let mut command = Command::new(bin_dir().join("postern-server"));
        command.args(["virtiofs", "--shared-dir", text(&shared), "--socket-path", text(&scratch.path("socket"))]);
        let output = by(command.uid(uid.as_raw()).gid(gid.as_raw()));
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert_says(&said, &[text(&shared), "EACCES", "whoever starts the helper must be able to"]);
    }
}

// bind(2): EADDRINUSE
#[test]
fn a_socket_in_use_is_left_to_its_user() {
    let scratch = place();
    let path = scratch.path("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let line = refusal(&["--shared-dir=/usr", "--socket-path", text(&path)]);
    assert_says(&line, &[text(&path), "another process listens there", "choose another path"]);
    drop(listener);
    assert!(path.exists());
}

// postern-server(1): "A socket that nobody listens at any more is replaced", nothing else is
#[test]
fn what_is_no_socket_is_not_replaced() {
    let scratch = place();
    let (path, link) = (scratch.path("precious"), scratch.path("link"));
    fs::write(&path, "precious").unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    for path in [&path, &link, &scratch.path("share")] {
        let line = refusal(&["--shared-dir=/usr", "--socket-path", text(path)]);
        assert_says(&line, &[text(path), "something else is there", "choose another path"]);
    }
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
}

// bind(2): ENOENT, EACCES of the directory
#[test]
fn a_socket_in_a_missing_directory_is_named() {
    let line = refusal(&["--shared-dir=/usr", "--socket-path=/no/such/socket"]);
    assert_says(&line, &["listen at /no/such/socket", "ENOENT"]);
}

// postern-server(1): --socket-group, --user
#[test]
fn an_unknown_group_or_user_is_named() {
    let scratch = place();
    let socket = format!("--socket-path={}", text(&scratch.path("socket")));
    let line = refusal(&["--shared-dir=/usr", &socket, "--socket-group=nosuchgroup"]);
    assert_says(&line, &["nosuchgroup", "--socket-group", "there is none"]);
    let line = refusal(&["--shared-dir=/usr", &socket, "--user=nosuchuser"]);
    assert_says(&line, &["nosuchuser", "--user", "there is no such user"]);
    let line = refusal(&["--shared-dir=/usr", &socket, "--user=root"]);
    assert_says(&line, &["root", "--user", "must not be root", "choose a user"]);
}

// postern-server(1): --sock-fd: "a Unix stream or seqpacket socket"; --fd: "a Unix stream socket, listening or
// connected"
#[test]
fn a_descriptor_that_is_no_socket_is_named() {
    let scratch = place();
    let socket = format!("--socket-path={}", text(&scratch.path("socket")));
    for (number, why) in [("3", "ENOTSOCK"), ("77", "EBADF")] {
        let named = format!("descriptor {number} ");
        let line = refusal(&["--sock-fd", number, &socket]);
        assert_says(&line, &[&named, "--sock-fd", why, "socketpair(2)"]);
        let line = refusal(&["--shared-dir=/usr", "--fd", number]);
        assert_says(&line, &[&named, "--fd", why, "pass a listening or connected Unix stream socket"]);
        let output = say("postern-helper", &["--shared-dir=/usr", "--sock-fd", number]);
        assert_says(&complaint(&output), &["--sock-fd", number, why, "connected Unix socket"]);
    }
}

// postern-helper(8): --uid-map: "One range must have the INSIDE 0"
#[test]
fn a_map_that_makes_no_sense_is_refused() {
    let scratch = place();
    let (dir, socket) = (scratch.path("share"), scratch.path("socket"));
    let with = |maps: &[&str]| {
        let base = ["virtiofs", "--shared-dir", text(&dir), "--socket-path", text(&socket)];
        let output = say("postern-server", &[&base, maps].concat());
        assert_ne!(output.status.code(), Some(0));
        String::from_utf8(output.stderr).unwrap()
    };
    assert_says(&with(&["--uid-map=0:1000:1"]), &["0:1000:1", "--uid-map"]);
    assert_says(&with(&["--uid-map=:0:x:1:"]), &[":0:x:1:", "--uid-map"]);
    assert_says(&with(&["--uid-map=:0:1000:0:"]), &[":0:1000:0:", "--uid-map"]);
    assert_says(&with(&["--uid-map=:1:1000:5:"]), &["user map", "guest root is not mapped", "INSIDE is 0"]);
    let overlap = with(&["--gid-map=:0:1000:10:", "--gid-map=:5:2000:10:"]);
    assert_says(&overlap, &["cannot use the group map given", "ids in common"]);
    let overlap = with(&["--gid-map=:0:1000:10:", "--gid-map=:20:1005:10:"]);
    assert_says(&overlap, &["cannot use the group map given", "ids in common"]);
}

// postern-server(1): EXIT STATUS: "2 for a wrong command line"
#[test]
fn a_wrong_command_line_has_a_status_of_its_own() {
    for args in [
        &["virtiofs"][..],
        &["virtiofs", "--shared-dir=/usr"],
        &["virtiofs", "--shared-dir=/usr", "--socket-path=/tmp/s", "--cache=sometimes"],
        &["virtiofs", "--shared-dir=/usr", "--socket-path=/tmp/s", "--rlimit-nofile=511"],
        &["virtiofs", "--shared-dir=/usr", "--socket-path=/tmp/s", "--num-request-queues=0"],
        &["virtiofs", "--shared-dir=/usr", "--socket-path=/tmp/s", "--tag="],
        &["virtiofs", "--shared-dir=/usr", "--socket-path=/tmp/s", "--fd=3"],
        &["virtiofs", "--sock-fd=3", "--fd=4", "--readonly"],
        &["9p"],
    ] {
        assert_eq!(say("postern-server", args).status.code(), Some(2), "{args:?}");
    }
    assert_eq!(say("postern-helper", &["--shared-dir=/usr"]).status.code(), Some(2));
    assert_eq!(say("postern", &["run"]).status.code(), Some(2));
}

// The manual is the reference: it has every option, and no other
#[test]
fn every_option_is_in_the_manual_and_every_one_of_the_manual_is_there() {
    let name = |word: &str| word.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').next().unwrap().to_owned();
    for (program, forms, page) in [
        (
            "postern-server",
            &[&["virtiofs", "--help"][..], &["proxy", "--help"], &["9p", "--help"]][..],
            "postern-server.1",
        ),
        ("postern-helper", &[&["--help"]], "postern-helper.8"),
        ("postern", &[&["run", "--help"], &["doctor", "--help"], &["stat", "--help"]], "postern.1"),
    ] {
        let said = forms.iter().map(|form| String::from_utf8(say(program, form).stdout).unwrap());
        let help: BTreeSet<_> = said
            .flat_map(|text| {
                let lines = text.lines().map(str::trim).filter(|line| line.starts_with('-'));
                lines.filter_map(|line| line.split("--").nth(1).map(name)).collect::<Vec<_>>()
            })
            .filter(|option| !["help", "version"].contains(&option.as_str()))
            .collect();
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("man").join(page);
        let page = std::fs::read_to_string(page).unwrap();
        let items = page.lines().filter(|line| line.starts_with(".It Fl -"));
        let manual: BTreeSet<_> =
            items.flat_map(|line| line.split("Fl -").skip(1).map(name)).filter(|option| !option.is_empty()).collect();
        assert_eq!(help, manual, "{program}");
    }
}

// Who names a directory writes no second line: of one that cannot be shared, and of one that is
#[test]
fn a_name_forges_no_line() {
    let scratch = place();
    let missing = "/no/such\npostern-server: info: ready";
    let socket = scratch.path("socket");
    let said = say("postern-server", &["virtiofs", "--shared-dir", missing, "--socket-path", text(&socket)]);
    let said = String::from_utf8(said.stderr).unwrap();
    assert_says(&said, &[r"postern-helper: cannot open the shared directory /no/such\npostern-server: info: ready: "]);
    assert!(!said.lines().any(|line| line.starts_with("postern-server: info: ")), "{said}");
    let dir = scratch.path("share").join("a\nb\u{1b}[2J");
    fs::create_dir(&dir).unwrap();
    let mut server = Command::new(bin_dir().join("postern-server"));
    server.args(["virtiofs", "--shared-dir"]).arg(&dir).arg("--socket-path").arg(&socket);
    let mut server = server.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(server.stderr.take().unwrap()).lines().map(Result::unwrap);
    let named = lines.find(|line| line.contains("guest root is")).unwrap();
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(named.starts_with("postern-helper: info: /") && named.contains(r"/a\nb\u{1b}[2J: "), "{named:?}");
}

// proc_pid_mem(5): the file through which a process's memory can be written, by itself without any right
#[test]
fn a_directory_with_proc_in_it_is_shared_for_reading_only() {
    mounts::alone();
    let scratch = place();
    let (dir, socket) = (scratch.path("share"), scratch.path("socket"));
    fs::create_dir(dir.join("p")).unwrap();
    mounts::processes(&dir.join("p"));
    let said = |dir: &Path, more: &[&str]| {
        let words = [&["virtiofs", "--shared-dir", text(dir), "--socket-path", text(&socket)], more].concat();
        String::from_utf8(say("postern-server", &words).stderr).unwrap()
    };
    assert_says(&said(&dir, &[]), &["cannot share a directory that has proc in it, at p", "share it read-only"]);
    assert_says(&said(&dir.join("p"), &["--readonly"]), &["cannot share a directory of proc", "share another"]);
    let plant = |host: &Host| {
        host.mkdir("p");
        mounts::processes(&host.path("p"));
    };
    let share = Kind::Root.setup().plant(plant).readonly().serve();
    assert!(share.lookup(format!("p/{}", std::process::id()).as_str()).is_ok());
}

// postern-server(1): --multidevs: "What becomes of mounts below the share if they are not announced"
#[test]
fn mounts_that_are_to_be_two_things_are_refused() {
    let line = refusal(&["--shared-dir=/usr", "--socket-path=/tmp/s", "--announce-submounts", "--multidevs=remap"]);
    assert_says(&line, &["--multidevs", "announced, too", "leave --announce-submounts out"]);
}

// postern-server(1): --helper: "The helper's program"
#[test]
fn a_missing_helper_is_named() {
    let scratch = place();
    let socket = format!("--socket-path={}", text(&scratch.path("socket")));
    let line = refusal(&["--shared-dir=/usr", &socket, "--helper=/no/such/helper"]);
    assert_says(&line, &["start the helper /no/such/helper", "ENOENT", "--helper"]);
}

// postern-server(1): --helper-socket, --security-model, --fmode
#[test]
fn a_helper_of_roots_that_is_not_there_is_named() {
    let scratch = place();
    let socket = format!("--socket-path={}", text(&scratch.path("socket")));
    let with = |words: &[&str]| refusal(&[&["--helper-socket=/no/such", &socket, "--shared-dir=/usr"], words].concat());
    assert_says(&with(&[]), &["a helper at /no/such (--helper-socket)", "ENOENT", "enable postern-helper.socket"]);
    assert_says(&with(&["--security-model=other"]), &["--security-model=other", "passthrough, none, mapped-xattr"]);
    assert_says(&with(&["--fmode=888"]), &["--fmode=888", "octal number up to 777"]);
    let line = refusal(&["--helper-socket=/no/such", &socket, "--shared-dir=/etc/passwd"]);
    assert_says(&line, &["open the shared directory /etc/passwd", "ENOTDIR"]);
}

/// What a guest of an ordinary user's can do in a world that root has changed with `change`, and the log.
fn in_world(change: fn(&Host), check: impl FnOnce(&Process, &str)) {
    mounts::alone();
    let setup = Kind::User.setup().plant(change);
    let server = setup.start();
    let guest = server.mount(&setup);
    guest.put("f", b"x").unwrap();
    check(&guest, &server.log());
}

/// Of the one id that is mapped.
fn assert_single(guest: &Process, log: &str, why: &[&str]) {
    let mine = guest.getattr("f").unwrap();
    assert_eq!((mine.uid, mine.gid), (0, 0));
    assert_eq!(guest.as_user(7).put("g", b"x").map(drop), Err(EOVERFLOW));
    for kind in ["user", "group"] {
        let option = if kind == "user" { "--translate-uid" } else { "--translate-gid" };
        let way = format!("{option} squash-guest:0:0:4294967295 makes all that one");
        let start = format!("postern-helper: warning: one {kind} id only, guest root's ({way}): ");
        let lines: Vec<_> = log.lines().filter(|line| line.starts_with(&start)).collect();
        assert_eq!(lines.len(), 1, "{log}");
        assert_says(lines[0], why);
    }
}

// postern-helper(8): "Where there are no subordinate ids ... guest root is the user, no other id is mapped, and a
// warning says so"
#[test]
fn a_user_without_subordinate_ids_shares_with_one_id() {
    fn change(_: &Host) {
        for file in ["/etc/subuid", "/etc/subgid"] {
            mounts::bind("/dev/null".as_ref(), file.as_ref());
        }
    }
    in_world(change, |guest, log| assert_single(guest, log, &["/etc/sub", "none", "usermod --add-sub"]));
}

// postern-helper(8): "... or no such program", "looked for in /usr/bin, /bin, /usr/sbin and /sbin only"
#[test]
fn a_user_without_newuidmap_shares_with_one_id() {
    fn change(_: &Host) {
        let tools = ["newuidmap", "newgidmap"].map(|tool| Path::new("/usr/bin").join(tool));
        tools.iter().for_each(|tool| mounts::bind("/dev/null".as_ref(), tool));
    }
    in_world(change, |guest, log| assert_single(guest, log, &["idmap", "not in /usr/bin", "package uidmap"]));
}

// postern-server(1): --no-landlock: "Serve although the kernel has no Landlock"
#[test]
fn a_kernel_without_landlock_is_told_apart() {
    use postern_policy::sandbox::seccomp::{Mode, Program};
    let scratch = place();
    let socket = format!("--socket-path={}", text(&scratch.path("socket")));
    Program::absent(&[libc::SYS_landlock_create_ruleset], Mode::Kill).unwrap().apply().unwrap();
    let output = say("postern-server", &["virtiofs", "--shared-dir", text(&scratch.path("share")), &socket]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let line = said.lines().find(|line| line.starts_with("postern-server: cannot ")).expect(&said);
    assert_says(line, &["andlock", "--no-landlock"]);
    let share = Kind::Root.setup().arg("--no-landlock").serve();
    share.put("f", b"x").unwrap();
}

/// `postern run` with these arguments.
fn run(args: &[&str]) -> Command {
    let mut command = Command::new(bin_dir().join("postern"));
    command.arg("run").args(args).env("XDG_RUNTIME_DIR", "/nonexistent");
    command
}

// postern(1): a directory that cannot be shared
#[test]
fn run_names_a_bad_directory() {
    assert_says(&complaint(&by(&mut run(&["/no/such/directory"]))), &["share /no/such/directory", "ENOENT"]);
    assert_says(&complaint(&by(&mut run(&["/etc/passwd"]))), &["share /etc/passwd", "it is not a directory"]);
    let long = "x".repeat(37);
    assert_says(&complaint(&by(&mut run(&["/usr", "--tag", &long]))), &["use the tag", &long, "1 to 36 bytes"]);
}

// write(2): ENOSPC
#[test]
fn run_does_not_serve_what_it_could_not_tell() {
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let output = run(&["/usr"]).stdout(full).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    assert_says(&complaint(&output), &["say what QEMU needs", "ENOSPC"]);
}

// postern(1): "a socket named for DIR in $XDG_RUNTIME_DIR"
#[test]
fn run_says_where_a_socket_could_be() {
    let mut command = run(&["/usr"]);
    let (uid, gid) = Kind::User.starter();
    let output = by(command.env_remove("XDG_RUNTIME_DIR").uid(uid.as_raw()).gid(gid.as_raw()));
    assert_says(&complaint(&output), &["place for the socket", "XDG_RUNTIME_DIR is not set", "--socket-path"]);
}

// postern(1): "prints the QEMU options to paste"; "Ctrl-C ends the share"
#[test]
fn run_prints_what_qemu_and_the_guest_need_and_ends_by_ctrl_c() {
    let scratch = place();
    let (dir, socket) = (scratch.path("share"), scratch.path("postern-share.sock"));
    let mut command = run(&[text(&dir), "--", "--tag=share"]);
    command.env("XDG_RUNTIME_DIR", scratch.path(""));
    let mut server = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut advice = String::new();
    let mut lines = BufReader::new(server.stdout.take().unwrap());
    while !advice.contains("Ctrl-C ends the share.\n") {
        assert_ne!(lines.read_line(&mut advice).unwrap(), 0, "{advice}");
    }
    assert_says(
        &advice,
        &[
            text(&dir),
            "-object memory-backend-memfd,id=mem,size=2G,share=on -machine memory-backend=mem",
            &format!("-chardev socket,id=share,path={}", text(&socket)),
            "-device vhost-user-fs-pci,chardev=share,tag=share,queue-size=1024,num-request-queues=4",
            "mount -t virtiofs share /mnt",
        ],
    );
    let stream = connect(&socket);
    let warden = twin::children(server.id());
    assert_eq!(warden.len(), 1, "{warden:?}");
    drop(stream);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(server.id() as i32), nix::sys::signal::Signal::SIGINT).unwrap();
    assert!(twin::ends(&mut server) && twin::goes(warden[0]), "it goes on");
}

/// Connects as soon as somebody listens.
fn connect(socket: &Path) -> UnixStream {
    for _ in 0..5000 {
        if let Ok(stream) = UnixStream::connect(socket) {
            return stream;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("nobody listens at {}", socket.display());
}
