//! What a 9P2000.u guest can do on a share: files opened and made by Plan 9's bits, attributes as one record, and
//! directories read as such records. What it says in the messages of all dialects is told in p9.rs.

use postern_server::p9::message::*;
use postern_server::p9::wire::Text;
use postern_tests::dotu::{Record, dm, mode};
use postern_tests::p9::ROOT;
use postern_tests::prelude::*;
use postern_tests::share::Share9p;

const KEEP: Stat<'static> = Stat::DONT_TOUCH;
const MSIZE: u32 = 1 << 20;

fn named(name: &str) -> Stat<'_> {
    Stat { name: Text(name.as_bytes()), ..KEEP }
}

fn of(share: &Share9p, path: &str) -> Record {
    let fid = share.walk(path).unwrap();
    let record = share.stat(fid).unwrap();
    share.clunk(fid).unwrap();
    record
}

// version(5): "The server responds with ... the version string ... if it does not understand: unknown"
#[apply(promise)]
fn the_dialect_is_the_one_asked_for_and_no_other(share: &Share9p) {
    assert_eq!(share.version(u32::MAX, b"9P2000.u"), Ok((MSIZE, b"9P2000.u".to_vec())));
    assert_eq!(share.version(4096, b"9P2000.u"), Ok((4096, b"9P2000.u".to_vec())));
    assert_eq!(share.version(4095, b"9P2000.u"), Err(EINVAL));
    for dialect in [&b"9P2000"[..], b"9P2000.U", b"9P2000.u.", b"9P2000.ux", b"9P1000"] {
        assert_eq!(share.version(8192, dialect), Ok((8192, b"unknown".to_vec())));
        assert_eq!(share.attach_as(ROOT, 0), Err(ENOTCONN));
    }
}

// 9P2000.u: "Tauth ... n_uname"; Rerror has words and a number. diod: ENOENT where no proof is wanted
#[apply(promise)]
fn nobody_has_to_prove_who_he_is(share: &Share9p) {
    share.version(MSIZE, b"9P2000.u").unwrap();
    let auth = Tauth { afid: 1, uname: Text(b"u"), aname: Text(b""), n_uname: 1000 };
    assert_eq!(share.call::<_, Rauth>(&auth).map(drop), Err(ENOENT));
    share.attach_as(ROOT, 1000).unwrap();
    assert_eq!(share.attach_as(ROOT, 1000), Err(EINVAL));
    share.make("", "f", 0o600, mode::READ, "").unwrap();
    assert_eq!(of(share, "f").numbers.n_uid, 1000);
}

// open(5): OREAD, OWRITE, ORDWR, OEXEC, OTRUNC; 9P2000.u: OAPPEND
#[apply(promise)]
fn what_is_written_is_read_back(share: &Share9p) {
    share.speak_u(MSIZE);
    let data: Vec<u8> = (0..400_000_u32).map(|n| (n % 251) as u8).collect();
    let file = share.make("", "f", 0o640, mode::RDWR, "").unwrap();
    assert_eq!(share.write(file, 0, &data), Ok(400_000));
    assert_eq!(share.read(file, 0, 500_000).unwrap(), data);
    share.clunk(file).unwrap();
    assert_eq!((share.host.read("f"), share.host.stat("f").perm()), (data.clone(), 0o640));
    let exec = share.open_u("f", 3).unwrap();
    assert_eq!(share.read(exec, 399_990, 100).unwrap(), data[399_990..]);
    assert_eq!(share.write(exec, 0, b"x"), Err(EBADF));
    let end = share.open_u("f", mode::WRITE | mode::TRUNC | mode::APPEND).unwrap();
    share.write(end, 0, b"one").unwrap();
    share.write(end, 0, b"two").unwrap();
    assert_eq!(share.read(end, 0, 1), Err(EBADF), "opened for writing only");
    assert_eq!(share.host.read("f"), b"onetwo");
    assert_eq!(share.call::<_, Ropen>(&Topen { fid: end, mode: 0 }).map(drop), Err(EINVAL), "open already");
}

