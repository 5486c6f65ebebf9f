//! Who serves a share: postern in its identity cases, over virtio-fs or 9P, or a peer.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use nix::unistd::{Gid, Uid, User, geteuid};

use crate::share::{Setup, Share};

/// A server and the ids it serves with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// postern, started by root with a map.
    Mapped,
    /// The same in the initial user namespace: `--identity=soft`.
    Soft,
    /// postern, started by root without a map.
    Root,
    /// postern, started by an ordinary user with subordinate ids.
    User,
    /// The same on a host where ordinary users make no user namespaces: the helper is root's, and is asked at a socket.
    Asked,
    /// postern, started by root with `--identity=host`.
    Host,
    /// As [`Kind::Mapped`], with a virtio-9p device.
    P9Mapped,
    /// As [`Kind::User`], with a virtio-9p device.
    P9User,
    /// postern with `--security-model=mapped-xattr`, started by a user without subordinate ids.
    MappedXattr,
    /// The same with `mapped-links`.
    MappedLinks,
    /// The same with `mapped-file`.
    MappedFile,
    /// virtiofsd 1.14, started by root.
    Virtiofsd,
    /// The C virtiofsd of QEMU 7.2, started by root.
    CVirtiofsd,
}

/// What a server speaks with its guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frontend {
    /// FUSE: a virtio-fs device.
    Virtiofs,
    /// 9P: a virtio-9p device. The peers have none over vhost-user.
    P9,
}

/// Consecutive ids of the guest and what they are on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First id in the guest.
    pub guest: u32,
    /// First id on the host.
    pub host: u32,
    /// Number of ids.
    pub count: u32,
}

/// What the [`Kind::Mapped`] server is told.
const MAP: Range = Range { guest: 0, host: 100_000, count: 65_536 };
/// The user whom [`Kind::User`] is tested with by root.
const USER: &str = "postern-test";
/// The user whom the mapped security models are tested with by root: one without subordinate ids.
const PLAIN_USER: &str = "postern-plain";

impl Kind {
    /// A share of default set-up.
    pub fn serve(self) -> Share {
        Setup::new(self).serve()
    }

    /// A share to be set up.
    pub fn setup(self) -> Setup {
        Setup::new(self)
    }

    /// What it speaks, unless a test says otherwise.
    pub fn frontend(self) -> Frontend {
        if matches!(self, Self::P9Mapped | Self::P9User) { Frontend::P9 } else { Frontend::Virtiofs }
    }

    /// Whether this is postern.
    pub fn is_postern(self) -> bool {
        !matches!(self, Self::Virtiofsd | Self::CVirtiofsd)
    }

    /// Whether guest and host number users differently.
    pub fn has_map(self) -> bool {
        matches!(self, Self::Mapped | Self::Soft | Self::User | Self::Asked | Self::P9Mapped | Self::P9User)
    }

    /// Its security model, if it is a mapped one: the guest's ids and modes are kept beside the host's.
    pub fn security_model(self) -> Option<&'static str> {
        match self {
            Self::MappedXattr => Some("mapped-xattr"),
            Self::MappedLinks => Some("mapped-links"),
            Self::MappedFile => Some("mapped-file"),
            _ => None,
        }
    }

    /// Whether set-id files are refused where users of the host could run them.
    pub fn guards_host_users(self) -> bool {
        matches!(self, Self::Root | Self::Host | Self::User | Self::Asked | Self::P9User)
    }

    /// Whether the server's root is confined to the ids of a map, as in a user namespace: no device nodes, no
    /// `trusted.*`.
    pub fn in_user_namespace(self) -> bool {
        self.is_postern() && self != Self::Host
    }

    /// Whether the helper is in the initial user namespace.
    pub fn stays(self) -> bool {
        matches!(self, Self::Host | Self::Soft)
    }

    /// Whether a server that root's helper meets by chance gets ids: where they are its own or subordinate ones.
    pub fn has_ids_for_all(self) -> bool {
        self.has_map() && !self.stays()
    }

    /// Whether device nodes can be made.
    pub fn has_devices(self) -> bool {
        self.security_model().is_some() || !self.in_user_namespace()
    }

    /// Whether the server is started by an ordinary user.
    pub fn is_ordinary_user(self) -> bool {
        matches!(self, Self::User | Self::Asked | Self::P9User) || self.security_model().is_some()
    }

    /// Who starts the server.
    pub fn starter(self) -> (Uid, Gid) {
        if self.security_model().is_some() {
            let user = plain_user();
            (user.uid, user.gid)
        } else if self.is_ordinary_user() {
            let user = ordinary_user();
            (user.uid, user.gid)
        } else {
            assert!(geteuid().is_root(), "{self:?} is tested by root only");
            (geteuid(), nix::unistd::getegid())
        }
    }

    /// How the server maps user ids.
    pub fn uids(self) -> Vec<Range> {
        match self {
            Self::Mapped | Self::Soft | Self::P9Mapped => vec![MAP],
            Self::User | Self::Asked | Self::P9User => {
                let user = ordinary_user();
                with_subordinate(user.uid.as_raw(), &user.name, "/etc/subuid")
            }
            _ => vec![Range { guest: 0, host: 0, count: u32::MAX }],
        }
    }

    /// How the server maps group ids.
    pub fn gids(self) -> Vec<Range> {
        match self {
            Self::User | Self::Asked | Self::P9User => {
                let user = ordinary_user();
                with_subordinate(user.gid.as_raw(), &user.name, "/etc/subgid")
            }
            _ => self.uids(),
        }
    }

    /// The command that serves `dir` on `socket`, without options but what the frontend needs.
    pub fn command(self, frontend: Frontend, dir: &Path, socket: &Path) -> Command {
        let mut command = Command::new(self.program());
        match self {
            Self::CVirtiofsd => {
                let source = format!("source={}", dir.display());
                command.arg("-o").arg(source).arg(format!("--socket-path={}", socket.display()));
            }
            Self::Virtiofsd => {
                command.arg("--shared-dir").arg(dir).arg("--socket-path").arg(socket);
            }
            _ => {
                command.args(match frontend {
                    Frontend::Virtiofs => &["virtiofs"][..],
                    Frontend::P9 => &["9p", "--tag=share"],
                });
                command.arg("--shared-dir").arg(dir).arg("--socket-path").arg(socket);
            }
        }
        command.args(self.identity());
        command
    }

    /// Arguments that say whose ids are served.
    pub fn identity(self) -> Vec<String> {
        let Range { guest, host, count } = MAP;
        let maps = ["--uid-map", "--gid-map"].map(|map| format!("{map}=:{guest}:{host}:{count}:"));
        match self {
            Self::Mapped | Self::P9Mapped => maps.into(),
            Self::Soft => maps.into_iter().chain(["--identity=soft".into()]).collect(),
            Self::Host => vec!["--identity=host".into()],
            _ => self.security_model().map(|model| format!("--security-model={model}")).into_iter().collect(),
        }
    }

    /// The program that serves.
    pub fn program(self) -> PathBuf {
        let found = match self {
            Self::Virtiofsd => Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/virtiofsd/bin/virtiofsd"),
            Self::CVirtiofsd => "/usr/lib/qemu/virtiofsd".into(),
            _ => bin_dir().join("postern-server"),
        };
        assert!(found.exists(), "{} is missing: cargo build, tests/prepare", found.display());
        found
    }
}

