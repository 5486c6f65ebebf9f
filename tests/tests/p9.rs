//! What a 9P2000.L guest can do on a share. FUSE's behaviours are told in the other files; here stands what 9P says
//! differently: fids, walks, directory offsets, attributes by message and values by fid.

use postern_server::p9::message::*;
use postern_server::p9::wire::Text;
use postern_tests::p9::ROOT;
use postern_tests::prelude::*;

const AT_REMOVEDIR: u32 = 0x200;

// version(5): "the server ... responds with its own maximum, msize, which must be less than or equal to the client's"
#[apply(promise)]
fn message_size_and_dialect_are_agreed_on(share: &Share9p) {
    assert_eq!(share.version(u32::MAX, b"9P2000.L"), Ok((1 << 20, b"9P2000.L".to_vec())));
    assert_eq!(share.version(8192, b"9P2000.L"), Ok((8192, b"9P2000.L".to_vec())));
    assert_eq!(share.version(4095, b"9P2000.L"), Err(EINVAL));
    for dialect in [&b"9P2000"[..], b"9P2000.l", b"", b"9P2000.LX"] {
        assert_eq!(share.version(8192, dialect), Ok((8192, b"unknown".to_vec())));
        assert_eq!(share.attach_as(ROOT, 0), Err(ENOTCONN));
    }
}

// version(5): "all outstanding I/O on the connection is aborted; all active fids are freed"
#[apply(promise)]
fn a_new_version_frees_all_fids(share: &Share9p) {
    share.host.write("f", b"x");
    let file = share.open("f", O_RDONLY).unwrap();
    share.version(8192, b"9P2000.L").unwrap();
    assert_eq!(share.read(file, 0, 1), Err(EBADF));
    share.attach_as(file, 0).unwrap();
}

// walk(5): "If the first element cannot be walked for any reason, Rerror is returned. Otherwise, ... nwqid ... less
// than nwname ... only if ... newfid is unaffected"
#[apply(promise)]
fn a_walk_that_ends_early_makes_no_fid(share: &Share9p) {
    share.host.mkdir("d");
    let names = |path: &'static str| path.split('/').map(|name| Text(name.as_bytes())).collect();
    let walk = |newfid, path| share.call::<_, Rwalk>(&Twalk { fid: ROOT, newfid, names: names(path) });
    assert_eq!(walk(7000, "missing/x").map(drop), Err(ENOENT));
    assert_eq!(walk(7000, "d/missing/x").unwrap().qids.len(), 1);
    assert_eq!(share.getattr(7000).map(drop), Err(EBADF));
    assert_eq!(walk(ROOT, "d").map(drop), Ok(()));
    assert_eq!(share.walk("../d").map(drop), Ok(()), "a fid can walk itself away");
}

// intro(5): "the parent of the root directory ... is the root"
#[apply(promise)]
fn two_dots_lead_up_but_never_out(share: &Share9p) {
    share.host.mkdir("a");
    share.host.mkdir("a/b");
    share.host.write("a/f", b"");
    let path = |fid: u32| share.getattr(fid).unwrap().qid.path;
    let at = |walked: &str| path(share.walk(walked).unwrap());
    assert_eq!(at("a/b/.."), at("a"));
    assert_eq!(at("a/b/../../.."), path(ROOT));
    assert_eq!(at("../../.."), path(ROOT));
    assert_eq!(at("../a/../a/b"), at("a/b"));
    assert_eq!((at("."), at("./a/./b/.")), (path(ROOT), at("a/b")), "one dot stays, as with diod");
    for dots in [&b".."[..], b"."] {
        let names = vec![Text(b"a"), Text(b"f"), Text(dots)];
        assert_eq!(
            share.call::<_, Rwalk>(&Twalk { fid: ROOT, newfid: 9, names }).unwrap().qids.len(),
            2,
            "no directory"
        );
    }
}

// walk(5): "newfid must not be in use unless it is the same as fid"
#[apply(promise)]
fn a_fid_in_use_is_not_given_away(share: &Share9p) {
    share.host.write("f", b"");
    let fid = share.walk("f").unwrap();
    assert_eq!(share.attach_as(fid, 0), Err(EINVAL));
    assert_eq!(share.call::<_, Rwalk>(&Twalk { fid: ROOT, newfid: fid, names: vec![] }).map(drop), Err(EINVAL));
    share.clunk(fid).unwrap();
    assert_eq!(share.clunk(fid), Err(EBADF));
    share.attach_as(fid, 0).unwrap();
}

