//! Directories: OPENDIR, READDIR, READDIRPLUS, FSYNCDIR, RELEASEDIR.

use postern_server::fuse::abi::{opcode as op, *};
use zerocopy::FromBytes;

use super::*;

impl Process {
    /// OPENDIR.
    pub fn opendir(&self, target: impl Target) -> Result<File> {
        self.open_as(op::OPENDIR, target, libc::O_DIRECTORY, OpenInFlags::empty())
    }

    /// READDIR: the entries that fit into `size` bytes.
    pub fn readdir(&self, dir: &File, off: u64, size: u32) -> Result<Vec<Entry>> {
        let reply = self.raw(&self.read_as(op::READDIR, dir, off, size))?;
        Ok(records(&reply, |reply: &[u8]| parse_dirent(reply)).collect())
    }

    /// READDIRPLUS: the entries that fit into `size` bytes, each with what a LOOKUP gives.
    pub fn readdirplus(&self, dir: &File, off: u64, size: u32) -> Result<Vec<(EntryOut, Entry)>> {
        let reply = self.raw(&self.read_as(op::READDIRPLUS, dir, off, size))?;
        let plus = |reply: &[u8]| {
            let (entry, rest) = EntryOut::read_from_prefix(reply).expect("a whole entry");
            let (dirent, len) = parse_dirent(rest);
            ((entry, dirent), size_of::<EntryOut>() + len)
        };
        Ok(records(&reply, plus).collect())
    }

    /// All names of a directory except "." and "..", sorted.
    pub fn list(&self, target: impl Target) -> Result<Vec<String>> {
        let dir = self.opendir(target)?;
        let mut names: Vec<_> = self.entries(&dir)?.into_iter().map(|entry| entry.name).collect();
        self.releasedir(&dir)?;
        names.retain(|name| name != "." && name != "..");
        names.sort();
        Ok(names)
    }

    /// All entries of an open directory.
    pub fn entries(&self, dir: &File) -> Result<Vec<Entry>> {
        let mut all: Vec<Entry> = Vec::new();
        loop {
            let off = all.last().map_or(0, |entry| entry.off);
            match self.readdir(dir, off, 4096)? {
                more if more.is_empty() => return Ok(all),
                more => all.extend(more),
            }
        }
    }

    /// RELEASEDIR.
    pub fn releasedir(&self, file: &File) -> Result<()> {
        self.release_as(op::RELEASEDIR, file)
    }

    /// FSYNCDIR.
    pub fn fsyncdir(&self, file: &File, fsync_flags: FsyncFlags) -> Result<()> {
        self.sync_as(op::FSYNCDIR, file, fsync_flags)
    }
}

/// Splits a reply into records, each parsed with its length.
fn records<T>(reply: &[u8], parse: impl Fn(&[u8]) -> (T, usize)) -> impl Iterator<Item = T> {
    let mut rest = reply;
    std::iter::from_fn(move || {
        (!rest.is_empty()).then(|| {
            let (record, len) = parse(rest);
            rest = &rest[len..];
            record
        })
    })
}

fn parse_dirent(reply: &[u8]) -> (Entry, usize) {
    let (dirent, rest) = Dirent::read_from_prefix(reply).expect("a whole entry");
    let name = &rest[..dirent.namelen as usize];
    let len = (size_of::<Dirent>() + name.len()).next_multiple_of(RECORD_ALIGN);
    let name = String::from_utf8_lossy(name).into_owned();
    let kind = dirent.kind.try_into().expect("DT_*");
    (Entry { ino: dirent.ino, off: dirent.off, kind, name }, len)
}
