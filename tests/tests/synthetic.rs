//! Every frontend serves a tree that lives in memory: what guests see of a file system is then the frontend's alone,
//! and nothing but this process is needed.

use std::io::Read as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use postern_server::fs::synthetic::Synthetic;
use postern_server::p9::message::{Rremove, Rsymlink, Tremove, Tsymlink};
use postern_server::p9::wire::Text;
use postern_server::vhost::{Device, Socket, Threads, Transport};
use postern_server::{fuse, p9, proxy};
use postern_tests::fuse::{LINUX, Link};
use postern_tests::p9::{Client, ROOT};
use postern_tests::prelude::*;
use postern_tests::proxy::{Arg, Proxy, kind};
use postern_tests::vmm::{Machine, Vmm};

/// A VMM with a device of this process.
fn plug(device: Arc<dyn Device>, machine: &Machine) -> Vmm {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let transport = Transport::new(device, Threads { workers: 1, pool: 1, poll: Duration::ZERO }).unwrap();
    std::thread::spawn(move || transport.serve(Socket::Connected(theirs), true));
    Vmm::connect(ours, machine)
}

fn virtiofs() -> Process {
    let settings = fuse::Settings { xattr: true, ..fuse::Settings::default() };
    let session = fuse::Session::new(Arc::new(Synthetic::default()), settings, 1, None);
    Process::new(Arc::new(Link::open(plug(Arc::new(session), &Machine::default()), LINUX)))
}

fn virtio_9p() -> Client {
    let settings = p9::Settings { msize: p9::MSIZE_MAX, xattr: true, posix_acl: false, fids: 1024 };
    let session = p9::Session::new(Arc::new(Synthetic::default()), p9::Users::Judged, settings);
    let machine = Machine { request_queues: 0, ..Machine::default() };
    Client::mount(plug(Arc::new(p9::Device::new(session, "memory")), &machine))
}

fn qemus_proxy() -> Proxy {
    let place = tempfile::tempdir().unwrap();
    let socket = place.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || proxy::serve(&Synthetic::default(), listener.accept().unwrap().0));
    Proxy::meet(&socket, place.path(), Kind::Root)
}

#[test]
fn virtio_fs_makes_finds_changes_and_removes() {
    let guest = virtiofs();
    guest.mkdir("d", 0o750).unwrap();
    let file = guest.create("d/f", O_RDWR, 0o640).unwrap();
    assert_eq!(guest.write(&file, 3, b"there").unwrap(), 5);
    assert_eq!(guest.read(&file, 0, 100).unwrap(), b"\0\0\0there");
    guest.symlink("d/f", "s").unwrap();
    assert_eq!(guest.readlink("s").unwrap(), "d/f");
    assert_eq!(guest.link("d/f", "g").unwrap().attr.nlink, 2);
    guest.setxattr("g", "user.a", b"x", 0).unwrap();
    assert_eq!(guest.getxattr("d/f", "user.a").unwrap(), b"x");
    assert_eq!(guest.chown("g", Some(1000), Some(1001)).map(|attr| (attr.uid, attr.gid)), Ok((1000, 1001)));
    guest.rename("g", "d/g").unwrap();
    assert_eq!(guest.list("d").unwrap(), ["f", "g"]);
    assert_eq!(guest.rmdir("d"), Err(ENOTEMPTY));
    assert_eq!(guest.unlink("d"), Err(EISDIR));
    assert_eq!(guest.mkdir("d", 0o700).err(), Some(EEXIST));
    guest.unlink("d/f").unwrap();
    guest.unlink("d/g").unwrap();
    assert_eq!(guest.read(&file, 3, 5).unwrap(), b"there");
    guest.rmdir("d").unwrap();
    assert_eq!(guest.lookup("d").err(), Some(ENOENT));
}

#[test]
fn virtio_9p_makes_finds_changes_and_removes() {
    let guest = virtio_9p();
    guest.mkdir("d", 0o750).unwrap();
    let file = guest.create("d", "f", O_RDWR, 0o640).unwrap();
    assert_eq!(guest.write(file, 3, b"there").unwrap(), 5);
    assert_eq!(guest.read(file, 0, 100).unwrap(), b"\0\0\0there");
    let symlink = Tsymlink { dfid: ROOT, name: Text(b"s"), target: Text(b"d/f"), gid: 0 };
    guest.call::<_, Rsymlink>(&symlink).unwrap();
    guest.setxattr("d/f", "user.a", b"x", 0).unwrap();
    assert_eq!(guest.getxattr("d/f", "user.a").unwrap(), b"x");
    let dir = guest.open("d", O_RDONLY).unwrap();
    let names: Vec<_> = guest.readdir(dir, 0, 4096).unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, [".", "..", "f"]);
    assert_eq!(guest.unlink(ROOT, "d", libc::AT_REMOVEDIR as u32), Err(ENOTEMPTY));
    assert_eq!(guest.mkdir("d", 0o700).err(), Some(EEXIST));
    let fid = guest.walk("d/f").unwrap();
    guest.call::<_, Rremove>(&Tremove { fid }).unwrap();
    assert_eq!(guest.read(file, 3, 5).unwrap(), b"there");
    guest.unlink(ROOT, "d", libc::AT_REMOVEDIR as u32).unwrap();
    assert_eq!(guest.walk("d"), Err(ENOENT));
}

#[test]
fn qemus_proxy_makes_finds_changes_and_removes() {
    use Arg::{D, Q, S};
    let mut qemu = qemus_proxy();
    let done = |answer: Result<i32, Errno>| assert_eq!(answer, Ok(0));
    done(qemu.status(kind::MKDIR, &[D(1000), D(1001), S(b"//d"), D(0o750)]));
    let attr = qemu.stat("//d").unwrap();
    assert_eq!((attr.mode, attr.uid, attr.gid), (S_IFDIR | 0o750, 1000, 1001));
    let made = [S(b"//d/f"), D((O_RDWR | O_CREAT) as u32), D(0o640), D(0), D(0)];
    let mut file = qemu.open(kind::CREATE, &made).unwrap();
    let mut content = String::new();
    file.read_to_string(&mut content).unwrap();
    assert_eq!(content, "");
    done(qemu.status(kind::SYMLINK, &[D(0), D(0), S(b"d/f"), S(b"//s")]));
    assert_eq!(qemu.string(kind::READLINK, &[S(b"//s"), D(100)]).unwrap(), b"d/f");
    done(qemu.status(kind::TRUNCATE, &[S(b"//d/f"), Q(5)]));
    assert_eq!(qemu.stat("//d/f").unwrap().size, 5);
    done(qemu.status(kind::RENAME, &[S(b"//d/f"), S(b"//g")]));
    assert_eq!(qemu.stat("//d/f"), Err(ENOENT));
    done(qemu.status(kind::REMOVE, &[S(b"//g")]));
    done(qemu.status(kind::REMOVE, &[S(b"//d")]));
    assert_eq!(qemu.stat("//d"), Err(ENOENT));
}