// open(5): "An attempt to create a file in a directory where the given name already exists will be rejected"
#[apply(promise)]
fn a_name_that_is_taken_is_not_made_again(share: &Share9p) {
    share.speak_u(MSIZE);
    share.host.write("f", b"kept");
    share.host.symlink("../outside/new", "l");
    for perm in [0o600, dm::DIR | 0o700, dm::SYMLINK, dm::NAMED_PIPE, dm::SOCKET] {
        for name in ["f", "l"] {
            assert_eq!(share.make("", name, perm, mode::READ, "target"), Err(EEXIST), "{name} {perm:x}");
        }
    }
    assert_eq!(share.make("", "f", 0o600, mode::RDWR | mode::TRUNC, ""), Err(EEXIST));
    assert_eq!(share.host.read("f"), b"kept");
    let file = share.walk("f").unwrap();
    assert_eq!(share.make_from(file, "new", 0o600, mode::READ, ""), Err(ENOTDIR));
}

// open(5): "remove-on-close ... The file is to be removed when the fid is clunked"
#[apply(promise)]
fn a_file_that_was_opened_to_be_removed_goes_with_its_fid(share: &Share9p) {
    share.speak_u(MSIZE);
    share.host.write("f", b"x");
    let (old, new) =
        (share.open_u("f", mode::RCLOSE).unwrap(), share.make("", "g", 0o600, mode::RDWR | mode::RCLOSE, "").unwrap());
    share.write(new, 0, b"here").unwrap();
    assert_eq!(share.host.list(""), ["f", "g"]);
    share.clunk(old).unwrap();
    share.clunk(new).unwrap();
    assert_eq!(share.host.list(""), Vec::<String>::new());
}

// open(5): "it is illegal to write a directory, truncate it, or attempt to remove it on close"
#[apply(promise)]
fn a_directory_is_opened_for_reading_and_no_more(share: &Share9p) {
    share.speak_u(MSIZE);
    share.host.mkdir("d");
    for how in [mode::WRITE, mode::RDWR, mode::TRUNC, mode::RCLOSE] {
        assert_eq!(share.open_u("d", how), Err(EISDIR), "{how:x}");
        assert_eq!(share.make("", "e", dm::DIR | 0o755, how, ""), Err(EISDIR), "{how:x}");
    }
    assert_eq!(share.host.list(""), ["d"]);
    let dir = share.make("", "e", dm::DIR | 0o755, mode::READ, "").unwrap();
    assert_eq!(share.records(dir, 0, 8000).unwrap().0.len(), 2, "it is open");
    assert_eq!(share.write(dir, 0, b"x"), Err(EBADF));
}

