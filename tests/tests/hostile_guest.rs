//! A guest that means harm: whatever it sends, it gets an errno or loses its ring, nothing outside the share changes,
//! and the server lives, answers on its other rings, and does not spin.

use std::time::Duration;

use postern_server::fuse::abi::*;
use postern_tests::fuse::{Caller, LINUX, PATIENCE};
use postern_tests::hostile::bad_names;
use postern_tests::prelude::*;
use postern_tests::ring::{DATA_MAX, Piece};
use virtio_bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use virtio_queue::desc::split::Descriptor;
use zerocopy::IntoBytes;

const NEXT: u16 = VRING_DESC_F_NEXT as u16;
const WRITE: u16 = VRING_DESC_F_WRITE as u16;
const INDIRECT: u16 = VRING_DESC_F_INDIRECT as u16;
/// How long to wait for what need not come.
const A_MOMENT: Duration = Duration::from_millis(100);

/// A share with a file `f`, a directory `d` with a file, and a symbolic link out of it.
fn bait(share: &Share) {
    share.host.write("f", b"hello");
    share.host.mkdir("d");
    share.host.write("d/f", b"inner");
    share.host.symlink("../outside", "out");
    share.host.symlink("../outside/canary", "canary");
}

/// Checks that the server is what it was, and the share and its surroundings too.
fn assert_unharmed(share: &Share) {
    assert!(share.server.lives(), "the server has ended");
    assert_eq!(share.getattr(ROOT_ID).unwrap().mode, S_IFDIR | 0o777);
    assert_eq!(share.host.list(""), ["canary", "d", "f", "out"]);
    assert_eq!((share.host.read("f"), share.host.list("d")), (b"hello".to_vec(), vec!["f".into()]));
    share.server.assert_contained();
}

/// Checks that the server lives, that ring 2 answers at once, that it does not spin, and that a reset heals ring 1.
fn assert_ring_harms_nobody(share: &Share) {
    assert!(share.server.lives(), "the server has ended");
    share.on_queue(1).getattr(ROOT_ID).unwrap();
    let before = share.server.cpu_time();
    std::thread::sleep(A_MOMENT);
    let spent = share.server.cpu_time() - before;
    assert!(spent < A_MOMENT / 2, "{spent:?} of {A_MOMENT:?} spent on nothing");
    share.fuse().vmm.reboot();
    share.fuse().init(LINUX).unwrap();
    share.getattr(ROOT_ID).unwrap();
    share.server.assert_contained();
}

// path_resolution(7): a component of a path is a filename: no '/', no NUL, at most 255 bytes
#[apply(promise)]
fn libkrun_329_arcbox_474_a_bad_name_names_nothing(share: &Share) {
    bait(share);
    let file = share.lookup("f").unwrap().nodeid;
    for name in bad_names() {
        let on_root = |opcode| Request::new(opcode, ROOT_ID).room_bytes(256);
        let requests = [
            on_root(opcode::LOOKUP).name(&name),
            on_root(opcode::UNLINK).name(&name),
            on_root(opcode::RMDIR).name(&name),
            on_root(opcode::MKDIR).arg(&MkdirIn { mode: 0o755, umask: 0 }).name(&name),
            on_root(opcode::MKNOD).arg(&MknodIn { mode: S_IFREG | 0o644, ..Default::default() }).name(&name),
            on_root(opcode::CREATE)
                .arg(&CreateIn { flags: O_RDWR as u32, mode: 0o644, ..Default::default() })
                .name(&name),
            on_root(opcode::SYMLINK).name(&name).name(b"target"),
            on_root(opcode::LINK).arg(&LinkIn { oldnodeid: file }).name(&name),
            on_root(opcode::RENAME).arg(&RenameIn { newdir: ROOT_ID }).name(b"f").name(&name),
            on_root(opcode::RENAME).arg(&RenameIn { newdir: ROOT_ID }).name(&name).name(b"new"),
            on_root(opcode::RENAME2).arg(&Rename2In { newdir: ROOT_ID, ..Default::default() }).name(b"f").name(&name),
            on_root(opcode::RENAME2).arg(&Rename2In { newdir: ROOT_ID, ..Default::default() }).name(&name).name(b"new"),
        ];
        for request in requests {
            let reply = share.raw(&request);
            assert!(reply.is_err(), "{:?} obeyed in {request:?}", String::from_utf8_lossy(&name));
        }
    }
    assert_unharmed(share);
}

