//! The share under test: a directory, its server, and a guest that has mounted it.

use std::fs;
use std::io::Write;
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::unistd::geteuid;
use postern_server::fuse::abi::InitFlags;
use tempfile::TempDir;

use crate::fuse::{LINUX, Link, Process};
use crate::host::{Host, names};
use crate::kind::{Frontend, Kind};
use crate::p9::Client;
use crate::pair::{CONFINED, NO_NAMESPACES};
use crate::process;
use crate::systemd::Systemd;
use crate::v9fs::Mount;
use crate::vmm::{Machine, Vmm};

/// Where a real file system is.
pub const DISK: &str = "/var/tmp";

/// How long names and attributes stay in the guest's cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    /// A second or so.
    Auto,
    /// For ever.
    Always,
    /// Not at all.
    Never,
    /// For ever, but no data.
    Metadata,
}

/// A share before it is served.
#[derive(Clone, Debug)]
pub struct Setup {
    kind: Kind,
    frontend: Frontend,
    machine: Machine,
    place: &'static str,
    offer: InitFlags,
    cache: Cache,
    posix_acl: bool,
    readonly: bool,
    writeback: bool,
    public: bool,
    initialised: bool,
    plain: bool,
    plant: fn(&Host),
    under: Vec<String>,
    args: Vec<String>,
}

impl Setup {
    /// Extended attributes on, set-id bits killed when the guest asks, all else as it comes.
    pub fn new(kind: Kind) -> Self {
        let setup = Self {
            kind,
            frontend: Frontend::Virtiofs,
            machine: Machine::default(),
            place: DISK,
            offer: LINUX,
            cache: Cache::Auto,
            posix_acl: false,
            readonly: false,
            writeback: false,
            public: false,
            initialised: true,
            plain: false,
            plant: |_| {},
            under: Vec::new(),
            args: Vec::new(),
        };
        if kind.frontend() == Frontend::P9 { setup.p9() } else { setup }
    }

    /// Served as a virtio-9p device.
    pub fn p9(mut self) -> Self {
        self.frontend = Frontend::P9;
        self.machine(|m| m.request_queues = 0)
    }

    /// Another VMM or driver.
    pub fn machine(mut self, change: impl FnOnce(&mut Machine)) -> Self {
        change(&mut self.machine);
        self
    }

    /// Below another directory than [`DISK`].
    pub fn below(mut self, place: &'static str) -> Self {
        self.place = place;
        self
    }

    /// Several request queues.
    pub fn queues(self, count: usize) -> Self {
        self.arg(&format!("--num-request-queues={count}")).machine(|m| m.request_queues = count)
    }

    /// Few descriptors for the server; the peers do not start with so few.
    pub fn few_descriptors(self) -> Self {
        let limit = if self.kind.is_postern() { 512 } else { 1024 };
        self.arg(&format!("--rlimit-nofile={limit}"))
    }

    /// A device that knows its tag.
    pub fn tag(self, tag: &str) -> Self {
        self.arg("--tag").arg(tag)
    }

    /// A guest that cannot do these things.
    pub fn without(mut self, flags: InitFlags) -> Self {
        self.offer.remove(flags);
        self
    }

    /// Another cache policy.
    pub fn cache(mut self, cache: Cache) -> Self {
        self.cache = cache;
        self
    }

    /// With POSIX ACLs.
    pub fn posix_acl(mut self) -> Self {
        self.posix_acl = true;
        self
    }

    /// With other names for extended attributes on the host.
    pub fn xattrmap(self, map: &str) -> Self {
        let option = if self.kind == Kind::CVirtiofsd { "-oxattrmap=" } else { "--xattrmap=" };
        self.arg(&format!("{option}{map}"))
    }

    /// Read-only.
    pub fn readonly(mut self) -> Self {
        self.readonly = true;
        self
    }

    /// With a write-back cache in the guest.
    pub fn writeback(mut self) -> Self {
        self.writeback = true;
        self
    }

    /// In a directory that other users of the host can reach.
    pub fn public(mut self) -> Self {
        self.public = true;
        self
    }

    /// Without INIT.
    pub fn uninitialised(mut self) -> Self {
        self.initialised = false;
        self
    }

    /// With the server's own defaults.
    pub fn plain(mut self) -> Self {
        self.plain = true;
        self
    }

    /// With something in the share before the server starts.
    pub fn plant(mut self, plant: fn(&Host)) -> Self {
        self.plant = plant;
        self
    }

    /// Started by a command that becomes the server's.
    pub fn under(mut self, words: &[&str]) -> Self {
        self.under = words.iter().map(|&word| word.into()).collect();
        self
    }

    /// With one more argument on the command line.
    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Starts the server and mounts the share.
    pub fn serve(self) -> Share {
        let server = self.start();
        let guest = server.mount(&self);
        let host = Host::new(server.dir(), self.kind);
        Share { guest: Some(guest), host, server, setup: self }
    }