// 9P2000.u: "DMSYMLINK ... extension ... the target", "DMLINK ... a handle", "DMDEVICE", "DMNAMEDPIPE", "DMSOCKET"
#[apply(promise)]
fn every_kind_of_file_is_made_and_shown(share: &Share9p) {
    share.speak_u(MSIZE);
    let file = share.make("", "f", dm::SETUID | 0o755, mode::RDWR, "").unwrap();
    share.write(file, 0, b"12345").unwrap();
    let fid = share.make("", "d", dm::DIR | dm::SETVTX | 0o755, mode::READ, "").unwrap();
    assert_eq!(share.make_from(fid, "x", 0o600, 0, ""), Err(EINVAL), "it is open");
    let soft = share.make("d", "soft", dm::SYMLINK | 0o777, mode::READ, "../f").unwrap();
    assert_eq!(share.stat(soft).unwrap().extension, "../f", "the fid is the link's now");
    let target = share.walk("f").unwrap();
    share.make("d", "hard", dm::LINK, mode::READ, &format!("{target}\n")).unwrap();
    share.make("d", "pipe", dm::NAMED_PIPE | 0o640, mode::READ, "").unwrap();
    share.make("d", "socket", dm::SOCKET | 0o600, mode::READ, "").unwrap();
    let shown = |path| {
        let Record { numbers, name, extension } = of(share, path);
        (numbers.mode, numbers.qid.kind, name, extension)
    };
    let row = |mode, kind, name: &str, extension: &str| (mode, kind, name.into(), extension.into());
    assert_eq!(shown("d/hard").3, "HARDLINKCOUNT 2");
    assert_eq!(shown(""), row(dm::DIR | 0o777, 0x80, "/", "HARDLINKCOUNT 3"));
    assert_eq!(shown("d"), row(dm::DIR | dm::SETVTX | 0o755, 0x80, "d", "HARDLINKCOUNT 2"));
    assert_eq!(shown("d/soft"), row(dm::SYMLINK | 0o777, 2, "soft", "../f"));
    assert_eq!(shown("d/pipe"), row(dm::NAMED_PIPE | 0o640, 0, "pipe", ""));
    assert_eq!(shown("d/socket"), row(dm::SOCKET | 0o600, 0, "socket", ""));
    assert_eq!(std::fs::read_link(share.host.path("d/soft")).unwrap().to_str(), Some("../f"));
    assert_eq!(share.host.stat("f").ino, share.host.stat("d/hard").ino);
    let numbers = of(share, "f").numbers;
    assert_eq!((numbers.length, numbers.n_uid, numbers.n_gid), (5, 0, 0));
}

// mknod(2), by a server that has the privilege: "c 1 3" is /dev/null
#[apply(promise)]
fn a_device_is_made_where_devices_may_be(on: Kind) {
    let share = on.setup().serve_9p();
    share.speak_u(MSIZE);
    let made = share.make("", "null", dm::DEVICE | 0o600, mode::READ, "c 1 3").map(drop);
    assert_eq!(made, if on == Kind::Host { Ok(()) } else { Err(EPERM) });
    if made.is_ok() {
        let Record { numbers, extension, .. } = of(&share, "null");
        assert_eq!((numbers.mode, extension.as_str()), (dm::DEVICE | 0o600, "c 1 3"));
        assert_eq!(share.open_u("null", mode::READ), Err(ENXIO));
    }
    for wrong in ["", "c", "c 1", "c 1 3 5", "x 1 3", "c -1 3", "c 1 0x3"] {
        assert_eq!(share.make("", "n", dm::DEVICE | 0o600, mode::READ, wrong), Err(EINVAL), "{wrong}");
    }
}

// Nobody names the group in 9P2000.u. open(5): "the group of the file is the same as the directory"
#[apply(promise)]
fn what_is_made_is_its_user_s_and_its_directory_s_group_s(share: &Share9p) {
    share.host.mkdir("d");
    share.host.chown("d", 0, 1001);
    share.host.chmod("d", 0o777);
    share.speak_u(MSIZE);
    for (uid, kept) in [(1000, 0), (0, dm::SETGID)] {
        let user = share.fid();
        share.attach_as(user, uid).unwrap();
        let make = |name: String, perm| {
            let fid = share.fid();
            share.call::<_, Rwalk>(&Twalk { fid: user, newfid: fid, names: vec![Text(b"d")] }).unwrap();
            share.make_from(fid, &name, perm, mode::READ, "target").unwrap();
            let record = of(share, &format!("d/{name}"));
            assert_eq!((record.numbers.n_uid, record.numbers.n_gid), (uid, 1001), "{name}");
            record.numbers.mode & (dm::SETGID | dm::SETUID)
        };
        // A user who is not of the directory's group must not make programs that are: chmod(2).
        assert_eq!(make(format!("f{uid}"), dm::SETUID | dm::SETGID | 0o755), dm::SETUID | kept);
        make(format!("d{uid}"), dm::DIR | 0o755);
        make(format!("p{uid}"), dm::NAMED_PIPE | 0o600);
        make(format!("l{uid}"), dm::SYMLINK | 0o777);
    }
}

