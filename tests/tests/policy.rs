//! Ordinary users of a hardened host share by a helper of root's, as its policy lets them. postern-policy(5)

use std::fs::{self, File};
use std::ops::Deref;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use postern_tests::kind::bin_dir;
use postern_tests::pair::{CONFINED, NO_NAMESPACES, PASS, Pair, assert_works, mount};
use postern_tests::prelude::*;
use postern_tests::share::Scratch;
use postern_tests::systemd::{INSTANCE, Systemd, host_with};
use postern_tests::twin::{children, ends};

/// A host where ordinary users make no user namespaces; one where they do.
const HARDENED: (&[&str], &str) = (&NO_NAMESPACES, CONFINED);
const SOFT: (&[&str], &str) = (&["sh", "-c"], PASS);

/// A user's share, whose helper is an instance of root's.
struct Given {
    pair: Pair,
    _systemd: Systemd,
}

impl Given {
    /// To the user of this kind, who asks with these words.
    fn to(on: Kind, form: (&[&str], &str), words: &[&str]) -> Self {
        Self::by(INSTANCE, on, form, words)
    }

    /// The same, by an instance that a script becomes.
    fn by(instance: &str, on: Kind, (under, script): (&[&str], &str), words: &[&str]) -> Self {
        let scratch = place(on);
        let host = Host::new(scratch.path("share"), on);
        let systemd = Systemd::start(&scratch.path(""), instance);
        let (ours, theirs) = UnixStream::pair().unwrap();
        let server = server(on, (under, script), &scratch, &systemd.socket, words, theirs.into()).spawn().unwrap();
        let helper = systemd.instance();
        Self { pair: Pair { guest: Some(mount(ours)), host, server, helper, scratch }, _systemd: systemd }
    }
}

/// A directory that the user of this kind can reach like everybody else.
fn place(on: Kind) -> Scratch {
    Scratch::new(on, true)
}

fn server(
    on: Kind,
    (under, script): (&[&str], &str),
    scratch: &Scratch,
    socket: &Path,
    words: &[&str],
    vmm: std::os::fd::OwnedFd,
) -> Command {
    let mut command = Command::new(under[0]);
    command.args(&under[1..]).arg(script).arg(bin_dir().join("postern-server")).arg("virtiofs").arg("--helper-socket");
    command.arg(socket).arg("--shared-dir").arg(scratch.path("share")).args(["--fd=4", "--xattr"]).args(words);
    let log = File::options().create(true).append(true).open(scratch.path("log")).unwrap();
    let (uid, gid) = on.starter();
    command.uid(uid.as_raw()).gid(gid.as_raw()).stdout(vmm).stderr(log);
    command
}

impl Deref for Given {
    type Target = Pair;

    fn deref(&self) -> &Pair {
        &self.pair
    }
}

// postern-policy(5): "guest root is the caller and the other ids are his subordinate ones"
#[test]
fn a_user_of_a_hardened_host_shares_with_all_his_ids() {
    host_with(None);
    let share = Given::to(Kind::User, HARDENED, &[]);
    assert!(share.scratch.log().contains("the helper looks up every name (slower)"), "{}", share.scratch.log());
    assert_works(&share, &share.host);
    assert_eq!(share.host.path("home").metadata().unwrap().uid(), Kind::User.starter().0.as_raw());
}

// systemd-socket-activate(1): "--accept  Launch an instance of the service program for each connection"
#[test]
fn systemds_own_activation_starts_an_instance_for_each_who_connects() {
    host_with(None);
    let on = Kind::User;
    let shares = [(); 2].map(|()| place(on));
    let socket = shares[0].path("helper.socket");
    let mut systemd = Command::new("systemd-socket-activate");
    systemd.arg("--accept").arg(format!("--listen={}", socket.display()));
    systemd
        .arg(bin_dir().join("postern-helper"))
        .arg("--by-policy")
        .stderr(File::create(shares[0].path("said")).unwrap());
    let mut systemd = systemd.spawn().expect("systemd-socket-activate");
    while fs::set_permissions(&socket, PermissionsExt::from_mode(0o666)).is_err() {
        assert!(systemd.try_wait().unwrap().is_none(), "it does not listen");
        sleep(Duration::from_millis(1));
    }
    let serve = |scratch: &Scratch| {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let child = server(on, HARDENED, scratch, &socket, &[], theirs.into()).spawn().unwrap();
        (mount(ours), child)
    };
    let served = [&shares[0], &shares[1]].map(serve);
    assert_eq!(children(systemd.id()).len(), 2);
    for ((guest, mut server), scratch) in served.into_iter().zip(&shares) {
        assert_works(&guest, &Host::new(scratch.path("share"), on));
        drop(guest);
        server.kill().unwrap();
        server.wait().unwrap();
    }
    systemd.kill().unwrap();
    systemd.wait().unwrap();
}

