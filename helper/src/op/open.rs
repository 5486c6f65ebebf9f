//! Opening content. Regular files and directories only: nothing else of a share is ever opened.

use std::os::fd::OwnedFd;

use nix::libc;
use postern_ipc::attr::{Attr, OpenFlags};
use postern_ipc::few::Each;
use postern_ipc::id::Caller;
use postern_ipc::name::FileName;
use postern_ipc::op::{Answer, Open, OpenDir, OpenEach};
use postern_ipc::{Errno, Result};
use postern_policy::right::Right;
use postern_policy::sandbox::seccomp::{Call, bits};
use rustix::fs::OFlags;

use crate::op::keep;
use crate::pin::Pin;
use crate::serve::Serve;
use crate::share::{self, Share};

impl Serve for Open {
    const NEEDS: Right = Right::Read;
    const CALLS: &'static [&'static [Call]] = &[&[share::READ, share::BLOCKING, share::WAIT]];
    const WRITES: &'static [&'static [Call]] = &[&[share::WRITE], keep::CALLS];

    fn needs(&self) -> Right {
        if self.flags.intersects(OpenFlags::WRITE | OpenFlags::TRUNC) { Right::Write } else { Right::Read }
    }

    fn serve(self, [node]: [&Pin; 1], _: &[u8], share: &Share, _: Caller) -> Answer<Self, OwnedFd> {
        Ok(((), [file(node, self.flags, share)?], vec![]))
    }
}

impl Serve for OpenDir {
    const NEEDS: Right = Right::Read;
    const GIVES_TO_READ: bool = true;
    const CALLS: &'static [&'static [Call]] = &[&[share::READ, share::BLOCKING, share::WAIT]];

    fn serve(self, [node]: [&Pin; 1], _: &[u8], share: &Share, _: Caller) -> Answer<Self, OwnedFd> {
        if !node.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        Ok(((), [share.open(node, OFlags::RDONLY | OFlags::DIRECTORY)?], vec![]))
    }
}

impl Serve for OpenEach {
    const NEEDS: Right = Right::Read;
    const GIVES_TO_READ: bool = true;
    const CALLS: &'static [&'static [Call]] = &[&[share::PIN_NAME, share::STAT, share::READ, share::BLOCKING]];

    fn count(&self) -> usize {
        self.names.iter().len()
    }

    fn serve(self, [dir]: [&Pin; 1], _: &[u8], share: &Share, _: Caller) -> Answer<Self, OwnedFd> {
        if share.model.is_mapped() {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut files = Each::new();
        let open = |name| named(dir, name, share).map(|(attr, file)| (files.push(file), attr).1).ok();
        let attrs = self.names.iter().map(open).collect();
        Ok((attrs, files, vec![]))
    }
}

/// Opens a regular file or directory by its name for reading, if that need not wait; tells what it was before. What is
/// mounted there waits for whoever serves it.
fn named(dir: &Pin, name: &FileName, share: &Share) -> Result<(Attr, OwnedFd)> {
    let node = Pin::of_name(dir, name, share)?;
    if !node.is_beside(dir) {
        return Err(Errno::EXDEV);
    }
    if !node.is_dir() {
        share.require_file(&node)?;
    }
    Ok((share.attr_at(&node, dir, name)?, share.open_at_once(&node, OFlags::RDONLY)?))
}

/// Opens a regular file. Truncating is a step of its own, so that set-id bits are judged by who asked.
pub(crate) fn file(node: &Pin, flags: OpenFlags, share: &Share) -> Result<OwnedFd> {
    share.require_file(node)?;
    let file = share.open(node, how(flags)?)?;
    if flags.contains(OpenFlags::WRITE) {
        keep::disarm(node, &file, share)?;
    }
    if flags.contains(OpenFlags::TRUNC) {
        keep::truncate(node, flags, &file, share)?;
    }
    Ok(file)
}

/// As open(2) takes it; O_CREAT, O_EXCL and O_TRUNC are their users' business. EINVAL for neither reading nor writing.
pub(crate) fn how(flags: OpenFlags) -> Result<OFlags> {
    let access = match (flags.contains(OpenFlags::READ), flags.contains(OpenFlags::WRITE)) {
        (true, true) => libc::O_RDWR,
        (true, false) => libc::O_RDONLY,
        (false, true) => libc::O_WRONLY,
        (false, false) => return Err(Errno::EINVAL),
    };
    let others = [
        (OpenFlags::APPEND, libc::O_APPEND),
        (OpenFlags::DIRECT, libc::O_DIRECT),
        (OpenFlags::SYNC, libc::O_SYNC),
        (OpenFlags::DSYNC, libc::O_DSYNC),
        (OpenFlags::NOATIME, libc::O_NOATIME),
    ];
    let set = others.iter().filter(|(flag, _)| flags.contains(*flag));
    Ok(OFlags::from_bits_retain(bits(set.fold(access, |all, (_, bit)| all | bit))))
}

#[cfg(test)]
mod tests {
    use super::*;

    // open(2): "one of the following access modes: O_RDONLY, O_WRONLY, or O_RDWR"
    #[test]
    fn a_file_is_opened_for_reading_or_writing_or_both() {
        assert_eq!(how(OpenFlags::empty()), Err(Errno::EINVAL));
        assert_eq!(how(OpenFlags::READ), Ok(OFlags::RDONLY));
        assert_eq!(how(OpenFlags::WRITE | OpenFlags::APPEND), Ok(OFlags::WRONLY | OFlags::APPEND));
        let both = how(OpenFlags::all()).unwrap();
        assert!(both.contains(OFlags::RDWR | OFlags::NOATIME) && !both.intersects(OFlags::CREATE | OFlags::TRUNC));
    }
}
