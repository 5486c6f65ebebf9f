//! A caller whom no guest's kernel has judged: the helper does all of an operation as him, and the kernel judges.

use std::os::fd::AsFd;

use postern_ipc::Errno;
use postern_ipc::attr::{Changes, Mode, OpenFlags, RenameFlags, TimeChange, XattrFlags};
use postern_ipc::id::{Caller, GuestGid, GuestUid};
use postern_ipc::name::{FileName, XattrName};
use postern_ipc::op::*;
use postern_tests::prelude::{apply, ids, promise};
use postern_tests::twin::Twin;

fn name(name: &str) -> FileName {
    FileName::new(name.as_bytes()).unwrap()
}

fn alone(id: u32) -> Caller {
    Caller::Alone { uid: GuestUid(id), gid: GuestGid(id) }
}

fn create(file: &str) -> Create {
    let flags = OpenFlags::READ | OpenFlags::WRITE;
    Create { name: name(file), mode: Mode::new(0o666), umask: Mode::new(0), flags }
}

/// A directory of user 1, which only he may search, and a public one with a file of his that only he may read.
fn plant(twin: &Twin) {
    for (dir, mode) in [("closed", 0o700), ("open", 0o755)] {
        twin.host.mkdir(dir);
        twin.host.chmod(dir, mode);
        twin.host.write(&format!("{dir}/f"), b"secret");
        twin.host.chown(&format!("{dir}/f"), 1, 1);
        twin.host.chmod(&format!("{dir}/f"), 0o600);
        twin.host.chown(dir, 1, 1);
    }
}

// path_resolution(7), open(2), chmod(2), unlink(2), xattr(7), capabilities(7): what a process without privileges gets
#[apply(promise)]
fn the_kernel_judges_who_acts_alone(on: Kind) {
    let mut twin = Twin::new(on);
    plant(&twin);
    let (root, closed, open, file) =
        (twin.root.try_clone().unwrap(), twin.pin("closed"), twin.pin("open"), twin.pin("open/f"));
    let (root, closed, open, file) = (root.as_fd(), closed.as_fd(), open.as_fd(), file.as_fd());
    let cap = XattrName::new(b"security.capability").unwrap();
    let vfs_cap = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let chmod = SetAttr { changes: Changes { mode: Some(Mode::new(0o777)), ..Changes::default() } };
    let now = TimeChange::Now;
    let touch = SetAttr { changes: Changes { atime: now, mtime: now, ..Changes::default() } };
    let chown = SetAttr { changes: Changes { uid: Some(GuestUid(2)), ..Changes::default() } };
    let rename = Rename { name: name("f"), new_name: name("g"), flags: RenameFlags::empty() };
    macro_rules! ask {
        ($caller:expr, $op:expr, $at:expr) => {
            ask!($caller, $op, $at, b"")
        };
        ($caller:expr, $op:expr, $at:expr, $data:expr) => {
            twin.ask_as($caller, &$op, &$at, $data).map(drop)
        };
    }
    let (denied, forbidden) = (Err(Errno::EACCES), Err(Errno::EPERM));
    for flags in [OpenFlags::READ, OpenFlags::WRITE, OpenFlags::WRITE | OpenFlags::TRUNC] {
        assert_eq!(ask!(alone(2), Open { flags }, [file]), denied);
    }
    assert_eq!(ask!(alone(2), Lookup { name: name("f") }, [closed]), denied);
    assert_eq!(ask!(alone(2), OpenDir {}, [closed]), denied);
    assert_eq!(ask!(alone(2), OpenDir {}, [open]), Ok(()));
    assert_eq!(ask!(alone(2), create("new"), [open]), denied);
    assert_eq!(ask!(alone(2), create("f"), [open]), denied);
    let mkdir = Mkdir { name: name("d"), mode: Mode::new(0o755), umask: Mode::new(0) };
    assert_eq!(ask!(alone(2), mkdir, [open]), denied);
    assert_eq!(ask!(alone(2), Unlink { name: name("f") }, [open]), denied);
    assert_eq!(ask!(alone(2), rename, [open, root]), denied);
    assert_eq!(ask!(alone(2), chmod, [file]), forbidden);
    assert_eq!(ask!(alone(2), chown, [file]), forbidden);
    assert_eq!(ask!(alone(2), touch, [file]), denied);
    let get = GetXattr { name: XattrName::new(b"user.a").unwrap(), size: 10 };
    assert_eq!(ask!(alone(2), get, [file]), denied);
    for who in [1, 2] {
        let set = SetXattr { name: cap, flags: XattrFlags::empty() };
        assert_eq!(ask!(alone(who), set, [file], &vfs_cap), forbidden);
    }
    assert_eq!(twin.host.read("open/f"), b"secret");
    assert_eq!((twin.host.stat("open/f").perm(), twin.host.list("open")), (0o600, vec!["f".into()]));

    // The owner may, and what he makes is his; nobody keeps anything from one request to the next.
    assert_eq!(ask!(alone(1), Lookup { name: name("f") }, [closed]), Ok(()));
    assert_eq!(ask!(alone(1), Open { flags: OpenFlags::READ | OpenFlags::WRITE }, [file]), Ok(()));
    assert_eq!(ask!(alone(1), chmod, [file]), Ok(()));
    assert_eq!(ask!(alone(1), chown, [file]), forbidden);
    assert_eq!(ask!(alone(1), create("new"), [closed]), Ok(()));
    assert_eq!(twin.host.stat("closed/new").owner, ids(1, 1));
    assert_eq!(ask!(alone(2), Open { flags: OpenFlags::READ }, [file]), Ok(()), "chmod has let him");
    assert_eq!(ask!(Caller::Root, chown, [file]), Ok(()));
    assert_eq!(ask!(Caller::Root, create("of root"), [closed]), Ok(()));
    assert_eq!(ask!(alone(0), create("of root, alone"), [closed]), Ok(()));
    assert_eq!(twin.host.stat("closed/of root, alone").owner, ids(0, 0));
    twin.assert_contained();
}