// read(5): "For directories, read returns an integral number of directory entries exactly as in stat"
#[apply(promise)]
fn a_directory_is_read_as_whole_records_to_its_end(share: &Share9p) {
    share.host.mkdir("d");
    let mut names: Vec<String> = (0..300).map(|n| format!("entry-with-a-longer-name-{n}")).collect();
    names.iter().for_each(|name| share.host.write(&format!("d/{name}"), b"12"));
    share.host.symlink("entry-with-a-longer-name-7", "d/link");
    names.extend([".", "..", "link"].map(String::from));
    names.sort();
    share.speak_u(8192);
    for count in [342, 1000, 4072, u32::MAX] {
        let mut found = share.list_u("d", count).unwrap();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        assert_eq!(found.iter().map(|record| record.name.clone()).collect::<Vec<_>>(), names, "{count}");
        for record in &found {
            match record.name.as_str() {
                "." | ".." => assert_eq!(record.numbers.qid.kind, 0x80),
                "link" => assert_eq!(record.extension, "entry-with-a-longer-name-7"),
                name => assert_eq!(*record, of(share, &format!("d/{name}"))),
            }
        }
        let dots = |name: &str| found.iter().find(|record| record.name == name).unwrap().numbers.qid.path;
        assert_eq!((dots("."), dots("..")), (of(share, "d").numbers.qid.path, of(share, "").numbers.qid.path));
    }
    let dir = share.open_u("d", mode::READ).unwrap();
    assert_eq!(share.records(dir, 0, 341), Err(EINVAL), "the longest name does not fit");
}

// read(5): "seeking other than to the beginning is illegal in a directory"
#[apply(promise)]
fn a_directory_is_read_from_its_beginning_or_on(share: &Share9p) {
    (0..100).for_each(|n| share.host.write(&format!("name-{n}"), b""));
    share.speak_u(8192);
    let dir = share.open_u("", mode::READ).unwrap();
    let (first, end) = share.records(dir, 0, 2000).unwrap();
    for wrong in [1, end - 1, end + 1, u64::MAX] {
        assert_eq!(share.records(dir, wrong, 2000), Err(EINVAL), "{wrong}");
    }
    // Linux fills its buffer by smaller and smaller readings until one brings nothing.
    assert_eq!(share.records(dir, end, 341), Ok((vec![], 0)));
    let (second, _) = share.records(dir, end, 2000).unwrap();
    assert!(second.iter().all(|record| !first.contains(record)));
    assert_eq!(share.records(dir, end, 2000), Err(EINVAL), "read already");
    assert_eq!(share.records(dir, 0, 2000), Ok((first, end)), "from its beginning again");
    assert_eq!(share.records(dir, end, 2000).unwrap().0, second);
}

// A symbolic link may say more than fits into the smallest message.
#[apply(promise)]
fn a_link_that_says_more_than_fits_is_listed_without_it(share: &Share9p) {
    let (long, name) = ("t".repeat(4095), "n".repeat(255));
    share.host.symlink(&long, &name);
    share.host.symlink(&long[..3000], "short");
    (0..30).for_each(|n| share.host.write(&format!("name-{n}"), b""));
    for (msize, fits) in [(4096, false), (8192, true)] {
        share.speak_u(msize);
        let listed = share.list_u("", u32::MAX).unwrap();
        assert_eq!(listed.len(), 34, "{msize}");
        let link = listed.iter().find(|record| record.name == name).unwrap();
        assert_eq!((link.numbers.length, link.extension.len()), (4095, if fits { 4095 } else { 0 }));
        let fid = share.walk(&name).unwrap();
        assert_eq!(
            share.stat(fid).map(|record| record.extension.len()),
            if fits { Ok(4095) } else { Err(ENAMETOOLONG) }
        );
        assert_eq!(of(share, "short").extension.len(), 3000);
    }
}