// FUSE: names end with a NUL
#[apply(promise)]
fn a_name_without_an_end_names_nothing(share: &Share) {
    bait(share);
    for opcode in [opcode::LOOKUP, opcode::UNLINK, opcode::RMDIR, opcode::SYMLINK, opcode::REMOVEXATTR] {
        assert!(share.raw(&Request::new(opcode, ROOT_ID).bytes(b"f").room_bytes(256)).is_err(), "{opcode}");
    }
    assert_unharmed(share);
}

// symlink(7): the guest's kernel follows links; a server asked to act on one does not
#[apply(promise)]
fn a_symbolic_link_leads_nowhere(share: &Share) {
    bait(share);
    let (dir, file) = (share.lookup("out").unwrap().nodeid, share.lookup("canary").unwrap().nodeid);
    assert!(share.lookup((dir, "canary")).is_err());
    assert!(share.mkdir((dir, "new"), 0o755).is_err());
    assert!(share.create((dir, "canary"), O_RDWR | O_TRUNC, 0o644).is_err());
    assert!(share.mknod((dir, "new"), S_IFREG | 0o644, 0).is_err());
    assert!(share.symlink("x", (dir, "new")).is_err());
    assert!(share.unlink((dir, "canary")).is_err());
    assert!(share.rename((dir, "canary"), "stolen").is_err());
    assert!(share.rename("f", (dir, "new")).is_err());
    assert!(share.link("f", (dir, "new")).is_err());
    assert!(share.opendir(dir).is_err());
    assert!(share.create("canary", O_RDWR | O_TRUNC, 0o644).is_err());
    for flags in [O_RDONLY, O_WRONLY, O_RDWR | O_TRUNC, O_RDONLY | O_DIRECTORY] {
        assert!(share.open(file, flags).is_err());
    }
    assert!(share.truncate(file, 0).is_err());
    assert!(share.chmod(file, 0o777).is_err());
    let _ = share.setxattr(file, "user.a", b"x", 0);
    assert_unharmed(share);
}

// open(2): FIFOs, sockets and devices are opened by the guest's kernel, never by the server
#[apply(promise)]
fn cve_2020_35517_a_special_file_is_not_opened(share: &Share) {
    use nix::sys::stat::SFlag;
    for (name, kind) in [("p", SFlag::S_IFIFO), ("s", SFlag::S_IFSOCK), ("null", SFlag::S_IFCHR)] {
        share.host.mknod(name, kind);
        for flags in [O_RDONLY, O_WRONLY, O_RDWR, O_RDONLY | O_TRUNC] {
            assert!(share.open(name, flags).is_err(), "{name} {flags:o}");
            assert!(share.create(name, flags, 0o644).is_err(), "{name} {flags:o}");
        }
        assert!(share.truncate(name, 0).is_err());
        assert!(share.opendir(name).is_err());
    }
}

// FUSE: a nodeid that was never given out names nothing
#[apply(promise)]
fn an_unknown_node_is_refused(share: &Share) {
    bait(share);
    for opcode in 1..=53 {
        if matches!(opcode, opcode::FORGET | opcode::INIT | opcode::INTERRUPT | opcode::DESTROY | opcode::BATCH_FORGET)
        {
            continue;
        }
        for node in [0, 2, 77, 1 << 32, u64::MAX] {
            let request = Request::new(opcode, node).bytes(&[0; 64]).name(b"f").name(b"g").room_bytes(1024);
            assert!(share.raw(&request).is_err(), "opcode {opcode} on node {node}");
        }
    }
    assert!(share.rename("f", (77, "g")).is_err());
    assert!(share.link(77, "g").is_err());
    assert_unharmed(share);
}

// FUSE: a forgotten nodeid names nothing
#[apply(promise)]
fn a_forgotten_node_is_refused(share: &Share) {
    bait(share);
    let node = share.lookup("d").unwrap().nodeid;
    share.forget(node, 1);
    assert!(share.getattr(node).is_err());
    assert!(share.lookup((node, "f")).is_err());
    assert!(share.mkdir((node, "e"), 0o755).is_err());
    assert_unharmed(share);
}

