//! The messages of 9P2000.L and 9P2000.u: number, name, fields, one row each. Every message begins with
//! [`HEADER`] bytes, `size[4] type[1] tag[2]`; an answer's number is its request's and one.
//!
//! Sources: diod's protocol.md for 9P2000.L, ericvh.github.io/9p-rfc for 9P2000.u, Plan 9's intro(5) for what all
//! dialects share, linux/include/net/9p/9p.h for the numbers.
#![allow(missing_docs, reason = "fields are named as in the protocol's documents, which say what they are")]

use postern_ipc::Result;

use super::wire::{Content, Get, Measured, Put, Reader, Text};

/// Bytes of `size[4] type[1] tag[2]`, the size counting them too.
pub const HEADER: usize = 7;
/// The fid of nothing.
pub const NOFID: u32 = !0;
/// The tag of Tversion.
pub const NOTAG: u16 = !0;
/// No user: an attach of the guest's mount as a whole. P9_NONUNAME
pub const NONUNAME: u32 = !0;

/// A message has a number; its fields follow its header.
pub trait Message {
    /// Its type.
    const NUMBER: u8;
}

macro_rules! records {
    ($($(#[$doc:meta])* $name:ident $(<$life:lifetime>)? { $($field:ident: $type:ty),* $(,)? })*) => { $(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub struct $name $(<$life>)? { $(pub $field: $type,)* }

        impl<'a> Get<'a> for $name $(<$life>)? {
            fn get(_from: &mut Reader<'a>) -> Result<Self> {
                Ok(Self { $($field: Get::get(_from)?,)* })
            }
        }

        impl $(<$life>)? Put for $name $(<$life>)? {
            fn put(&self, _to: &mut Vec<u8>) {
                $(self.$field.put(_to);)*
            }
        }
    )* };
}

macro_rules! messages {
    ($($(#[$doc:meta])* $number:literal $name:ident $(<$life:lifetime>)? { $($fields:tt)* })*) => {
        $(
            records! { $(#[$doc])* $name $(<$life>)? { $($fields)* } }

            impl $(<$life>)? Message for $name $(<$life>)? {
                const NUMBER: u8 = $number;
            }
        )*
    };
}

records! {
    /// What a file is: kind QT*, version that changes with the content, number that stays.
    #[derive(Copy)]
    Qid { kind: u8, version: u32, path: u64 }
    /// The attributes of a file in 9P2000.u, times in seconds. In Twstat all ones, or no bytes, leave a thing as it is.
    #[derive(Copy)]
    Stat<'a> {
        kind: u16, dev: u32, qid: Qid, mode: u32, atime: u32, mtime: u32, length: u64, name: Text<'a>, uid: Text<'a>,
        gid: Text<'a>, muid: Text<'a>, extension: Text<'a>, n_uid: u32, n_gid: u32, n_muid: u32,
    }
}

messages! {
    /// An error in 9P2000.L.
    7 Rlerror { ecode: u32 }
    8 Tstatfs { fid: u32 }
    9 Rstatfs {
        kind: u32, bsize: u32, blocks: u64, bfree: u64, bavail: u64, files: u64, ffree: u64, fsid: u64, namelen: u32,
    }
    12 Tlopen { fid: u32, flags: u32 }
    13 Rlopen { qid: Qid, iounit: u32 }
    14 Tlcreate<'a> { fid: u32, name: Text<'a>, flags: u32, mode: u32, gid: u32 }
    15 Rlcreate { qid: Qid, iounit: u32 }
    16 Tsymlink<'a> { dfid: u32, name: Text<'a>, target: Text<'a>, gid: u32 }
    17 Rsymlink { qid: Qid }
    18 Tmknod<'a> { dfid: u32, name: Text<'a>, mode: u32, major: u32, minor: u32, gid: u32 }
    19 Rmknod { qid: Qid }
    20 Trename<'a> { fid: u32, dfid: u32, name: Text<'a> }
    21 Rrename {}
    22 Treadlink { fid: u32 }
    23 Rreadlink<'a> { target: Text<'a> }
    24 Tgetattr { fid: u32, request_mask: u64 }
    25 Rgetattr {
        valid: u64, qid: Qid, mode: u32, uid: u32, gid: u32, nlink: u64, rdev: u64, size: u64, blksize: u64, blocks: u64,
        atime_sec: u64, atime_nsec: u64, mtime_sec: u64, mtime_nsec: u64, ctime_sec: u64, ctime_nsec: u64,
        btime_sec: u64, btime_nsec: u64, generation: u64, data_version: u64,
    }
    26 Tsetattr {
        fid: u32, valid: u32, mode: u32, uid: u32, gid: u32, size: u64,
        atime_sec: u64, atime_nsec: u64, mtime_sec: u64, mtime_nsec: u64,
    }
    27 Rsetattr {}
    30 Txattrwalk<'a> { fid: u32, newfid: u32, name: Text<'a> }
    31 Rxattrwalk { size: u64 }
    32 Txattrcreate<'a> { fid: u32, name: Text<'a>, size: u64, flags: u32 }
    33 Rxattrcreate {}
    40 Treaddir { fid: u32, offset: u64, count: u32 }
    /// The data are entries: `qid[13] offset[8] type[1] name[s]`.
    41 Rreaddir<'a> { data: Content<'a> }
    50 Tfsync { fid: u32, datasync: u32 }
    51 Rfsync {}
    52 Tlock<'a> { fid: u32, kind: u8, flags: u32, start: u64, length: u64, proc_id: u32, client_id: Text<'a> }
    53 Rlock { status: u8 }
    54 Tgetlock<'a> { fid: u32, kind: u8, start: u64, length: u64, proc_id: u32, client_id: Text<'a> }
    55 Rgetlock<'a> { kind: u8, start: u64, length: u64, proc_id: u32, client_id: Text<'a> }
    70 Tlink<'a> { dfid: u32, fid: u32, name: Text<'a> }
    71 Rlink {}
    72 Tmkdir<'a> { dfid: u32, name: Text<'a>, mode: u32, gid: u32 }
    73 Rmkdir { qid: Qid }
    74 Trenameat<'a> { olddirfid: u32, oldname: Text<'a>, newdirfid: u32, newname: Text<'a> }
    75 Rrenameat {}
    76 Tunlinkat<'a> { dirfd: u32, name: Text<'a>, flags: u32 }
    77 Runlinkat {}
    100 Tversion<'a> { msize: u32, version: Text<'a> }
    101 Rversion<'a> { msize: u32, version: Text<'a> }
    102 Tauth<'a> { afid: u32, uname: Text<'a>, aname: Text<'a>, n_uname: u32 }
    103 Rauth { aqid: Qid }
    104 Tattach<'a> { fid: u32, afid: u32, uname: Text<'a>, aname: Text<'a>, n_uname: u32 }
    105 Rattach { qid: Qid }
    /// An error in 9P2000.u.
    107 Rerror<'a> { ename: Text<'a>, errno: u32 }
    108 Tflush { oldtag: u16 }
    109 Rflush {}
    110 Twalk<'a> { fid: u32, newfid: u32, names: Vec<Text<'a>> }
    111 Rwalk { qids: Vec<Qid> }
    112 Topen { fid: u32, mode: u8 }
    113 Ropen { qid: Qid, iounit: u32 }
    114 Tcreate<'a> { fid: u32, name: Text<'a>, perm: u32, mode: u8, extension: Text<'a> }
    115 Rcreate { qid: Qid, iounit: u32 }
    116 Tread { fid: u32, offset: u64, count: u32 }
    117 Rread<'a> { data: Content<'a> }
    /// The `count` bytes themselves follow it.
    118 Twrite { fid: u32, offset: u64, count: u32 }
    119 Rwrite { count: u32 }
    120 Tclunk { fid: u32 }
    121 Rclunk {}
    122 Tremove { fid: u32 }
    123 Rremove {}
    124 Tstat { fid: u32 }
    /// The record is measured twice: as `stat[n]` and by the size it begins with.
    125 Rstat<'a> { stat: Measured<Measured<Stat<'a>>> }
    126 Twstat<'a> { fid: u32, stat: Measured<Measured<Stat<'a>>> }
    127 Rwstat {}
}