// postern(1): doctor: "what would mend it is said behind"
#[test]
fn the_doctor_knows_of_helpers_of_roots() {
    host_with(None);
    let script = r#"echo 0 >/proc/sys/user/max_user_namespaces && exec "$0" doctor"#;
    let examine = || {
        let mut doctor = Command::new("unshare");
        doctor.args(["--user", "--map-root-user", "sh", "-c", script]).arg(bin_dir().join("postern"));
        String::from_utf8(doctor.output().unwrap().stdout).unwrap()
    };
    let line = |text: &str| text.lines().find(|line| line.contains("user namespaces: ")).unwrap().to_owned();
    let without = line(&examine());
    assert!(without.starts_with("BAD ") && without.contains("postern-helper.socket"), "{without}");
    let _listener = std::os::unix::net::UnixListener::bind("/run/postern/helper.socket").unwrap();
    let with = line(&examine());
    assert!(with.starts_with("poor ") && with.contains("--helper-socket /run/postern/helper.socket"), "{with}");
}

/// What a unit of the helper's says after a key.
fn unit(name: &str, key: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("helper/dist").join(name);
    let text = fs::read_to_string(path).unwrap();
    text.lines().find_map(|line| line.strip_prefix(&format!("{key}="))).expect(key).to_owned()
}

// postern-helper(8): FILES
#[test]
fn the_units_say_what_a_helper_understands_and_leave_it_what_it_needs() {
    host_with(None);
    assert_eq!(unit("postern-helper.socket", "ListenStream"), "/run/postern/helper.socket");
    assert_eq!(unit("postern-helper.socket", "Accept"), "yes");
    let start = unit("postern-helper@.service", "ExecStart");
    assert_eq!(start, "/usr/libexec/postern-helper --by-policy");
    let kept = unit("postern-helper@.service", "CapabilityBoundingSet").to_lowercase().replace("cap_", "+");
    let kept = format!("-all,{}", kept.replace(' ', ","));
    let script = format!(
        r#"export LISTEN_PID=$$ LISTEN_FDS=1
        exec setpriv --no-new-privs --bounding-set {kept} --inh-caps=-all "$0" --by-policy 3<&0 </dev/null"#
    );
    let share = Given::by(&script, Kind::User, HARDENED, &[]);
    assert_works(&share, &share.host);
}

// postern-helper(8): --security-model: "a map is needed by nobody"
#[test]
fn a_user_without_subordinate_ids_keeps_them_beside() {
    host_with(None);
    let share = Given::to(Kind::MappedXattr, HARDENED, &["--security-model=mapped-xattr"]);
    assert_works(&share, &share.host);
}

// postern-server(1): --helper-socket with --readonly
#[test]
fn a_user_may_ask_for_less() {
    host_with(None);
    let share = Given::to(Kind::User, HARDENED, &["--readonly"]);
    share.host.write("f", b"hello");
    assert_eq!(share.get("f").unwrap(), b"hello");
    assert_eq!(share.put("g", b"x").map(drop), Err(EROFS));
}

// postern-policy(5): share = "read-only"
#[test]
fn a_rule_makes_a_share_read_only_whatever_is_asked_for() {
    host_with(Some("[[rule]]\nusers = ['postern-test']\nshare = 'read-only'\n"));
    let share = Given::to(Kind::User, HARDENED, &[]);
    share.host.write("f", b"hello");
    assert_eq!(share.get("f").unwrap(), b"hello");
    assert_eq!(share.put("g", b"x").map(drop), Err(EROFS));
    assert_eq!(share.unlink("f"), Err(EROFS));
}

// postern-policy(5): "uid-map", "The server gets none of them": what is given for one directory is not given for others
#[test]
fn ids_that_a_rule_gives_are_the_shares_and_not_the_servers() {
    host_with(Some("[[rule]]\nuid-map = [':0:700000:1000:']\ngid-map = [':0:800000:1000:']\n"));
    let share = Given::to(Kind::User, SOFT, &[]);
    share.host.chown_host("", 700_000, 800_000);
    assert_eq!(fs::read_to_string(format!("/proc/{}/uid_map", share.server.id())).unwrap(), "");
    share.as_user(5).put("f", b"x").unwrap();
    let made = share.host.path("f").metadata().unwrap();
    assert_eq!((made.uid(), made.gid()), (700_005, 800_005));
}

// postern-server(1): --helper-socket: where user namespaces are to be had, the server looks names up itself
#[test]
fn a_user_who_has_user_namespaces_walks_himself() {
    host_with(None);
    let Given { pair: mut share, _systemd } = Given::to(Kind::User, SOFT, &[]);
    assert!(!share.scratch.log().contains("slower"), "{}", share.scratch.log());
    assert_works(&share, &share.host);
    share.guest = None;
    assert!(ends(&mut share.server) && ends(&mut share.helper));
}