// FUSE: a guest can forget no more than it has looked up, and never the root
#[apply(promise)]
fn too_much_is_forgotten_without_harm(share: &Share) {
    bait(share);
    let (file, dir) = (share.lookup("f").unwrap().nodeid, share.lookup("d").unwrap().nodeid);
    share.forget(ROOT_ID, 1);
    share.forget(ROOT_ID, u64::MAX);
    share.forget(file, u64::MAX);
    share.forget(file, u64::MAX);
    share.forget(77, 1);
    share.forget(0, u64::MAX);
    share.batch_forget(&[(ROOT_ID, u64::MAX), (file, 5), (u64::MAX, u64::MAX), (dir, 0)]);
    assert_eq!(share.getattr(dir).unwrap().mode & S_IFMT, S_IFDIR);
    assert_unharmed(share);
}

// FUSE: a BATCH_FORGET counts the nodes it has
#[apply(promise)]
fn a_count_of_nodes_that_are_not_there_is_harmless(share: &Share) {
    bait(share);
    for count in [1, 1000, u32::MAX] {
        let request = Request::new(opcode::BATCH_FORGET, 0).arg(&BatchForgetIn { count, dummy: 0 });
        poke(share, 0, &request.clone().no_reply());
        poke(share, 1, &request.bytes(&[1; 24]).room_bytes(64));
    }
    assert_unharmed(share);
}

// close(2): "EBADF  fd isn't a valid open file descriptor"
#[apply(promise)]
fn an_unknown_file_handle_is_bad(share: &Share) {
    bait(share);
    let node = share.lookup("f").unwrap().nodeid;
    let released = share.open("f", O_RDWR).unwrap();
    share.release(&released).unwrap();
    let good = share.open("f", O_RDWR).unwrap();
    for fh in [released.fh, 12_345, 1 << 32, u64::MAX] {
        let file = File { node, fh, ..good };
        assert_eq!(share.read(&file, 0, 10), Err(EBADF));
        assert_eq!(share.write(&file, 0, b"J"), Err(EBADF));
        assert!(matches!(share.flush(&file), Err(EBADF | ENOSYS)));
        assert_eq!(share.fsync(&file, FsyncFlags::empty()), Err(EBADF));
        assert_eq!(share.release(&file), Err(EBADF));
        assert_eq!(share.fallocate(&file, 0, 0, 1), Err(EBADF));
        assert_eq!(share.lseek(&file, 0, libc::SEEK_DATA), Err(EBADF));
        assert_eq!(share.copy_file_range((&file, 0), (&good, 0), 1), Err(EBADF));
        assert_eq!(share.copy_file_range((&good, 0), (&file, 0), 1), Err(EBADF));
        assert_eq!(share.readdir(&file, 0, 4096), Err(EBADF));
        assert_eq!(share.readdirplus(&file, 0, 4096).map(drop), Err(EBADF));
        assert_eq!(share.releasedir(&file), Err(EBADF));
        assert_eq!(share.fsyncdir(&file, FsyncFlags::empty()), Err(EBADF));
    }
    assert_unharmed(share);
}

// FUSE: a file handle belongs to the node it was opened on
#[apply(promise)]
fn fuse_id_confusion_a_file_handle_of_another_node_is_bad(share: &Share) {
    bait(share);
    let (file, other) = (share.open("f", O_RDWR).unwrap(), share.lookup("d/f").unwrap().nodeid);
    let mixed = File { node: other, ..file };
    assert_eq!(share.read(&mixed, 0, 10), Err(EBADF));
    assert_eq!(share.write(&mixed, 0, b"J"), Err(EBADF));
    assert_unharmed(share);
}

// FUSE: a directory is not a file, nor a file a directory, whatever the opcode says
#[apply(promise)]
fn files_and_directories_do_not_mix(share: &Share) {
    bait(share);
    let (file, dir) = (share.open("f", O_RDWR).unwrap(), share.opendir("d").unwrap());
    assert!(share.readdir(&file, 0, 4096).is_err());
    assert!(share.readdirplus(&file, 0, 4096).is_err());
    assert!(share.read(&dir, 0, 10).is_err());
    assert!(share.write(&dir, 0, b"x").is_err());
    assert!(share.fallocate(&dir, 0, 0, 10).is_err());
    assert!(share.copy_file_range((&dir, 0), (&file, 0), 1).is_err());
    assert!(share.open(dir.node, O_RDONLY | O_TRUNC).is_err());
    assert_unharmed(share);
}

/// Sends a request that may be answered in any way, or not at all; what is answered keeps the rules.
fn poke(share: &Share, ring: usize, request: &Request<'_>) {
    let pending = share.fuse().send(ring, Caller::ROOT, request);
    if let Some(reply) = share.fuse().recv_any(pending, PATIENCE) {
        assert!(reply.is_empty() || reply.len() >= size_of::<OutHeader>());
    }
}