// stat(5): "a wstat ... 'don't touch' values"; "Either all the changes in wstat request happen, or none of them does"
#[apply(promise)]
fn attributes_are_set_one_by_one(share: &Share9p) {
    share.host.write("f", b"12345");
    share.speak_u(MSIZE);
    let fid = share.walk("f").unwrap();
    let set = |stat| share.wstat(fid, stat).unwrap();
    set(Stat { mode: dm::SETVTX | 0o600, ..KEEP });
    set(Stat { length: 3, ..KEEP });
    set(Stat { atime: 4, ..KEEP });
    set(Stat { mtime: 6, ..KEEP });
    set(Stat { n_uid: 1, n_gid: 2, ..KEEP });
    let numbers = share.stat(fid).unwrap().numbers;
    assert_eq!((numbers.mode, numbers.length), (dm::SETVTX | 0o600, 3));
    assert_eq!((numbers.n_uid, numbers.n_gid, numbers.atime, numbers.mtime), (1, 2, 4, 6));
    set(Stat { mode: dm::SETVTX | 0o644, length: 9, n_gid: 5, mtime: 7, ..KEEP });
    let all = share.stat(fid).unwrap();
    assert_eq!((all.numbers.mode, all.numbers.length, all.numbers.mtime), (dm::SETVTX | 0o644, 9, 7));
    assert_eq!((all.numbers.n_uid, all.numbers.n_gid), (1, 5));
    // What a client got it may say again.
    let (name, extension) = (Text(all.name.as_bytes()), Text(all.extension.as_bytes()));
    set(Stat { name, extension, muid: Text(b"somebody"), ..all.numbers });
    assert_eq!(share.stat(fid).unwrap().name, "f");
}

// stat(5): "None of the other data can be altered by a wstat and attempts to change them will trigger an error"
#[apply(promise)]
fn what_cannot_change_is_refused_and_nothing_else_is_changed_then(share: &Share9p) {
    share.host.write("f", b"12345");
    share.host.symlink("f", "l");
    share.speak_u(MSIZE);
    let (file, link, root) = (share.walk("f").unwrap(), share.walk("l").unwrap(), share.walk("").unwrap());
    let before = share.stat(file).unwrap();
    let other = Stat { length: 1, mode: 0o777, n_uid: 7, ..KEEP };
    for wrong in [
        Stat { kind: 1, ..other },
        Stat { dev: 1, ..other },
        Stat { qid: Qid { kind: 0, version: 0, path: 1 }, ..other },
        Stat { mode: dm::DIR | 0o755, ..other },
        Stat { mode: dm::SYMLINK | 0o777, ..other },
        Stat { mode: 0x4000_0000 | 0o777, ..other },
        Stat { uid: Text(b"root"), ..other },
        Stat { gid: Text(b"wheel"), ..other },
        Stat { extension: Text(b"HARDLINKCOUNT 9"), ..other },
        Stat { name: Text(b"a/b"), ..other },
    ] {
        assert_eq!(share.wstat(file, wrong), Err(EINVAL), "{wrong:?}");
    }
    assert_eq!(share.stat(file).unwrap(), before);
    assert_eq!(share.wstat(link, Stat { extension: Text(b"elsewhere"), ..KEEP }), Err(EINVAL));
    assert_eq!(share.wstat(root, Stat { mode: 0o700, ..KEEP }), Err(EINVAL), "a directory says that it is one");
    assert_eq!(share.wstat(root, named("new")), Err(EINVAL));
    assert_eq!(share.wstat(4711, KEEP), Err(EBADF));
    assert_eq!(share.host.list(""), ["f", "l"]);
}