/// Host id of a guest id.
pub fn to_host(map: &[Range], guest: u32) -> Option<u32> {
    translate(map.iter().map(|r| (r.guest, r.host, r.count)), guest)
}

/// Guest id of a host id.
pub fn to_guest(map: &[Range], host: u32) -> Option<u32> {
    translate(map.iter().map(|r| (r.host, r.guest, r.count)), host)
}

fn translate(mut ranges: impl Iterator<Item = (u32, u32, u32)>, id: u32) -> Option<u32> {
    ranges.find_map(|(from, to, count)| id.checked_sub(from).filter(|&n| n < count).map(|n| to + n))
}

/// Where postern's programs are: `$POSTERN_BIN_DIR`, or beside the tests.
pub fn bin_dir() -> PathBuf {
    let beside = || {
        let exe = std::env::current_exe().expect("/proc");
        exe.ancestors().nth(2).expect("target/PROFILE/deps/TEST").to_path_buf()
    };
    std::env::var_os("POSTERN_BIN_DIR").map_or_else(beside, PathBuf::from)
}

/// The user who runs the tests, or one with subordinate ids, made for them when that is root.
fn ordinary_user() -> &'static User {
    static FOUND: OnceLock<User> = OnceLock::new();
    let script = format!(
        "id {USER} || useradd --no-create-home --shell /usr/sbin/nologin {USER}
         grep -q ^{USER}: /etc/subuid || usermod --add-subuids 300000-365535 {USER}
         grep -q ^{USER}: /etc/subgid || usermod --add-subgids 300000-365535 {USER}"
    );
    FOUND.get_or_init(|| user(USER, &script))
}

/// The same without subordinate ids.
fn plain_user() -> &'static User {
    static FOUND: OnceLock<User> = OnceLock::new();
    let script = format!("id {PLAIN_USER} || useradd --system --no-create-home --shell /usr/sbin/nologin {PLAIN_USER}");
    FOUND.get_or_init(|| user(PLAIN_USER, &script))
}

/// The user who runs the tests, or when that is root one who is made by a script, once however many tests want him.
fn user(name: &str, script: &str) -> User {
    if !geteuid().is_root() {
        return User::from_uid(geteuid()).expect("passwd").expect("a user with a name");
    }
    let find = || User::from_name(name).expect("passwd");
    let make = || {
        let status = Command::new("flock").args(["/var/tmp", "sh", "-ec", script]).status();
        assert!(status.expect("flock").success(), "no user to test with");
        find()
    };
    find().or_else(make).expect("made above")
}

/// Guest root is `own`, the ids above it are the subordinate ones that `file` gives `name`.
fn with_subordinate(own: u32, name: &str, file: &str) -> Vec<Range> {
    let table = std::fs::read_to_string(file).expect(file);
    let fields = table.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let row = fields.filter(|row| row.len() == 3).find(|row| row[0] == name);
    let row = row.unwrap_or_else(|| panic!("{file} has no line for {name}"));
    let (host, count) = (row[1].parse().expect("a number"), row[2].parse().expect("a number"));
    vec![Range { guest: 0, host: own, count: 1 }, Range { guest: 1, host, count }]
}