// user_namespaces(7): an id without a host id is nobody
#[apply(promise)]
fn who_is_not_mapped_does_nothing_alone(on: Kind) {
    let mut twin = Twin::new(on);
    let Some(unmapped) = twin.host.unmapped_id() else {
        return assert!(!on.has_map(), "every id of the guest is an id of the host");
    };
    let root = twin.root.try_clone().unwrap();
    twin.host.write("f", b"");
    for (uid, gid) in [(unmapped, 1), (1, unmapped), (u32::MAX, u32::MAX)] {
        let caller = Caller::Alone { uid: GuestUid(uid), gid: GuestGid(gid) };
        let looked = twin.ask_as(caller, &Lookup { name: name("f") }, &[root.as_fd()], b"");
        assert_eq!(looked.map(drop), Err(Errno::EOVERFLOW));
        assert!(twin.ask(&Lookup { name: name("f") }, &[root.as_fd()]).is_ok());
    }
}

// mount(8): "ro"
#[apply(promise)]
fn a_read_only_share_is_read_by_who_may(on: Kind) {
    let mut twin = Twin::with(on, &["--readonly"]);
    plant(&twin);
    let (file, closed) = (twin.pin("open/f"), twin.pin("closed"));
    let open = |flags| Open { flags };
    assert_eq!(twin.ask_as(alone(2), &open(OpenFlags::READ), &[file.as_fd()], b"").map(drop), Err(Errno::EACCES));
    assert_eq!(twin.ask_as(alone(2), &OpenDir {}, &[closed.as_fd()], b"").map(drop), Err(Errno::EACCES));
    assert!(twin.ask_as(alone(1), &open(OpenFlags::READ), &[file.as_fd()], b"").is_ok());
    assert_eq!(twin.ask_as(alone(1), &open(OpenFlags::WRITE), &[file.as_fd()], b"").map(drop), Err(Errno::EROFS));
    assert!(twin.ask(&open(OpenFlags::READ), &[file.as_fd()]).is_ok());
}
