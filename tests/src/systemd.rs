//! What systemd does for `postern-helper.socket`, and a host with rules of its own for who may share what.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use nix::unistd::{Gid, Uid};
use postern_ipc::ask::{Ask, send_ask};
use postern_ipc::hello::{Hello, News, VERSION, receive_news, send_hello};
use postern_ipc::model::Model;
use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};

use crate::kind::bin_dir;
use crate::mounts;
use crate::twin::ends;

/// An instance of `postern-helper@.service`: a process with one descriptor beside the standard ones.
pub const INSTANCE: &str = r#"export LISTEN_PID=$$ LISTEN_FDS=1; exec "$0" --by-policy 3<&0 </dev/null"#;

/// Where the rules are, and where helpers count shares.
const POLICY: &str = "/etc/postern";
const COUNTS: &str = "/run/postern";

/// A socket unit with `Accept=yes`: one instance for each who connects.
#[derive(Debug)]
pub struct Systemd {
    /// Where it listens; anybody may connect.
    pub socket: PathBuf,
    log: PathBuf,
    instances: Mutex<Receiver<Child>>,
}

impl Systemd {
    /// Listens in a directory of the test's.
    ///
    /// # Panics
    /// When it cannot.
    pub fn listen(place: &Path) -> Self {
        Self::start(place, INSTANCE)
    }

    /// The same; instances are what this script becomes, which is given the helper's program.
    ///
    /// # Panics
    /// When it cannot listen.
    pub fn start(place: &Path, instance: &str) -> Self {
        let (socket, log) = (place.join("helper.socket"), place.join("log"));
        let listener = UnixListener::bind(&socket).expect("own directory");
        fs::set_permissions(&socket, PermissionsExt::from_mode(0o666)).expect("own socket");
        let (started, instances) = channel();
        let (end, instance) = (log.clone(), instance.to_owned());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let log = || File::options().create(true).append(true).open(&end);
                let (Ok(stream), Ok(log)) = (stream, log()) else { break };
                let mut command = Command::new("sh");
                command.args(["-c", &instance]).arg(bin_dir().join("postern-helper"));
                command.stdin(OwnedFd::from(stream)).stdout(Stdio::null()).stderr(log);
                let child = command.spawn().expect("sh");
                drop(command);
                if started.send(child).is_err() {
                    break;
                }
            }
        });
        Self { socket, log, instances: Mutex::new(instances) }
    }

    /// The process that was started for the next of those who have connected.
    ///
    /// # Panics
    /// When nobody has.
    pub fn instance(&self) -> Child {
        self.instances.lock().expect("whole").recv_timeout(Duration::from_secs(10)).expect("somebody has connected")
    }

    /// Connects as another user would, of this group and these others.
    ///
    /// # Panics
    /// When nobody listens.
    pub fn connect(&self, uid: Uid, gid: Gid, groups: &[u32]) -> UnixStream {
        let socket = self.socket.as_path();
        as_user(uid, gid, groups, || UnixStream::connect(socket).expect("somebody listens"))
    }

    /// Asks for a directory with what a server sends first.
    ///
    /// # Panics
    /// When nobody listens.
    pub fn ask(&self, who: (Uid, Gid, &[u32]), dir: impl AsFd) -> UnixStream {
        let socket = self.connect(who.0, who.1, who.2);
        ask(&socket, dir);
        socket
    }

    /// Why a directory is not given to who asks for it; the instance has ended.
    ///
    /// # Panics
    /// When it is given.
    pub fn refusal(&self, who: (Uid, Gid, &[u32]), dir: impl AsFd) -> String {
        let socket = self.ask(who, dir);
        let _ = send_hello(&socket, &Hello { version: VERSION, channels: 1, wants_map: false });
        let news = receive_news(&socket);
        let mut instance = self.instance();
        assert!(ends(&mut instance), "it goes on");
        assert_eq!(instance.wait().expect("own child").code(), Some(1));
        let Ok(News::Refused(why)) = news else { panic!("{news:?}: {}", self.log()) };
        assert!(self.log().contains(&why), "{why:?} is not logged: {}", self.log());
        why
    }

    /// What the instances have written, and whoever else in that place.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// What a server asks without options, or with a map of attributes.
///
/// # Panics
/// When the map is too long for a server.
pub fn question(xattrmap: Option<&str>) -> Ask {
    let xattrmap = xattrmap.map(|map| map.to_owned().try_into().expect("short"));
    Ask { version: VERSION, readonly: false, model: Model::Passthrough, fmode: None, dmode: None, xattrmap }
}

/// Asks for a directory as a server does.
pub fn ask(socket: &UnixStream, dir: impl AsFd) {
    // A helper may have refused by then, whatever is asked.
    let _ = send_ask(socket, &question(None), dir.as_fd());
}

/// Does something as another user, in a thread of its own.
///
/// # Panics
/// When it does, or when this is not root.
pub fn as_user<T: Send>(uid: Uid, gid: Gid, groups: &[u32], act: impl FnOnce() -> T + Send) -> T {
    let become_and_act = || {
        let groups: Vec<_> = groups.iter().copied().map(rustix::process::Gid::from_raw).collect();
        set_thread_groups(&groups).expect("root");
        set_thread_gid(rustix::process::Gid::from_raw(gid.as_raw())).expect("root");
        set_thread_uid(rustix::process::Uid::from_raw(uid.as_raw())).expect("root");
        act()
    };
    std::thread::scope(|scope| scope.spawn(become_and_act).join()).expect("done")
}

/// From now on this test, and what it starts, is on a host with this policy, or without one, where nobody shares yet.
///
/// # Panics
/// When it is not root's.
pub fn host_with(policy: Option<&str>) {
    mounts::alone();
    for dir in [POLICY, COUNTS] {
        fs::create_dir_all(dir).expect("root");
        mounts::memory(Path::new(dir), (0, 0));
    }
    if let Some(policy) = policy {
        write_policy(policy);
    }
}

/// Replaces the policy.
///
/// # Panics
/// When it cannot.
pub fn write_policy(text: &str) {
    fs::write(policy(), text).expect("own directory");
}

/// Where it is.
pub fn policy() -> PathBuf {
    Path::new(POLICY).join("policy.toml")
}
