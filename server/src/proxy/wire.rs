//! Messages: a header of type and size, then numbers in the host's byte order and counted strings, without padding.

use postern_ipc::attr::{Attr, Dev};
use postern_ipc::{Errno, Result};

use crate::fs::Space;

/// Bytes of a header.
pub(super) const HEADER: usize = 8;
/// Most bytes that follow a header. 9p-proxy.h: PROXY_MAX_IO_SZ
pub(super) const PAYLOAD_MAX: usize = 64 * 1024;
/// In place of an errno: a descriptor comes with it. 9p-proxy.h: V9FS_FD_VALID
const VALID: i32 = i32::MAX;
/// f_type of 9P. linux/magic.h: V9FS_MAGIC
const MAGIC: u64 = 0x0102_1997;

/// What is left of a payload.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// All of it.
    pub(super) fn new(payload: &'a [u8]) -> Self {
        Self(payload)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk().ok_or(Errno::EINVAL)?;
        self.0 = rest;
        Ok(*array)
    }

    /// 32 bits.
    pub(super) fn d(&mut self) -> Result<u32> {
        self.array().map(u32::from_ne_bytes)
    }

    /// 64 bits.
    pub(super) fn q(&mut self) -> Result<u64> {
        self.array().map(u64::from_ne_bytes)
    }

    /// A counted string.
    pub(super) fn string(&mut self) -> Result<&'a [u8]> {
        let length = usize::from(u16::from_ne_bytes(self.array()?));
        let (string, rest) = self.0.split_at_checked(length).ok_or(Errno::EINVAL)?;
        self.0 = rest;
        Ok(string)
    }

    /// There must be nothing left.
    pub(super) fn end(&self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(Errno::EINVAL) }
    }
}

/// What is answered to a request that opens nothing.
pub(super) enum Reply {
    /// It is done; 0 unless a length was asked for.
    Status(u32),
    /// LSTAT
    Attr(Attr),
    /// STATFS
    Space(Space),
    /// READLINK, LGETXATTR, LLISTXATTR
    String(Vec<u8>),
    /// GETVERSION
    Version(u32),
}

/// A header. 9p-proxy.h: ProxyHeader
fn header(kind: u32, size: usize) -> Vec<u8> {
    let size = u32::try_from(size).unwrap_or(u32::MAX);
    [kind.to_ne_bytes(), size.to_ne_bytes()].concat()
}

/// A header, and the payload.
pub(super) fn message(answer: Result<Reply>) -> Vec<u8> {
    let (kind, payload) = match answer.and_then(payload) {
        Ok(payload) => (0, payload),
        Err(errno) => (1, negative(errno).to_ne_bytes().into()),
    };
    let mut message = header(kind, payload.len());
    message.extend(payload);
    message
}

/// The answer to OPEN and CREATE, which has no header.
pub(super) fn opened(failed: Option<Errno>) -> [u8; 4] {
    failed.map_or(VALID, negative).to_ne_bytes()
}

fn negative(errno: Errno) -> i32 {
    errno.raw().saturating_neg()
}

fn payload(reply: Reply) -> Result<Vec<u8>> {
    Ok(match reply {
        Reply::Status(status) => i32::try_from(status).map_err(|_| Errno::EOVERFLOW)?.to_ne_bytes().into(),
        Reply::Attr(attr) => stat(&attr),
        Reply::Space(space) => statfs(&space),
        Reply::String(mut string) => {
            let length = u16::try_from(string.len()).map_err(|_| Errno::ERANGE)?;
            string.splice(..0, length.to_ne_bytes());
            string
        }
        Reply::Version(version) => u64::from(version).to_ne_bytes().into(),
    })
}

/// 9p-proxy.h: ProxyStat
fn stat(attr: &Attr) -> Vec<u8> {
    let quads = |values: &[u64]| values.iter().flat_map(|value| value.to_ne_bytes()).collect::<Vec<_>>();
    let ids: Vec<_> = [attr.mode, attr.uid.0, attr.gid.0].iter().flat_map(|value| value.to_ne_bytes()).collect();
    let times = [attr.atime, attr.mtime, attr.ctime].map(|time| [time.sec.cast_unsigned(), u64::from(time.nsec)]);
    let sizes = [number(attr.rdev), attr.size, u64::from(attr.blksize), attr.blocks];
    let head = quads(&[number(attr.id.dev), attr.id.ino, u64::from(attr.nlink)]);
    [head, ids, quads(&sizes), quads(times.as_flattened())].concat()
}

/// 9p-proxy.h: ProxyStatFS
fn statfs(space: &Space) -> Vec<u8> {
    let Space { bsize, frsize, blocks, bfree, bavail, files, ffree, namelen } = *space;
    let (fsid, fsid_high) = (0, 0);
    let values = [MAGIC, bsize, blocks, bfree, bavail, files, ffree, fsid, fsid_high, namelen, frsize];
    values.iter().flat_map(|value| value.to_ne_bytes()).collect()
}

/// A device number as the host's programs have it. makedev(3)
fn number(dev: Dev) -> u64 {
    libc::makedev(dev.major, dev.minor)
}

/// The reverse.
pub(super) fn dev(number: u64) -> Dev {
    Dev { major: libc::major(number), minor: libc::minor(number) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_is_as_long_as_it_says_or_none() {
        let bytes = [3_u16.to_ne_bytes().as_slice(), b"abcd"].concat();
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.string(), Ok(&b"abc"[..]));
        assert_eq!(reader.end(), Err(Errno::EINVAL));
        assert_eq!(Reader::new(&bytes[..4]).string(), Err(Errno::EINVAL));
        assert_eq!(Reader::new(&bytes[..1]).string(), Err(Errno::EINVAL));
    }

    // virtfs-proxy-helper leaves the upper half of GETVERSION as it was on its stack.
    #[test]
    fn a_version_has_64_bits_of_which_the_upper_are_none() {
        let message = message(Ok(Reply::Version(u32::MAX)));
        assert_eq!(message[HEADER..], u64::from(u32::MAX).to_ne_bytes());
    }

    #[test]
    fn a_string_too_long_to_be_said_is_an_error() {
        let message = message(Ok(Reply::String(vec![0; 1 << 16])));
        assert_eq!(message[HEADER..], (-libc::ERANGE).to_ne_bytes());
    }
}