    /// Starts the server and mounts the share over 9P.
    pub fn serve_9p(self) -> Share9p {
        let setup = self.p9();
        let server = setup.start();
        let guest = Client::mount(Vmm::connect(server.connect(), &setup.machine));
        Share9p { host: Host::new(server.dir(), setup.kind), guest, server, setup }
    }

    /// Starts the server.
    pub fn start(&self) -> Server {
        let scratch = Scratch::below(self.place, self.kind, self.public);
        let dir = scratch.path("share");
        (self.plant)(&Host::new(dir.clone(), self.kind));
        self.serve_from(scratch, &dir)
    }

    /// Starts another server of the same directory.
    pub fn beside(&self, other: &Server) -> Server {
        self.serve_from(Scratch::below(self.place, self.kind, self.public), &other.dir())
    }

    fn serve_from(&self, scratch: Scratch, dir: &Path) -> Server {
        let socket = scratch.path("socket");
        let mut command = self.kind.command(self.frontend, dir, &socket);
        command.args(self.options()).args(&self.args);
        let systemd = (self.kind == Kind::Asked).then(|| Systemd::listen(&scratch.path("")));
        if let Some(systemd) = &systemd {
            command = under(&[&NO_NAMESPACES[..], &[CONFINED]].concat(), command);
            command.arg("--helper-socket").arg(&systemd.socket);
        }
        let words: Vec<_> = self.under.iter().map(String::as_str).collect();
        let child = scratch.spawn(under(&words, command), self.kind);
        Server { child, kind: self.kind, socket, scratch, _systemd: systemd }
    }

    fn options(&self) -> Vec<&'static str> {
        if self.plain {
            return vec![];
        }
        if self.frontend == Frontend::P9 {
            let table = [(true, "--xattr"), (self.posix_acl, "--posix-acl"), (self.readonly, "--readonly")];
            return table.iter().filter(|row| row.0).map(|row| row.1).collect();
        }
        let c = self.kind == Kind::CVirtiofsd;
        let killpriv = !self.kind.is_postern() && self.offer.contains(InitFlags::HANDLE_KILLPRIV_V2);
        let cache = match self.cache {
            Cache::Auto => ["--cache=auto", "-ocache=auto"],
            Cache::Always => ["--cache=always", "-ocache=always"],
            Cache::Never => ["--cache=never", "-ocache=none"],
            Cache::Metadata => ["--cache=metadata", "-ocache=metadata"],
        };
        let table = [
            (true, ["--xattr", "-oxattr"]),
            (true, cache),
            (killpriv, ["--killpriv-v2", "-okillpriv_v2"]),
            (true, ["--announce-submounts", "-oannounce_submounts"]),
            (self.posix_acl, ["--posix-acl", "-oposix_acl"]),
            (self.readonly, ["--readonly", "-oreadonly"]),
            (self.writeback, ["--writeback", "-owriteback"]),
        ];
        table.iter().filter(|row| row.0).map(|row| row.1[usize::from(c)]).collect()
    }
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    /// The process started.
    pub child: Child,
    kind: Kind,
    socket: PathBuf,
    scratch: Scratch,
    _systemd: Option<Systemd>,
}

/// A command that becomes another one.
fn under(words: &[&str], inner: Command) -> Command {
    let Some((program, words)) = words.split_first() else { return inner };
    let mut command = Command::new(program);
    command.args(words).arg(inner.get_program()).args(inner.get_args());
    command
}