// stat(5): "the name ... can be changed by anyone with write permission in the parent directory"; rename(2) replaces
#[apply(promise)]
fn a_file_is_renamed_where_it_is(share: &Share9p) {
    share.host.mkdir("d");
    share.host.write("d/f", b"mine");
    share.host.write("d/g", b"replaced");
    share.speak_u(MSIZE);
    let fid = share.walk("d/f").unwrap();
    // Linux says who renames.
    share.wstat(fid, Stat { muid: Text(b"nobody"), ..named("g") }).unwrap();
    assert_eq!((share.host.list("d"), share.host.read("d/g")), (vec!["g".into()], b"mine".to_vec()));
    assert_eq!(share.stat(fid).unwrap().name, "g");
    share.wstat(fid, named("h")).unwrap();
    let open = share.open_u("d/h", mode::RDWR).unwrap();
    share.wstat(open, Stat { length: 1, ..named("i") }).unwrap();
    assert_eq!((share.stat(open).unwrap().name.as_str(), share.host.read("d/i").as_slice()), ("i", &b"m"[..]));
    share.wstat(share.walk("d").unwrap(), named("e")).unwrap();
    share.call::<_, Rremove>(&Tremove { fid }).unwrap();
    assert_eq!(share.host.list(""), ["e"]);
    assert_eq!(share.host.list("e"), Vec::<String>::new());
}

// QEMU's server aborted on some of them. path_resolution(7)
#[apply(promise)]
fn qemu_11_0_2_a_rename_by_twstat_to_what_is_no_name_is_refused(share: &Share9p) {
    share.host.mkdir("d");
    share.host.write("d/f", b"x");
    share.speak_u(MSIZE);
    let fids = [share.walk("d/f").unwrap(), share.open_u("d/f", mode::RDWR).unwrap(), share.walk("d").unwrap()];
    for name in postern_tests::hostile::bad_names().iter().filter(|name| !name.is_empty()) {
        for fid in fids {
            let refused = share.wstat(fid, Stat { name: Text(name), ..KEEP });
            assert!(
                matches!(refused, Err(EINVAL | ENAMETOOLONG | ENOENT | EEXIST)),
                "{}: {refused:?}",
                name.escape_ascii()
            );
        }
    }
    assert_eq!((share.host.list(""), share.host.list("d")), (vec!["d".into()], vec!["f".into()]));
    share.server.assert_contained();
}

// stat(5): "if all the elements are don't touch values, the server may interpret it as a request to guarantee that the
// contents of the associated file are committed to stable storage before the Rwstat message is returned". QEMU never
// answered it.
#[apply(promise)]
fn a_change_of_nothing_is_answered_when_the_file_is_on_the_disk(share: &Share9p) {
    share.speak_u(MSIZE);
    let file = share.make("", "f", 0o600, mode::RDWR, "").unwrap();
    share.write(file, 0, &[b'x'; 65_536]).unwrap();
    assert!(share.host.waits_for_its_place("f"));
    share.wstat(file, KEEP).unwrap();
    assert!(!share.host.waits_for_its_place("f"));
    share.make("", "p", dm::NAMED_PIPE | 0o600, mode::READ, "").unwrap();
    for path in ["f", "p", ""] {
        share.wstat(share.walk(path).unwrap(), KEEP).unwrap();
    }
}

// remove(5); unlink(2): "the file will remain in existence until the last file descriptor referring to it is closed"
#[apply(promise)]
fn a_removed_file_lives_until_its_last_fid_goes(share: &Share9p) {
    share.speak_u(MSIZE);
    share.host.mkdir("d");
    let file = share.make("d", "f", 0o600, mode::RDWR, "").unwrap();
    let by = share.walk("d/f").unwrap();
    let full = share.walk("d").unwrap();
    assert_eq!(share.call::<_, Rremove>(&Tremove { fid: full }).map(drop), Err(ENOTEMPTY));
    assert_eq!(share.stat(full), Err(EBADF), "clunked nevertheless");
    share.call::<_, Rremove>(&Tremove { fid: by }).unwrap();
    share.write(file, 0, b"alive").unwrap();
    assert_eq!(share.read(file, 0, 10).unwrap(), b"alive");
    let record = share.stat(file).unwrap();
    assert_eq!((record.extension.as_str(), record.numbers.length), ("HARDLINKCOUNT 0", 5));
    share.call::<_, Rremove>(&Tremove { fid: share.walk("d").unwrap() }).unwrap();
    assert_eq!(share.host.list(""), Vec::<String>::new());
}