// open(2), creat(2), pread(2), pwrite(2)
#[apply(promise)]
fn what_is_written_is_read_back(share: &Share9p) {
    let data: Vec<u8> = (0..400_000_u32).map(|n| (n % 251) as u8).collect();
    let file = share.create("", "f", O_RDWR | O_CREAT | O_EXCL, 0o640).unwrap();
    assert_eq!(share.write(file, 0, &data), Ok(400_000));
    assert_eq!(share.read(file, 0, 500_000).unwrap(), data);
    assert_eq!(share.read(file, 399_990, 100).unwrap(), data[399_990..]);
    assert_eq!(share.read(file, 400_000, 100).unwrap(), b"");
    share.call::<_, Rfsync>(&Tfsync { fid: file, datasync: 0 }).unwrap();
    share.clunk(file).unwrap();
    assert_eq!(share.host.read("f"), data);
    assert_eq!(share.create("", "f", O_RDWR | O_CREAT | O_EXCL, 0o640), Err(EEXIST));
    let again = share.open("f", O_WRONLY | O_TRUNC | O_APPEND).unwrap();
    share.write(again, 0, b"one").unwrap();
    share.write(again, 0, b"two").unwrap();
    assert_eq!(share.read(again, 0, 1), Err(EBADF), "opened for writing only");
    assert_eq!(share.host.read("f"), b"onetwo");
}

// diod protocol.md, readdir: "offset ... is the offset of the next directory entry"
#[apply(promise)]
fn a_directory_is_read_in_pieces_to_its_end(share: &Share9p) {
    let mut expected: Vec<String> = (0..300).map(|n| format!("entry-with-a-longer-name-{n}")).collect();
    expected.iter().for_each(|name| share.host.write(name, b""));
    expected.extend([".".into(), "..".into()]);
    let dir = share.open("", O_RDONLY | O_DIRECTORY).unwrap();
    let (mut found, mut at) = (Vec::new(), 0);
    loop {
        let part = share.readdir(dir, at, 1000).unwrap();
        let Some((_, next)) = part.last() else { break };
        at = *next;
        found.extend(part.into_iter().map(|(name, _)| name));
    }
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    assert_eq!(share.readdir(dir, 0, 100).map(drop), Err(EINVAL), "no room for a long name is no end");
}

// diod protocol.md, getattr: "valid is a bitmask indicating which fields are valid"
#[apply(promise)]
fn attributes_are_those_of_the_file(share: &Share9p) {
    share.host.write("f", b"12345");
    share.host.chmod("f", 0o640);
    let attr = share.getattr(share.walk("f").unwrap()).unwrap();
    assert_eq!((attr.mode, attr.size, attr.nlink, attr.valid & 0x7ff), (S_IFREG | 0o640, 5, 1, 0x7ff));
    assert_eq!((attr.qid.kind, attr.valid & 0x1000), (0, 0));
    assert_ne!(attr.qid.version, 0, "Linux does not cache a file of version 0");
    let dir = share.getattr(ROOT).unwrap();
    assert_eq!((dir.mode & S_IFMT, dir.qid.kind), (S_IFDIR, 0x80));
}

// diod protocol.md, setattr: "valid is a bitmask selecting which fields to set"
#[apply(promise)]
fn attributes_are_set_one_by_one(share: &Share9p) {
    share.host.write("f", b"12345");
    let fid = share.walk("f").unwrap();
    let nothing = Tsetattr {
        fid,
        valid: 0,
        mode: 0o600,
        uid: 1,
        gid: 2,
        size: 3,
        atime_sec: 4,
        atime_nsec: 5,
        mtime_sec: 6,
        mtime_nsec: 7,
    };
    let set = |valid| share.call::<_, Rsetattr>(&Tsetattr { valid, ..nothing.clone() }).map(drop);
    let before = share.getattr(fid).unwrap();
    set(0).unwrap();
    assert_eq!(share.getattr(fid).unwrap().size, before.size);
    set(1).unwrap();
    set(8).unwrap();
    set(0x10 | 0x20 | 0x80 | 0x100).unwrap();
    set(2 | 4).unwrap();
    let after = share.getattr(fid).unwrap();
    assert_eq!((after.mode, after.size, after.uid, after.gid), (S_IFREG | 0o600, 3, 1, 2));
    assert_eq!((after.atime_sec, after.atime_nsec, after.mtime_sec, after.mtime_nsec), (4, 5, 6, 7));
    set(0x20).unwrap();
    assert!(share.getattr(fid).unwrap().mtime_sec > 1_000_000_000, "the time of now");
}