// FUSE: every request has a least size
#[apply(promise)]
fn virtiofsd_a_request_cut_short_is_refused(share: &Share) {
    bait(share);
    for opcode in (1..=53).filter(|&opcode| opcode != opcode::DESTROY && opcode != opcode::INIT) {
        for len in 0..=64 {
            poke(share, 1, &Request::new(opcode, ROOT_ID).bytes(&vec![0; len]).room_bytes(256));
            poke(share, 1, &Request::new(opcode, ROOT_ID).bytes(&vec![0xff; len]).room_bytes(256));
        }
    }
    assert_unharmed(share);
}

// FUSE: "len" of the header is the length of the request
#[apply(promise)]
fn a_request_that_lies_about_its_length_is_refused(share: &Share) {
    bait(share);
    for len in [0, 1, 39, 41, 43, 4096, 1 << 20, u32::MAX] {
        poke(share, 1, &Request::new(opcode::LOOKUP, ROOT_ID).name(b"f").room::<EntryOut>().claim_len(len));
        poke(
            share,
            1,
            &Request::new(opcode::GETATTR, ROOT_ID).arg(&GetattrIn::default()).room::<AttrOut>().claim_len(len),
        );
    }
    assert_unharmed(share);
}

// FUSE: "size" of WRITE, SETXATTR and IOCTL is the length of what follows
#[apply(promise)]
fn crosvm_508645172_data_that_is_not_there_is_not_written(share: &Share) {
    bait(share);
    let file = share.open("f", O_RDWR).unwrap();
    for size in [11, 4096, 1 << 20, u32::MAX] {
        let write = WriteIn { fh: file.fh, size, ..Default::default() };
        let request = Request::new(opcode::WRITE, file.node).arg(&write).data(b"0123456789").room::<WriteOut>();
        assert!(share.raw(&request).is_err(), "WRITE of {size}");
        let set = SetxattrIn { size, ..Default::default() };
        let request = Request::new(opcode::SETXATTR, file.node).arg(&set).name(b"user.a").bytes(b"0123456789");
        assert!(share.raw(&request).is_err(), "SETXATTR of {size}");
        let ioctl = IoctlIn { fh: file.fh, cmd: libc::FS_IOC_SETFLAGS as u32, in_size: size, ..Default::default() };
        let request = Request::new(opcode::IOCTL, file.node).arg(&ioctl).data(&[0; 4]).room::<IoctlOut>();
        assert!(share.raw(&request).is_err(), "IOCTL of {size}");
    }
    assert_eq!(share.listxattr("f").unwrap(), [""; 0]);
    assert_unharmed(share);
}

// FUSE: a reply fits into the room that was made for it, or does not come
#[apply(promise)]
fn more_is_not_returned_than_there_is_room_for(share: &Share) {
    bait(share);
    share.setxattr("f", "user.a", &[1; 1000], 0).unwrap();
    let (file, dir) = (share.open("f", O_RDWR).unwrap(), share.opendir("d").unwrap());
    for size in [100, 1 << 20, u32::MAX] {
        let read = ReadIn { fh: file.fh, size, ..Default::default() };
        poke(share, 1, &Request::new(opcode::READ, file.node).arg(&read).room_bytes(3));
        let readdir = ReadIn { fh: dir.fh, size, ..Default::default() };
        for opcode in [opcode::READDIR, opcode::READDIRPLUS] {
            poke(share, 1, &Request::new(opcode, dir.node).arg(&readdir).room_bytes(30));
        }
        let get = GetxattrIn { size, padding: 0 };
        poke(share, 1, &Request::new(opcode::GETXATTR, file.node).arg(&get).name(b"user.a").room_bytes(10));
        poke(share, 1, &Request::new(opcode::LISTXATTR, file.node).arg(&get).room_bytes(2));
        let ioctl = IoctlIn { fh: file.fh, cmd: libc::FS_IOC_GETFLAGS as u32, out_size: size, ..Default::default() };
        poke(share, 1, &Request::new(opcode::IOCTL, file.node).arg(&ioctl).room::<IoctlOut>());
    }
    for opcode in [opcode::STATFS, opcode::GETATTR, opcode::READLINK, opcode::STATX] {
        poke(share, 1, &Request::new(opcode, ROOT_ID).bytes(&[0; 24]).room_bytes(1));
    }
    assert_unharmed(share);
}

