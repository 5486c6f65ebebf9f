//! Labels that a security module of the guest wants for what the guest makes: stored with it, or it is not made.

use nix::errno::Errno;
use postern_server::fuse::abi::{CreateIn, EntryOut, LinkIn, MkdirIn, MknodIn, OpenInFlags, OpenOut};
use postern_tests::hostile::tried;
use postern_tests::prelude::*;
use zerocopy::FromBytes;

/// What a share with labels is served with.
fn serve_with(on: Kind, args: &[&str]) -> Share {
    args.iter().fold(on.setup().plain(), |setup, arg| setup.arg(arg)).serve()
}

const SELINUX: &[u8] = b"security.selinux";
const VALUE: &[u8] = b"system_u:object_r";
/// What the guest's label is called on the host, where it is stored for the guest only.
const STORED: &str = "user.postern.security.selinux";

/// Bytes of the answer to CREATE and TMPFILE.
const CREATED: usize = size_of::<EntryOut>() + size_of::<OpenOut>();

/// How a label comes: Linux 6.3 and later say it in an extension, those before in an argument.
#[derive(Clone, Copy, Debug)]
enum Comes {
    AsExtension,
    AsArgument,
}

use Comes::{AsArgument, AsExtension};

/// Adds a label to a request.
fn labelled<'a>(request: Request<'a>, comes: Comes, name: &[u8], value: &[u8]) -> Request<'a> {
    let label = [&(value.len() as u32).to_le_bytes()[..], &[0; 4], name, b"\0", value].concat();
    let size = (8 + label.len()).next_multiple_of(8);
    let mut extension = [&(size as u32).to_le_bytes()[..], &1_u32.to_le_bytes(), &label].concat();
    extension.resize(size, 0);
    let request = request.bytes(&extension);
    match comes {
        AsExtension => request.extlen(size as u16 / 8),
        AsArgument => request,
    }
}

/// What makes a node `n`, and how large the answer is.
type Making = (&'static str, fn() -> Request<'static>, usize);

fn mknod(kind: u32) -> Request<'static> {
    let args = MknodIn { mode: kind | 0o644, rdev: 0, umask: 0, padding: 0 };
    Request::new(opcode::MKNOD, ROOT_ID).arg(&args).name(b"n")
}

fn create(opcode: u32, flags: i32, name: &[u8]) -> Request<'static> {
    let args = CreateIn { flags: flags as u32, mode: S_IFREG | 0o644, umask: 0, open_flags: OpenInFlags::empty() };
    Request::new(opcode, ROOT_ID).arg(&args).name(name)
}

fn mkdir() -> Request<'static> {
    Request::new(opcode::MKDIR, ROOT_ID).arg(&MkdirIn { mode: 0o755, umask: 0 }).name(b"n")
}

/// What can have an attribute of its owner's. xattr(7): "user extended attributes ... for regular files and
/// directories"
const FILES: [Making; 3] = [
    ("a directory", mkdir, size_of::<EntryOut>()),
    ("a node that is a file", || mknod(S_IFREG), size_of::<EntryOut>()),
    ("a file that is opened", || create(opcode::CREATE, O_RDWR, b"n"), CREATED),
];
/// What cannot. A character device 0:0 is a whiteout, which everybody may make.
const OTHERS: [Making; 4] = [
    ("a symbolic link", || Request::new(opcode::SYMLINK, ROOT_ID).name(b"n").name(b"target"), size_of::<EntryOut>()),
    ("a pipe", || mknod(S_IFIFO), size_of::<EntryOut>()),
    ("a socket", || mknod(S_IFSOCK), size_of::<EntryOut>()),
    ("a whiteout", || mknod(S_IFCHR), size_of::<EntryOut>()),
];

/// Makes `n` with a label.
fn make(share: &Share, (_, request, room): Making, comes: Comes, name: &[u8], value: &[u8]) -> Result<(), Errno> {
    share.raw(&labelled(request(), comes, name, value).room_bytes(room)).map(drop)
}

// postern-server(1): --security-label: "New files get the label that a security module of the guest wants"
#[apply(promise)]
fn a_new_file_gets_the_label_that_the_guest_wants(on: Kind) {
    for making in FILES {
        let share = serve_with(on, &["--security-label"]);
        make(&share, making, AsExtension, b"user.label", VALUE).unwrap();
        assert_eq!(share.host.getxattr("n", "user.label").unwrap(), VALUE, "{}", making.0);
    }
}