// attach(5): "uname ... identifies the user"; diod protocol.md: "n_uname"; what he makes is his
#[apply(promise)]
fn what_is_made_belongs_to_who_attached(share: &Share9p) {
    let user = share.fid();
    share.attach_as(user, 1000).unwrap();
    share.call::<_, Rmkdir>(&Tmkdir { dfid: user, name: Text(b"d"), mode: 0o750, gid: 1001 }).unwrap();
    share.call::<_, Rsymlink>(&Tsymlink { dfid: user, name: Text(b"l"), target: Text(b"/x"), gid: 1001 }).unwrap();
    let fifo = Tmknod { dfid: user, name: Text(b"p"), mode: S_IFIFO | 0o600, major: 0, minor: 0, gid: 1001 };
    share.call::<_, Rmknod>(&fifo).unwrap();
    let file = Tlcreate { fid: user, name: Text(b"f"), flags: O_RDWR as u32, mode: 0o640, gid: 1001 };
    share.call::<_, Rlcreate>(&file).unwrap();
    for (name, mode) in [("d", S_IFDIR | 0o750), ("l", S_IFLNK | 0o777), ("p", S_IFIFO | 0o600), ("f", S_IFREG | 0o640)]
    {
        let attr = share.getattr(share.walk(name).unwrap()).unwrap();
        assert_eq!((attr.mode, attr.uid, attr.gid), (mode, 1000, 1001), "{name}");
    }
}

// symlink(7), link(2), rename(2), unlink(2), rmdir(2)
#[apply(promise)]
fn names_come_and_go(share: &Share9p) {
    share.host.write("f", b"x");
    share.mkdir("d", 0o755).unwrap();
    let dir = share.walk("d").unwrap();
    let file = share.walk("f").unwrap();
    share.call::<_, Rlink>(&Tlink { dfid: dir, fid: file, name: Text(b"hard") }).unwrap();
    assert_eq!(share.getattr(file).unwrap().nlink, 2);
    share.call::<_, Rsymlink>(&Tsymlink { dfid: dir, name: Text(b"soft"), target: Text(b"../f"), gid: 0 }).unwrap();
    let soft = share.walk("d/soft").unwrap();
    assert_eq!(share.recv(share.send(&Treadlink { fid: soft }, &[], 0)).unwrap(), b"\x04\x00../f");
    let rename = Trenameat { olddirfid: dir, oldname: Text(b"hard"), newdirfid: ROOT, newname: Text(b"moved") };
    share.call::<_, Rrenameat>(&rename).unwrap();
    assert_eq!(share.unlink(ROOT, "d", AT_REMOVEDIR), Err(ENOTEMPTY));
    assert_eq!(share.unlink(ROOT, "d", 0), Err(EISDIR));
    share.unlink(dir, "soft", 0).unwrap();
    share.unlink(ROOT, "d", AT_REMOVEDIR).unwrap();
    assert_eq!(share.host.list(""), ["f", "moved"]);
}

// remove(5): "The remove request asks the file server both to remove the file represented by fid and to clunk the fid,
// even if the remove fails"; diod protocol.md, rename
#[apply(promise)]
fn a_fid_is_renamed_and_removed_by_the_name_it_has_now(share: &Share9p) {
    share.host.mkdir("d");
    share.host.write("f", b"mine");
    let (by_fid, other, dir) = (share.walk("f").unwrap(), share.walk("f").unwrap(), share.walk("d").unwrap());
    share.call::<_, Rrename>(&Trename { fid: by_fid, dfid: dir, name: Text(b"g") }).unwrap();
    share.host.write("f", b"another's");
    share.call::<_, Rremove>(&Tremove { fid: other }).unwrap();
    assert_eq!(share.getattr(other).map(drop), Err(EBADF), "clunked");
    assert_eq!(share.host.read("f"), b"another's");
    assert_eq!(share.host.list("d"), Vec::<String>::new());
    let full = share.walk("").unwrap();
    assert_eq!(share.call::<_, Rremove>(&Tremove { fid: full }).map(drop), Err(EINVAL), "not the root");
}

// diod protocol.md, xattrwalk and xattrcreate; xattr(7)
#[apply(promise)]
fn extended_attributes_are_written_read_listed_and_removed(share: &Share9p) {
    share.host.write("f", b"");
    let long = vec![b'v'; 3000];
    share.setxattr("f", "user.a", b"value", 0).unwrap();
    share.setxattr("f", "user.b", &long, 0).unwrap();
    assert_eq!(share.getxattr("f", "user.a").unwrap(), b"value");
    assert_eq!(share.getxattr("f", "user.b").unwrap(), long);
    let mut names: Vec<_> = share.getxattr("f", "").unwrap().split(|&b| b == 0).map(<[u8]>::to_vec).collect();
    names.retain(|name| name.starts_with(b"user."));
    names.sort();
    assert_eq!(names, [b"user.a", b"user.b"]);
    assert_eq!(share.setxattr("f", "user.a", b"x", 1), Err(EEXIST));
    share.setxattr("f", "user.a", b"", 2).unwrap();
    assert_eq!(share.getxattr("f", "user.a").map(drop), Err(EBADF), "removed: its fid was never made");
    share.setxattr("f", "user.b", b"", 0).unwrap();
    assert_eq!(share.getxattr("f", "user.b").unwrap(), b"");
}