// open(2): flags that OPEN and CREATE never carry
#[apply(promise)]
fn senseless_open_flags_are_harmless(share: &Share) {
    bait(share);
    let flags = [libc::O_PATH, libc::O_TMPFILE, libc::O_ASYNC, O_CREAT, O_CREAT | O_EXCL, 3, -1, O_DIRECTORY, i32::MIN];
    for flags in flags {
        for target in ["f", "d"] {
            if let Ok(file) = share.open(target, flags & !O_TRUNC) {
                let _ = (share.read(&file, 0, 10), share.release(&file));
            }
        }
    }
    assert_unharmed(share);
}

// mknod(2): "EINVAL mode requested creation of something other than a regular file, device special file, FIFO or
// socket"
#[apply(promise)]
fn mknod_makes_no_directories_and_links(share: &Share) {
    bait(share);
    for kind in [S_IFDIR, S_IFLNK, S_IFMT, 0o030_000, 0o130_000] {
        assert!(share.mknod("n", kind | 0o644, 0).is_err(), "{kind:o}");
    }
    assert_unharmed(share);
}

// FUSE: numbers of a SETATTR may be anything
#[apply(promise)]
fn senseless_attributes_are_harmless(share: &Share) {
    bait(share);
    let junk = SetattrIn {
        fh: 99,
        size: u64::MAX,
        atime: u64::MAX,
        mtime: i64::MAX as u64,
        atimensec: 1_000_000_000,
        mtimensec: u32::MAX,
        mode: u32::MAX,
        uid: u32::MAX,
        gid: u32::MAX,
        ..Default::default()
    };
    for bit in 0..32 {
        let valid = SetattrValid::from_bits_retain(1 << bit);
        let _ = share.setattr("d/f", &SetattrIn { valid, ..junk });
    }
    assert!(share.setattr("f", &SetattrIn { valid: SetattrValid::from_bits_retain(u32::MAX), ..junk }).is_err());
    assert_unharmed(share);
}

// FUSE: extensions stand at the end of a request, as long as its header says
#[apply(promise)]
fn broken_extensions_are_refused(share: &Share) {
    bait(share);
    let arg = MkdirIn { mode: 0o755, umask: 0 };
    let mkdir = || Request::new(opcode::MKDIR, ROOT_ID).arg(&arg).name(b"new").room::<EntryOut>();
    let header = |size, kind| ExtHeader { size, kind };
    let groups = |nr_groups| SuppGroups { nr_groups };
    let broken = [
        mkdir().extlen(u16::MAX),
        mkdir().extlen(1),
        mkdir().arg(&header(0, EXT_GROUPS)).extlen(1),
        mkdir().arg(&header(4, EXT_GROUPS)).extlen(1),
        mkdir().arg(&header(u32::MAX, EXT_GROUPS)).extlen(1),
        mkdir().arg(&header(16, EXT_GROUPS)).arg(&groups(2)).arg(&7_u32).extlen(2),
        mkdir().arg(&header(16, EXT_GROUPS)).arg(&groups(u32::MAX)).arg(&7_u32).extlen(2),
    ];
    for request in broken {
        assert!(share.raw(&request).is_err(), "{request:?}");
    }
    assert_unharmed(share);
}

// FUSE: INIT comes first
#[apply(promise)]
fn nothing_is_answered_before_init(on: Kind) {
    let share = on.setup().uninitialised().serve();
    let statfs = Request::new(opcode::STATFS, ROOT_ID).room::<StatfsOut>();
    assert!(share.raw(&statfs).is_err());
    assert!(share.raw(&Request::new(opcode::LOOKUP, ROOT_ID).name(b"f").room::<EntryOut>()).is_err());
    share.fuse().init(LINUX).unwrap();
    share.raw(&statfs).unwrap();
}

// FUSE: an INIT may be anything, too
#[apply(promise)]
fn a_broken_init_is_refused(on: Kind) {
    let share = on.setup().uninitialised().serve();
    let init = |bytes: &[u8]| Request::new(opcode::INIT, 0).bytes(bytes).room::<InitOut>();
    for len in [0, 4, 8, 15] {
        assert!(share.raw(&init(&vec![7; len])).is_err());
    }
    assert!(share.raw(&init(InitIn { major: 6, minor: 99, ..Default::default() }.as_bytes())).is_err());
    let _ = share.raw(&init(&[0xff; 64]));
    let _ = share.raw(&init(InitIn { major: 7, minor: 0, ..Default::default() }.as_bytes()));
    share.fuse().init(LINUX).unwrap();
    share.getattr(ROOT_ID).unwrap();
}

