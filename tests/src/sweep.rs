//! What a server may ask for without breaking the protocol: every row of the table, each of its fields at its edges.

use postern_ipc::attr::{Changes, Dev, Mode, NodeKind, OpenFlags, RenameFlags, Time, TimeChange, XattrFlags};
use postern_ipc::few::EACH_MAX;
use postern_ipc::frame::{self, DATA_MAX};
use postern_ipc::id::{Caller, GuestGid, GuestUid};
use postern_ipc::name::{FileName, Names, Target, XattrName};
use postern_ipc::op::*;

/// Ids at the edges of maps, of what is an id, and of the numbers.
pub const IDS: [u32; 10] = [0, 1, 999, 65_534, 65_535, 65_536, 100_000, 1 << 31, u32::MAX - 1, u32::MAX];
/// Offsets, lengths and sizes that cost no disk: little, or more than a file can have.
const NUMBERS: [u64; 6] = [0, 1, 4097, i64::MAX as u64, 1 << 63, u64::MAX];
const MODES: [u32; 4] = [0, 0o644, 0o1777, 0o7777];

/// A request that anybody may make.
pub struct Request {
    /// Its row.
    pub kind: Kind,
    /// Its bulk data.
    pub data: Vec<u8>,
    encode: Box<dyn Fn(u32, Caller) -> Vec<u8> + Send + Sync>,
}

impl Request {
    fn new<O: Op + Send + Sync + 'static>(op: O, data: &[u8]) -> Self {
        let length = data.len();
        let encode = move |serial, caller| {
            let mut out = Vec::new();
            frame::encode(&mut out, serial, O::KIND as u16, None, &(caller, &op), length).expect("within its caps");
            out
        };
        Self { kind: O::KIND, data: data.to_vec(), encode: Box::new(encode) }
    }

    /// Header and body as they are sent.
    pub fn frame(&self, serial: u32, caller: Caller) -> Vec<u8> {
        (self.encode)(serial, caller)
    }
}

/// Every row, its fields at their edges.
pub fn requests() -> Vec<Request> {
    let mut all = vec![
        Request::new(Stat {}, b""),
        Request::new(Readlink {}, b""),
        Request::new(OpenDir {}, b""),
        Request::new(GetFlags {}, b""),
        Request::new(GetFsx {}, b""),
        Request::new(GetVersion {}, b""),
        Request::new(SyncFs {}, b""),
    ];
    all.extend(names().into_iter().flat_map(by_name));
    all.extend(changes().map(|changes| Request::new(SetAttr { changes }, b"")));
    all.extend((0..=OpenFlags::all().bits()).map(|bits| Request::new(Open { flags: open_flags(bits) }, b"")));
    all.extend(moves());
    all.extend((1..=EACH_MAX).map(|count| Request::new(OpenEach { names: each(names(), count) }, b"")));
    all.push(Request::new(OpenEach { names: each(vec![names()[0]], EACH_MAX) }, b""));
    all.extend(xattrs());
    all.extend(bits().map(|flags| Request::new(SetFlags { flags }, b"")));
    all.extend(bits().map(|flags| Request::new(SetFsx { fsx: fsx(flags) }, b"")));
    all.extend(data());
    all
}

/// One request of each row, the first there is.
pub fn one_of_each() -> Vec<Request> {
    let mut seen = Vec::new();
    requests()
        .into_iter()
        .filter(|request| !seen.contains(&request.kind) && (seen.push(request.kind), true).1)
        .collect()
}

/// Whoever may be said to ask.
pub fn callers() -> Vec<Caller> {
    let user = |uid, gid, group: Option<u32>| Caller::User {
        uid: GuestUid(uid),
        gid: GuestGid(gid),
        group: group.map(GuestGid),
    };
    let mut all = vec![Caller::Root];
    for id in IDS {
        all.extend([user(id, id, None), user(1, id, None), user(id, 1, None), user(1, 1, Some(id))]);
        all.push(Caller::Alone { uid: GuestUid(id), gid: GuestGid(id) });
        all.push(Caller::Alone { uid: GuestUid(1), gid: GuestGid(id) });
    }
    all
}

fn open_flags(bits: u32) -> OpenFlags {
    OpenFlags::from_bits(bits).expect("a named bit")
}

fn names() -> Vec<FileName> {
    let long = [b'n'; 255];
    let names: [&[u8]; 7] = [b"f", b"d", b"out", b"canary", b"new", b"\xff\n\x1b[31m*", &long];
    names.map(|name| FileName::new(name).expect("a name")).into()
}

fn each(names: Vec<FileName>, count: usize) -> Names {
    Names::try_from(names.into_iter().cycle().take(count).collect::<Vec<_>>()).expect("not too many")
}