impl Server {
    /// The shared directory on the host.
    pub fn dir(&self) -> PathBuf {
        self.scratch.path("share")
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Connects as a VMM, as soon as the server listens.
    ///
    /// # Panics
    /// When it ends instead, or takes longer than ten seconds.
    pub fn connect(&self) -> UnixStream {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            match UnixStream::connect(&self.socket) {
                Ok(stream) => return stream,
                Err(e) => assert!(Instant::now() < end && self.lives(), "{}: {e}", self.socket.display()),
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// A guest that mounts the share.
    pub fn mount(&self, setup: &Setup) -> Process {
        let vmm = Vmm::connect(self.connect(), &setup.machine);
        match setup.frontend {
            Frontend::P9 => Process::new(Arc::new(Mount::new(Client::agreed(vmm), setup.posix_acl))),
            Frontend::Virtiofs if setup.initialised => Process::new(Arc::new(Link::open(vmm, setup.offer))),
            Frontend::Virtiofs => Process::new(Arc::new(Link::unopened(vmm))),
        }
    }

    /// Whether the process has not ended.
    pub fn lives(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    }

    /// Time the process that serves has spent on a CPU.
    pub fn cpu_time(&self) -> Duration {
        process::cpu_time(self.serving())
    }

    /// The process that parses what the guest sends: the peers start it as their child.
    pub fn serving(&self) -> u32 {
        let own = self.child.id();
        let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children")).expect("alive");
        let child = children.split_whitespace().next().and_then(|pid| pid.parse().ok());
        child.filter(|_| !self.kind.is_postern()).unwrap_or(own)
    }

    /// What the server has written to its log.
    pub fn log(&self) -> String {
        self.scratch.log()
    }

    /// Checks that nothing has changed beside the shared directory.
    pub fn assert_contained(&self) {
        self.scratch.assert_contained();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            self.scratch.show_log();
        }
    }
}

/// A share that is served, and the root of a guest that has mounted it.
pub struct Share {
    /// The share as the host sees it.
    pub host: Host,
    /// Who serves it.
    pub server: Server,
    /// How.
    pub setup: Setup,
    guest: Option<Process>,
}

impl Share {
    /// Who serves it.
    pub fn kind(&self) -> Kind {
        self.setup.kind
    }

    /// The guest goes away, its VMM with it, and another one comes.
    pub fn reconnect(&mut self) {
        self.guest = None;
        self.guest = Some(self.server.mount(&self.setup));
    }
}

impl Deref for Share {
    type Target = Process;

    fn deref(&self) -> &Process {
        self.guest.as_ref().expect("mounted")
    }
}

/// A share that is served over 9P, and a guest that has mounted it.
pub struct Share9p {
    /// The share as the host sees it.
    pub host: Host,
    /// Who serves it.
    pub server: Server,
    guest: Client,
    setup: Setup,
}

impl Share9p {
    /// The guest goes away, its VMM with it, and another one comes.
    #[must_use]
    pub fn reconnect(self) -> Self {
        let Self { host, server, guest, setup } = self;
        drop(guest);
        let guest = Client::mount(Vmm::connect(server.connect(), &setup.machine));
        Self { host, server, guest, setup }
    }
}

impl Deref for Share9p {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.guest
    }
}

/// A place on a real file system, with the share and something beside it that must not change.
#[derive(Debug)]
pub struct Scratch(Option<TempDir>);

impl Scratch {
    /// Owned by the user who starts the server; the share by the guest's root, open to all its users.
    pub fn new(kind: Kind, public: bool) -> Self {
        Self::below(DISK, kind, public)
    }

    /// The same in another place.
    pub fn below(place: &str, kind: Kind, public: bool) -> Self {
        let dir = tempfile::Builder::new().prefix("postern-").tempdir_in(place).expect(place);
        let mode = if public { 0o755 } else { 0o700 };
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).expect("own directory");
        let scratch = Self(Some(dir));
        for name in ["share", "outside"] {
            fs::create_dir(scratch.path(name)).expect("own directory");
        }
        fs::write(scratch.path("outside/canary"), b"alive").expect("own directory");
        let (uid, gid) = kind.starter();
        let whole = Host::new(scratch.path(""), kind);
        if geteuid().is_root() {
            whole.chown_host("", uid.as_raw(), gid.as_raw());
            if kind.security_model().is_some() {
                whole.chown_host("share", uid.as_raw(), gid.as_raw());
            }
        }
        let share = Host::new(scratch.path("share"), kind);
        share.chown("", 0, 0);
        share.chmod("", 0o777);
        scratch
    }

    /// Path of something in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    /// Checks that nothing has changed beside the shared directory.
    pub fn assert_contained(&self) {
        assert_eq!(names(&self.path("outside")), ["canary"]);
        assert_eq!(fs::read(self.path("outside/canary")).expect("still there"), b"alive");
    }

    /// What was logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Shows the log of a test that fails.
    pub fn show_log(&self) {
        let _ = writeln!(std::io::stderr(), "--- log:\n{}---", self.log());
    }

    fn log_file(&self) -> fs::File {
        fs::File::options().create(true).append(true).open(self.path("log")).expect("own directory")
    }

    fn root(&self) -> &Path {
        self.0.as_ref().expect("not dropped").path()
    }

    /// Starts a server as the user of `kind`, its messages in the file `log`.
    pub fn spawn(&self, command: Command, kind: Kind) -> Child {
        self.spawn_at(command, kind, Stdio::null(), self.log_file().into())
    }

    /// The same, at another standard input and output.
    pub fn spawn_at(&self, mut command: Command, kind: Kind, stdin: Stdio, stdout: Stdio) -> Child {
        command.stdin(stdin).stdout(stdout).stderr(self.log_file());
        command.current_dir("/");
        if geteuid().is_root() && kind.is_ordinary_user() {
            let (uid, gid) = kind.starter();
            command.uid(uid.as_raw()).gid(gid.as_raw());
        }
        let program = command.get_program().to_owned();
        command.spawn().unwrap_or_else(|e| panic!("{program:?}: {e}"))
    }
}

impl Drop for Scratch {
    /// What a guest has made may belong to subordinate ids: an ordinary user removes it as their root.
    fn drop(&mut self) {
        let path = self.0.take().expect("dropped once").keep();
        if fs::remove_dir_all(&path).is_err() {
            let unshare = ["--user", "--map-root-user", "--map-auto", "rm", "-rf"];
            let _ = Command::new("unshare").args(unshare).arg(path).status();
        }
    }
}