// FUSE: anything at all
#[apply(promise)]
fn random_requests_are_harmless(share: &Share) {
    bait(share);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    share.host.chmod("d", 0o555);
    let nodes = [share.lookup("canary").unwrap().nodeid, share.lookup("out").unwrap().nodeid, 77, u64::MAX];
    for _ in 0..3000 {
        let opcode = random(56) as u32;
        if opcode == opcode::DESTROY || opcode == opcode::INIT {
            continue;
        }
        let bytes: Vec<u8> = (0..random(100)).map(|_| if random(2) == 0 { 0 } else { random(256) as u8 }).collect();
        let node = nodes[random(4) as usize];
        poke(share, 1, &Request::new(opcode, node).bytes(&bytes).room_bytes(random(300) as usize));
    }
    assert_unharmed(share);
}

/// The hostile half of a driver: ring 1 of two request queues, written by hand.
fn hostile_ring(on: Kind, attack: impl FnOnce(&Share)) {
    let share = on.setup().queues(2).serve();
    share.getattr(ROOT_ID).unwrap();
    attack(&share);
    assert_ring_harms_nobody(&share);
}

/// Puts a good request into slot 0 of ring 1 and gives the addresses of request and reply.
fn good_request(share: &Share) -> (u64, u64) {
    let ring = share.fuse().vmm.ring(1);
    let header = InHeader { len: 40, opcode: opcode::STATFS, nodeid: ROOT_ID, unique: 99, ..Default::default() };
    let at = ring.slot_addr(0);
    share.fuse().vmm.mem.write(at, header.as_bytes());
    (at, at + 4096)
}

/// Offers a chain of these descriptors, the first at index 0, and gives the device a moment.
fn offer(share: &Share, chain: &[Descriptor]) {
    let mut ring = share.fuse().vmm.ring(1);
    for (index, &desc) in (0..).zip(chain) {
        ring.set_desc(index, desc);
    }
    ring.offer(0);
    let _ = ring.used(A_MOMENT);
}

// virtio 1.2, 2.7.5.2: "Drivers MUST NOT add a descriptor chain" that loops
#[apply(promise)]
fn cve_2026_16457_a_chain_that_loops_ends(on: Kind) {
    for next in [0, 1] {
        hostile_ring(on, |share| {
            let (request, reply) = good_request(share);
            offer(share, &[Descriptor::new(request, 40, NEXT, 1), Descriptor::new(reply, 96, NEXT | WRITE, next)]);
        });
    }
}

// virtio 1.2, 2.7.5: "next" is an index of the descriptor table
#[apply(promise)]
fn a_chain_that_leaves_the_table_ends(on: Kind) {
    for next in [1024, 1025, u16::MAX] {
        hostile_ring(on, |share| {
            let (request, _) = good_request(share);
            offer(share, &[Descriptor::new(request, 40, NEXT, next)]);
        });
    }
}

// virtio 1.2, 2.7.6: an entry of the available ring is the head of a chain
#[apply(promise)]
fn a_head_outside_the_table_is_not_taken(on: Kind) {
    for head in [1024, u16::MAX] {
        hostile_ring(on, |share| {
            let mut ring = share.fuse().vmm.ring(1);
            ring.offer(head);
            let _ = ring.used(A_MOMENT);
        });
    }
}

// virtio 1.2, 2.7.5: an address of the guest's memory; postern-server(1): one outside it is answered with an error, not
// dropped
#[apply(promise)]
fn cve_2023_41051_a_buffer_outside_memory_is_an_error(on: Kind) {
    for addr in [0, 0x1000, u64::MAX, u64::MAX - 39, 1 << 63] {
        hostile_ring(on, |share| {
            let (_, reply) = good_request(share);
            offer(share, &[Descriptor::new(addr, 40, NEXT, 1), Descriptor::new(reply, 96, WRITE, 0)]);
        });
        hostile_ring(on, |share| {
            let (request, _) = good_request(share);
            offer(share, &[Descriptor::new(request, 40, NEXT, 1), Descriptor::new(addr, 96, WRITE, 0)]);
        });
    }
}