/// The rows that look up, make or remove a name, or make what has none.
fn by_name(name: FileName) -> Vec<Request> {
    let mut all = vec![
        Request::new(Lookup { name }, b""),
        Request::new(Unlink { name }, b""),
        Request::new(Rmdir { name }, b""),
        Request::new(Link { name }, b""),
    ];
    for target in [&b"../outside"[..], b"/", &[b'/'; 4095]] {
        all.push(Request::new(Symlink { name, target: Target::new(target).expect("a target") }, b""));
    }
    for (mode, umask) in MODES.into_iter().flat_map(|mode| [(mode, 0), (mode, 0o7777)]) {
        let (mode, umask) = (Mode::new(mode), Mode::new(umask));
        all.push(Request::new(Mkdir { name, mode, umask }, b""));
        for kind in kinds() {
            all.push(Request::new(Mknod { name, kind, mode, umask }, b""));
        }
        for flags in (0..10).map(|bit| open_flags(1 << bit)).chain([OpenFlags::empty(), OpenFlags::all()]) {
            all.push(Request::new(Create { name, mode, umask, flags }, b""));
            all.push(Request::new(TmpFile { mode, umask, flags }, b""));
        }
    }
    all
}

fn kinds() -> Vec<NodeKind> {
    let devices = [(0, 0), (1, 1), (1, 3), (8, 0), (u32::MAX, u32::MAX)].map(|(major, minor)| Dev { major, minor });
    let plain = [NodeKind::File, NodeKind::Fifo, NodeKind::Socket];
    plain.into_iter().chain(devices.map(NodeKind::Char)).chain(devices.map(NodeKind::Block)).collect()
}

fn changes() -> impl Iterator<Item = Changes> {
    let none = Changes::default;
    let uids = IDS.into_iter().map(move |id| Changes { uid: Some(GuestUid(id)), ..none() });
    let gids = IDS.into_iter().map(move |id| Changes { gid: Some(GuestGid(id)), ..none() });
    let modes = MODES.into_iter().map(move |mode| Changes { mode: Some(Mode::new(mode)), ..none() });
    let sizes = NUMBERS.into_iter().filter(|&size| size != i64::MAX as u64);
    let sizes = sizes.map(move |size| Changes { size: Some(size), kill_setid: size & 1 == 1, ..none() });
    let moments = [i64::MIN, -1, 0, 1 << 33, i64::MAX].into_iter().flat_map(|sec| {
        [0, 999_999_999, 1_000_000_000, (1 << 30) - 1, (1 << 30) - 2, u32::MAX].map(|nsec| Time { sec, nsec })
    });
    let times = moments.flat_map(move |time| {
        let at = TimeChange::At(time);
        [Changes { atime: at, mtime: TimeChange::Now, ..none() }, Changes { mtime: at, ..none() }]
    });
    uids.chain(gids).chain(modes).chain(sizes).chain(times)
}

fn moves() -> Vec<Request> {
    let mut all = Vec::new();
    for flags in (0..8).filter_map(RenameFlags::from_bits) {
        for name in names() {
            all.extend(names().into_iter().map(|new_name| Request::new(Rename { name, new_name, flags }, b"")));
        }
    }
    all
}

fn xattrs() -> Vec<Request> {
    let long = [&b"user."[..], &[b'x'; 250]].concat();
    let names: [&[u8]; 13] = [
        b"user.a",
        b"user.",
        b"user",
        b"trusted.a",
        b"trusted.overlay.opaque",
        b"security.capability",
        b"security.selinux",
        b"security.ima",
        b"system.posix_acl_access",
        b"system.posix_acl_default",
        b"system.nfs4_acl",
        b"a/../b",
        &long,
    ];
    let capability = [1, 0, 0, 2, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let values: [&[u8]; 4] = [b"", b"x", &capability, &[0xff; DATA_MAX]];
    let sizes = [0, 1, 65_536, 65_537, u32::MAX];
    let mut all: Vec<_> = sizes.map(|size| Request::new(ListXattr { size }, b"")).into();
    for name in names.map(|name| XattrName::new(name).expect("a name")) {
        for flags in (0..8).filter_map(XattrFlags::from_bits) {
            all.extend(values.map(|value| Request::new(SetXattr { name, flags }, value)));
        }
        all.extend(sizes.map(|size| Request::new(GetXattr { name, size }, b"")));
        all.push(Request::new(RemoveXattr { name }, b""));
    }
    all
}

/// Each bit, none and all.
fn bits() -> impl Iterator<Item = u32> {
    (0..32).map(|bit| 1 << bit).chain([0, u32::MAX])
}

fn fsx(number: u32) -> Fsx {
    Fsx { xflags: number, extsize: number, nextents: number, projid: number, cowextsize: number }
}

fn data() -> Vec<Request> {
    let mut all = Vec::new();
    for offset in NUMBERS {
        all.extend([&b""[..], b"J", &[7; DATA_MAX]].map(|data| Request::new(Write { offset }, data)));
        for length in NUMBERS {
            all.push(Request::new(CopyRange { from_offset: offset, to_offset: length, length: 1 }, b""));
            all.push(Request::new(CopyRange { from_offset: 0, to_offset: offset, length }, b""));
            all.extend(bits().map(|mode| Request::new(Fallocate { mode, offset, length }, b"")));
        }
    }
    all
}