// unlink(2): "If the name was the last link to a file but any processes still have the file open, the file will remain"
#[apply(promise)]
fn an_unlinked_open_file_lives_until_its_fid_goes(share: &Share9p) {
    let file = share.create("", "f", O_RDWR, 0o600).unwrap();
    share.unlink(ROOT, "f", 0).unwrap();
    share.write(file, 0, b"alive").unwrap();
    assert_eq!(share.read(file, 0, 10).unwrap(), b"alive");
    assert_eq!((share.getattr(file).unwrap().nlink, share.getattr(file).unwrap().size), (0, 5));
    share.clunk(file).unwrap();
}

// CVE-2023-1386: the guest's driver leaves it to the server to clear set-id bits
#[apply(promise)]
fn cve_2023_1386_a_write_by_another_than_root_takes_set_id_bits_away(share: &Share9p) {
    for (uid, bits) in [(1000, 0), (NONUNAME, 0), (0, 0o4000)] {
        let name = format!("f{uid}");
        share.host.write(&name, b"x");
        share.host.chmod(&name, 0o4777);
        let fid = share.fid();
        share.attach_as(fid, uid).unwrap();
        let names = vec![Text(name.as_bytes())];
        share.call::<_, Rwalk>(&Twalk { fid, newfid: fid, names }).unwrap();
        share.call::<_, Rlopen>(&Tlopen { fid, flags: O_WRONLY as u32 }).unwrap();
        share.write(fid, 0, b"y").unwrap();
        assert_eq!(share.getattr(fid).unwrap().mode & 0o7000, bits, "{uid}");
    }
}

// CVE-2026-63318: a read-only export that O_TRUNC and others got past
#[apply(promise)]
fn a_read_only_share_stays_as_it_is(on: Kind) {
    let share = on.setup().readonly().plant(|host| host.write("f", b"as it is")).serve_9p();
    for flags in [O_RDONLY | O_TRUNC, O_WRONLY, O_RDWR, O_WRONLY | O_TRUNC] {
        assert_eq!(share.open("f", flags), Err(EROFS), "{flags:o}");
    }
    assert_eq!(share.create("", "g", O_RDWR, 0o600), Err(EROFS));
    assert_eq!(share.mkdir("d", 0o700), Err(EROFS));
    assert_eq!(share.unlink(ROOT, "f", 0), Err(EROFS));
    assert_eq!(share.setxattr("f", "user.a", b"x", 0), Err(EROFS));
    let fid = share.walk("f").unwrap();
    assert_eq!(share.call::<_, Rremove>(&Tremove { fid }).map(drop), Err(EROFS));
    let file = share.open("f", O_RDONLY).unwrap();
    assert_eq!(share.read(file, 0, 100).unwrap(), b"as it is");
    assert_eq!(share.host.list(""), ["f"]);
}

// postern-server(1): --writeout: "What the guest writes is on its way to the disk before the write returns"
#[apply(promise)]
fn what_is_written_goes_to_the_disk_at_once_if_so_asked(on: Kind) {
    for (setup, waits) in [(on.setup(), true), (on.setup().arg("--writeout=immediate"), false)] {
        let share = setup.serve_9p();
        let file = share.create("", "f", O_RDWR, 0o600).unwrap();
        assert_eq!(share.write(file, 0, &[b'x'; 65_536]).unwrap(), 65_536);
        assert_eq!(share.host.waits_for_its_place("f"), waits);
    }
}

// flush(5): "The server ... should answer the flush message immediately ... it must respond to the original first"
#[apply(promise)]
fn a_flush_is_answered_after_what_it_flushes(share: &Share9p) {
    let file = share.create("", "f", O_RDWR, 0o600).unwrap();
    share.write(file, 0, &vec![1; 1 << 19]).unwrap();
    for round in 0..50_u16 {
        let tag = 100 + round;
        let fsync = share.send_raw(&postern_tests::p9::frame(&Tfsync { fid: file, datasync: 0 }, tag, 0), &[], 0);
        let flush = share.send(&Tflush { oldtag: tag }, &[], 0);
        share.recv(flush).unwrap();
        let answered = share.recv_any(fsync, std::time::Duration::ZERO);
        assert!(answered.is_some(), "the flushed request is still under way");
    }
    share.call::<_, Rflush>(&Tflush { oldtag: 4711 }).unwrap();
    let own = postern_tests::p9::frame(&Tflush { oldtag: 5 }, 5, 0);
    share.recv(share.send_raw(&own, &[], 0)).unwrap();
}