/// Each of these has its label where a label is stored, and none is there without.
fn are_labelled(on: Kind, makings: &[Making]) {
    for &making in makings {
        for comes in [AsExtension, AsArgument] {
            let share = serve_with(on, &["--security-label", "--xattrmap=guest"]);
            make(&share, making, comes, SELINUX, VALUE)
                .unwrap_or_else(|e| panic!("{on:?} {} {comes:?}: {e}", making.0));
            assert_eq!(share.host.getxattr("n", STORED).as_deref(), Some(VALUE), "{on:?} {} {comes:?}", making.0);
            assert_eq!(share.getxattr("n", "security.selinux").unwrap(), VALUE, "{on:?} {} {comes:?}", making.0);
        }
    }
}

/// None of these is made.
fn are_not_made(on: Kind, makings: &[Making]) {
    for &making in makings {
        for comes in [AsExtension, AsArgument] {
            let share = serve_with(on, &["--security-label", "--xattrmap=guest"]);
            assert_eq!(make(&share, making, comes, SELINUX, VALUE), Err(EPERM), "{on:?} {} {comes:?}", making.0);
            assert_eq!(share.host.list(""), Vec::<String>::new(), "{on:?} {}", making.0);
            let unlabelled = share.raw(&making.1().room_bytes(making.2)).map(drop);
            assert_eq!(unlabelled, Ok(()), "{on:?} {}: it is for its label that it is not made", making.0);
        }
    }
}

// postern-server(1): --security-label: "with --xattrmap=guest it is stored for the guest's"
#[apply(promise)]
fn a_label_that_the_host_must_not_know_is_stored(on: Kind) {
    are_labelled(on, &FILES);
}

// postern-server(1): --security-label: "Links, pipes and sockets can have a stored one only where a file stands for
// them ... and are not made elsewhere"
#[apply(promise)]
fn what_cannot_have_its_label_is_not_made(on: Kind) {
    are_not_made(on, &OTHERS);
}

#[test]
fn what_a_file_stands_for_has_its_label() {
    for on in [Kind::MappedXattr, Kind::MappedFile] {
        are_labelled(on, &FILES);
        are_labelled(on, &OTHERS);
    }
    let [link, rest @ ..] = OTHERS;
    are_labelled(Kind::MappedLinks, &rest);
    are_not_made(Kind::MappedLinks, &[link]);
}

// open(2): O_TMPFILE: the file has no name, and gets its label as others do
#[apply(promise)]
fn a_file_without_a_name_gets_its_label(on: Kind) {
    let making: Making = ("a file without a name", || create(opcode::TMPFILE, O_RDWR | libc::O_TMPFILE, b""), CREATED);
    for comes in [AsExtension, AsArgument] {
        let share = serve_with(on, &["--security-label", "--xattrmap=guest"]);
        let made = share.raw(&labelled(making.1(), comes, SELINUX, VALUE).room_bytes(making.2)).unwrap();
        let oldnodeid = EntryOut::read_from_prefix(&made).unwrap().0.nodeid;
        let link = Request::new(opcode::LINK, ROOT_ID).arg(&LinkIn { oldnodeid }).name(b"n");
        share.raw(&link.room::<EntryOut>()).unwrap();
        assert_eq!(share.host.getxattr("n", STORED).as_deref(), Some(VALUE), "{comes:?}");
    }
    let share = serve_with(on, &["--security-label"]);
    assert!(make(&share, making, AsExtension, b"trusted.label", &[b'x'; 60_000]).is_err());
}

// postern-server(1): --security-label: "The host's kernel must allow the helper to set it"; a file without its label
// must not stay
#[apply(promise)]
fn a_file_that_cannot_have_its_label_is_not_left_behind(on: Kind) {
    let share = serve_with(on, &["--security-label"]);
    for making in FILES.into_iter().chain(OTHERS) {
        assert!(make(&share, making, AsExtension, b"trusted.label", &[b'x'; 60_000]).is_err(), "{}", making.0);
        assert_eq!(share.host.list(""), Vec::<String>::new(), "{}", making.0);
    }
}

// postern-server(1): --posix-acl: without it ACLs are out of the guest's reach; xattr(7): a name has a namespace
#[apply(promise)]
fn what_is_called_a_label_is_no_way_around_other_options(on: Kind) {
    let share = serve_with(on, &["--security-label"]);
    let acl = postern_tests::named::acl(7, 8);
    let mut attempts = 0;
    for name in ["system.posix_acl_access", "system.posix_acl_default", "", "no namespace", "security."] {
        for making in FILES {
            assert!(make(&share, making, AsExtension, name.as_bytes(), &acl).is_err(), "{name:?} {}", making.0);
            assert_eq!(share.host.list(""), Vec::<String>::new(), "{name:?} {}", making.0);
            attempts += 1;
        }
    }
    tried("labels that are none", attempts);
}

// fuse: without FUSE_SECURITY_CTX no label is sent
#[apply(promise)]
fn labels_are_not_asked_for_unless_wanted(on: Kind) {
    assert!(!serve_with(on, &["--xattr"]).granted().contains(InitFlags::SECURITY_CTX));
}