// CVE-2026-63318, by the messages of this dialect
#[apply(promise)]
fn a_read_only_share_stays_as_it_is(on: Kind) {
    let share = on.setup().readonly().plant(|host| host.write("f", b"as it is")).serve_9p();
    share.speak_u(MSIZE);
    for how in [mode::WRITE, mode::RDWR, mode::TRUNC, mode::WRITE | mode::TRUNC] {
        assert_eq!(share.open_u("f", how), Err(EROFS), "{how:x}");
    }
    for perm in [0o600, dm::DIR | 0o700, dm::SYMLINK, dm::NAMED_PIPE, dm::SOCKET] {
        assert_eq!(share.make("", "new", perm, mode::READ, "x"), Err(EROFS), "{perm:x}");
    }
    let fid = share.walk("f").unwrap();
    assert_eq!(share.make("", "new", dm::LINK, mode::READ, &fid.to_string()), Err(EROFS));
    for change in [named("g"), Stat { length: 0, ..KEEP }, Stat { mode: 0o777, ..KEEP }, Stat { mtime: 1, ..KEEP }] {
        assert_eq!(share.wstat(fid, change), Err(EROFS), "{change:?}");
    }
    let close = share.open_u("f", mode::RCLOSE).unwrap();
    assert_eq!(share.clunk(close), Err(EROFS));
    assert_eq!(share.call::<_, Rremove>(&Tremove { fid }).map(drop), Err(EROFS));
    assert_eq!((share.host.list(""), share.host.read("f")), (vec!["f".into()], b"as it is".to_vec()));
}

// Each dialect has messages of its own: those of the other are none.
#[apply(promise)]
fn the_messages_of_the_other_dialect_are_refused(share: &Share9p) {
    share.host.write("f", b"x");
    let (name, dfid) = (Text(b"n"), ROOT);
    let fid = 4711;
    macro_rules! refused { ($($message:expr),* $(,)?) => {
        $(assert_eq!(share.recv(share.send(&$message, &[], 0)).map(drop), Err(EOPNOTSUPP), "{:?}", $message);)*
    } }
    let walk = || share.call::<_, Rwalk>(&Twalk { fid: ROOT, newfid: fid, names: vec![Text(b"f")] }).unwrap();
    walk();
    refused![
        Topen { fid, mode: 0 },
        Tcreate { fid: ROOT, name, perm: 0o600, mode: 0, extension: Text(b"") },
        Tstat { fid },
        Twstat { fid, stat: postern_server::p9::wire::Measured(postern_server::p9::wire::Measured(KEEP)) },
    ];
    let dir = share.open("", O_RDONLY).unwrap();
    assert_eq!(share.read(dir, 0, 4000), Err(EISDIR), "a directory is read by Treaddir");
    share.speak_u(MSIZE);
    walk();
    refused![
        Tstatfs { fid },
        Tlopen { fid, flags: 0 },
        Tlcreate { fid: ROOT, name, flags: 0, mode: 0o600, gid: 0 },
        Tsymlink { dfid, name, target: name, gid: 0 },
        Tmknod { dfid, name, mode: 0o600, major: 0, minor: 0, gid: 0 },
        Trename { fid, dfid, name },
        Treadlink { fid },
        Tgetattr { fid, request_mask: 0 },
        Txattrwalk { fid, newfid: 2, name },
        Txattrcreate { fid, name, size: 1, flags: 0 },
        Treaddir { fid, offset: 0, count: 1000 },
        Tfsync { fid, datasync: 0 },
        Tlock { fid, kind: 0, flags: 0, start: 0, length: 0, proc_id: 0, client_id: name },
        Tgetlock { fid, kind: 0, start: 0, length: 0, proc_id: 0, client_id: name },
        Tlink { dfid, fid, name },
        Tmkdir { dfid, name, mode: 0o700, gid: 0 },
        Trenameat { olddirfid: dfid, oldname: Text(b"f"), newdirfid: dfid, newname: name },
        Tunlinkat { dirfd: dfid, name: Text(b"f"), flags: 0 },
    ];
    assert_eq!(share.host.list(""), ["f"]);
}