impl Stat<'_> {
    /// Leaves everything as it is. stat(5): "don't touch" values
    pub const DONT_TOUCH: Self = Self {
        kind: !0,
        dev: !0,
        qid: Qid { kind: !0, version: !0, path: !0 },
        mode: !0,
        atime: !0,
        mtime: !0,
        length: !0,
        name: Text(b""),
        uid: Text(b""),
        gid: Text(b""),
        muid: Text(b""),
        extension: Text(b""),
        n_uid: !0,
        n_gid: !0,
        n_muid: !0,
    };
}

/// Bytes of a [`Twrite`] before its data.
pub const TWRITE: usize = 16;

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use super::*;
    use postern_ipc::Errno;

    fn decode<'a, T: Get<'a>>(bytes: &'a [u8]) -> Result<T> {
        let mut reader = Reader::new(bytes);
        let value = T::get(&mut reader)?;
        reader.finish().map(|()| value)
    }

    /// What was put is got again, and no part of it is taken for the whole.
    fn assert_whole<'a, T: Get<'a> + PartialEq + std::fmt::Debug>(message: &T, bytes: &'a [u8]) {
        assert_eq!(decode::<T>(bytes).as_ref(), Ok(message));
        for len in 0..bytes.len() {
            assert_eq!(decode::<T>(&bytes[..len]), Err(Errno::EINVAL), "{len} bytes of {message:?}");
        }
    }

    fn encode(message: &impl Put) -> Vec<u8> {
        let mut bytes = Vec::new();
        message.put(&mut bytes);
        bytes
    }

    #[test]
    fn a_truncated_message_is_no_message() {
        let walk = Twalk { fid: 1, newfid: 2, names: vec![Text(b"a"), Text(b".."), Text(b"")] };
        assert_whole(&walk, &encode(&walk));
        let create = Tlcreate { fid: 1, name: Text(b"name"), flags: 2, mode: 0o644, gid: 7 };
        assert_whole(&create, &encode(&create));
        let attach = Tattach { fid: 1, afid: NOFID, uname: Text(b"nobody"), aname: Text(b"/"), n_uname: 1000 };
        assert_whole(&attach, &encode(&attach));
        let lock = Tlock { fid: 1, kind: 0, flags: 1, start: 2, length: 3, proc_id: 4, client_id: Text(b"host") };
        assert_whole(&lock, &encode(&lock));
        let make = Tcreate { fid: 1, name: Text(b"n"), perm: 0o644, mode: 1, extension: Text(b"c 1 2") };
        assert_whole(&make, &encode(&make));
        let stat = Stat { name: Text(b"name"), extension: Text(b"target"), ..Stat::DONT_TOUCH };
        let change = Twstat { fid: 1, stat: Measured(Measured(stat)) };
        assert_whole(&change, &encode(&change));
    }

    // diod protocol.md: "size[4] Tmkdir tag[2] dfid[4] name[s] mode[4] gid[4]"
    #[test]
    fn fields_lie_as_the_protocol_says() {
        let mkdir = Tmkdir { dfid: 1, name: Text(b"d"), mode: 0o755, gid: 2 };
        assert_eq!(encode(&mkdir), [1, 0, 0, 0, 1, 0, b'd', 0xed, 1, 0, 0, 2, 0, 0, 0]);
        assert_eq!((Tmkdir::NUMBER, Rmkdir::NUMBER), (72, 73));
    }
}