// FUSE over virtio: data outside the guest's memory (as User-Mode Linux sends it for direct I/O) is EFAULT or the like
#[apply(promise)]
fn data_outside_memory_is_answered(share: &Share) {
    bait(share);
    let file = share.open("f", O_RDWR).unwrap();
    let mut ring = share.fuse().vmm.ring(1);
    let at = ring.slot_addr(0);
    let write = WriteIn { fh: file.fh, size: 4096, ..Default::default() };
    let len = 40 + size_of::<WriteIn>() as u32 + 4096;
    let header = InHeader { len, opcode: opcode::WRITE, nodeid: file.node, unique: 99, ..Default::default() };
    share.fuse().vmm.mem.write(at, &[header.as_bytes(), write.as_bytes()].concat());
    let piece = |addr, len, writable| Piece { addr, len, writable };
    let pieces = vec![piece(at, len - 4096, false), piece(0x10_0000, 4096, false), piece(at + 4096, 24, true)];
    let ticket = ring.send_pieces(pieces);
    let reply = ring.wait(ticket, PATIENCE).expect("an answer");
    drop(ring);
    assert_eq!(reply.len(), size_of::<OutHeader>());
    assert!(i32::from_le_bytes(reply[4..8].try_into().unwrap()) < 0);
    assert_unharmed(share);
}

// virtio 1.2, 2.7.5: lengths add up to less than 2^32
#[apply(promise)]
fn absurd_lengths_are_refused(on: Kind) {
    for len in [0, 1, 39, 1 << 31, u32::MAX] {
        hostile_ring(on, |share| {
            let (request, reply) = good_request(share);
            offer(share, &[Descriptor::new(request, len, NEXT, 1), Descriptor::new(reply, 96, WRITE, 0)]);
        });
        hostile_ring(on, |share| {
            let (request, reply) = good_request(share);
            offer(share, &[Descriptor::new(request, 40, NEXT, 1), Descriptor::new(reply, len, WRITE, 0)]);
        });
    }
}

// virtio 1.2, 2.7.4.2: "the driver MUST place any device-writable descriptor elements after any device-readable ones"
#[apply(promise)]
fn a_reply_before_the_request_is_refused(on: Kind) {
    hostile_ring(on, |share| {
        let (request, reply) = good_request(share);
        offer(share, &[Descriptor::new(reply, 96, WRITE | NEXT, 1), Descriptor::new(request, 40, 0, 0)]);
    });
}

// FUSE: a request that expects a reply has room for one
#[apply(promise)]
fn a_request_without_room_for_a_reply_harms_nobody(on: Kind) {
    hostile_ring(on, |share| {
        let (request, _) = good_request(share);
        offer(share, &[Descriptor::new(request, 40, 0, 0)]);
    });
    hostile_ring(on, |share| {
        let (_, reply) = good_request(share);
        offer(share, &[Descriptor::new(reply, 96, WRITE, 0)]);
    });
}

// virtio 1.2, 2.7.5.3.1: "A driver MUST NOT set the VIRTQ_DESC_F_INDIRECT flag within an indirect descriptor"; "len ...
// multiple of 16"; "not both VIRTQ_DESC_F_INDIRECT and VIRTQ_DESC_F_NEXT"
#[apply(promise)]
fn a_broken_indirect_table_is_refused(on: Kind) {
    type Attack = fn(u64, u64) -> (Descriptor, Vec<Descriptor>);
    let attacks: [Attack; 8] = [
        |table, _| (Descriptor::new(table, 16, INDIRECT, 0), vec![Descriptor::new(table, 16, INDIRECT, 0)]),
        |table, request| (Descriptor::new(table, 17, INDIRECT, 0), vec![Descriptor::new(request, 40, 0, 0)]),
        |table, request| (Descriptor::new(table, 0, INDIRECT, 0), vec![Descriptor::new(request, 40, 0, 0)]),
        |table, request| (Descriptor::new(table, 16, INDIRECT, 0), vec![Descriptor::new(request, 40, NEXT, 0)]),
        |table, request| (Descriptor::new(table, 16, INDIRECT, 0), vec![Descriptor::new(request, 40, NEXT, 9)]),
        |table, request| (Descriptor::new(table, 16, INDIRECT | NEXT, 0), vec![Descriptor::new(request, 40, 0, 0)]),
        |table, _| (Descriptor::new(table, !15, INDIRECT, 0), vec![]),
        |_, _| (Descriptor::new(u64::MAX - 31, 64, INDIRECT, 0), vec![]),
    ];
    for attack in attacks {
        hostile_ring(on, |share| {
            let (request, reply) = good_request(share);
            let table = reply + 4096;
            let (head, entries) = attack(table, request);
            for (index, &entry) in (0..).zip(&entries) {
                share.fuse().vmm.mem.write_obj(table + 16 * index, entry);
            }
            offer(share, &[head]);
        });
    }
}

