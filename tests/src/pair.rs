//! Server and helper started one by one, with the sockets that each is given.

use std::ops::Deref;
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::sync::Arc;

use libc::O_RDWR;
use nix::errno::Errno::{ENOENT, ENOTDIR};

use crate::fuse::{LINUX, Link, Process};
use crate::host::{Host, ids};
use crate::share::Scratch;
use crate::vmm::{Machine, Vmm};

/// What becomes another program with descriptors 3 and 4.
pub const PASS: &str = r#"exec "$0" "$@" 3<&0 4<&1 </dev/null >&2"#;
/// The same where no more user namespaces can be made.
pub const CONFINED: &str = r#"echo 0 >/proc/sys/user/max_user_namespaces || exit
exec setpriv --inh-caps=-all --ambient-caps=-all "$0" "$@" 3<&0 4<&1 </dev/null >&2"#;

/// Words before that script.
pub const NO_NAMESPACES: [&str; 6] = ["unshare", "--user", "--map-current-user", "--keep-caps", "sh", "-c"];

/// Two programs that somebody else has started, and a guest.
pub struct Pair {
    /// The guest, while it is there.
    pub guest: Option<Process>,
    /// The share as the host sees it.
    pub host: Host,
    /// One of them.
    pub server: Child,
    /// The other.
    pub helper: Child,
    /// Where the share lies.
    pub scratch: Scratch,
}

impl Deref for Pair {
    type Target = Process;

    fn deref(&self) -> &Process {
        self.guest.as_ref().expect("mounted")
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for process in [&mut self.server, &mut self.helper] {
            let _ = process.kill();
            let _ = process.wait();
        }
        if std::thread::panicking() {
            self.scratch.show_log();
        }
    }
}

/// A guest that mounts what is served at the other end.
pub fn mount(stream: UnixStream) -> Process {
    Process::new(Arc::new(Link::open(Vmm::connect(stream, &Machine::default()), LINUX)))
}

/// A bit of everything that looks at the share or changes it.
///
/// # Panics
/// When something does not work.
pub fn assert_works(guest: &Process, host: &Host) {
    guest.put("f", b"hello").unwrap();
    guest.mkdir("d", 0o755).unwrap();
    let user = guest.as_user(1000);
    guest.mkdir("home", 0o777).unwrap();
    guest.chmod("home", 0o777).unwrap();
    let made = user.create("home/own", O_RDWR, 0o600).unwrap();
    assert_eq!(user.write(&made, 0, b"mine").unwrap(), 4);
    assert_eq!(host.stat("home/own").owner, ids(1000, 1000));
    assert_eq!(user.fgetattr(&made).unwrap().size, 4);
    assert_eq!(guest.statx("f", 0xfff).unwrap().size, 5);
    guest.symlink("f", "l").unwrap();
    assert_eq!(guest.readlink("l").unwrap(), "f");
    guest.link("f", "d/g").unwrap();
    guest.rename("d/g", "d/h").unwrap();
    guest.setxattr("f", "user.a", b"x", 0).unwrap();
    assert_eq!(guest.getxattr("f", "user.a").unwrap(), b"x");
    guest.chmod("f", 0o640).unwrap();
    guest.chown("f", Some(7), Some(8)).unwrap();
    guest.truncate("f", 3).unwrap();
    assert_eq!((host.read("d/h"), host.stat("f").owner), (b"hel".to_vec(), ids(7, 8)));
    assert_eq!(guest.list("").unwrap(), ["d", "f", "home", "l"]);
    let dir = guest.opendir("").unwrap();
    let listed = guest.readdirplus(&dir, 0, 4096).unwrap();
    let inode = listed.iter().find(|(_, entry)| entry.name == "f").unwrap().0.attr.ino;
    assert_eq!(inode, host.stat("f").ino);
    let nameless = guest.tmpfile("", O_RDWR, 0o600).unwrap();
    assert_eq!(guest.write(&nameless, 0, b"x").unwrap(), 1);
    guest.statfs("d").unwrap();
    guest.access("f", 4).unwrap();
    guest.unlink("d/h").unwrap();
    guest.rmdir("d").unwrap();
    assert_eq!(guest.lookup("d").map(drop), Err(ENOENT));
    assert_eq!(guest.lookup("f/x").map(drop), Err(ENOTDIR));
}