// virtio 1.2, 2.7.5.3.1: "A driver MUST NOT create a descriptor chain longer than the Queue Size"
#[apply(promise)]
fn an_endless_indirect_table_is_bounded(on: Kind) {
    hostile_ring(on, |share| {
        let (request, _) = good_request(share);
        let table = request + 0x4_0000;
        let count = u64::from(u16::MAX);
        for index in 0..count {
            let next = (index + 1) as u16;
            share.fuse().vmm.mem.write_obj(table + 16 * index, Descriptor::new(request, 40, NEXT, next));
        }
        offer(share, &[Descriptor::new(table, (count * 16) as u32, INDIRECT, 0)]);
    });
}

// virtio 1.2, 2.7.13.3: "idx always increments", by no more than the entries there are
#[apply(promise)]
fn cve_2026_50626_an_available_index_out_of_range_is_no_work(on: Kind) {
    for jump in [1025, 0x4000, 0x8000, u16::MAX] {
        hostile_ring(on, |share| {
            let mut ring = share.fuse().vmm.ring(1);
            let idx = ring.avail_idx().wrapping_add(jump);
            ring.set_avail_idx(idx);
            ring.kick.write(1).unwrap();
            let _ = ring.used(A_MOMENT);
        });
    }
}

// virtio 1.2, 2.7.10: a notification without new buffers is no work
#[apply(promise)]
fn kicks_without_requests_are_no_work(on: Kind) {
    hostile_ring(on, |share| {
        for _ in 0..1000 {
            share.fuse().vmm.ring(1).kick.write(1).unwrap();
        }
    });
}

// virtio-fs: the high-priority queue serves no file system requests of its own, but survives them
#[apply(promise)]
fn a_request_on_the_wrong_queue_harms_nobody(share: &Share) {
    bait(share);
    poke(share, 0, &Request::new(opcode::LOOKUP, ROOT_ID).name(b"f").room::<EntryOut>());
    poke(share, 1, &Request::new(opcode::FORGET, ROOT_ID).arg(&ForgetIn { nlookup: 1 }).room_bytes(16));
    poke(share, 1, &Request::new(opcode::FORGET, ROOT_ID).no_reply());
    assert_unharmed(share);
}

// virtio-fs: a request of more data than was agreed on is refused or served, and nothing else
#[apply(promise)]
fn a_request_larger_than_agreed_is_harmless(share: &Share) {
    bait(share);
    let file = share.open("d/f", O_RDWR).unwrap();
    let data = vec![1; DATA_MAX];
    let write = WriteIn { fh: file.fh, size: 2 * DATA_MAX as u32, ..Default::default() };
    let request = Request::new(opcode::WRITE, file.node).arg(&write).bytes(&[1; 60_000]).data(&data);
    assert!(share.raw(&request.room::<WriteOut>()).is_err());
    assert_unharmed(share);
}

// postern-server(1): many broken requests make few lines in the log
#[apply(promise)]
fn the_log_is_not_flooded(share: &Share) {
    bait(share);
    for _ in 0..2000 {
        poke(share, 1, &Request::new(opcode::LOOKUP, ROOT_ID).name(b"../x").room::<EntryOut>());
        poke(share, 1, &Request::new(opcode::WRITE, ROOT_ID).bytes(b"x").room::<WriteOut>());
    }
    assert!(share.server.log().len() < 64 << 10);
    assert_unharmed(share);
}

// postern-server(1): At most 100 lines of each level ... are written within ten seconds
#[apply(promise)]
fn a_guest_that_mounts_for_ever_does_not_flood_the_log(share: &Share) {
    let old = InitIn { major: MAJOR, minor: 26, ..Default::default() };
    for _ in 0..1000 {
        share.fuse().init(LINUX).unwrap();
        assert!(share.raw(&Request::new(opcode::INIT, 0).arg(&old).room::<InitOut>()).is_err());
    }
    assert!(share.server.log().lines().count() < 500);
    share.getattr(ROOT_ID).unwrap();
}
