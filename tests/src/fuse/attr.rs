//! Attributes: GETATTR, STATX, SETATTR, ACCESS.

use postern_server::fuse::abi::{opcode as op, *};

use super::*;

impl Process {
    /// GETATTR.
    pub fn getattr(&self, target: impl Target) -> Result<Attr> {
        let node = target.node(self)?;
        Ok(self.ask::<AttrOut>(Request::new(op::GETATTR, node).arg(&GetattrIn::default()))?.attr)
    }

    /// GETATTR by an open file.
    pub fn fgetattr(&self, file: &File) -> Result<Attr> {
        let arg = GetattrIn { getattr_flags: GetattrFlags::FH, fh: file.fh, dummy: 0 };
        Ok(self.ask::<AttrOut>(Request::new(op::GETATTR, file.node).arg(&arg))?.attr)
    }

    /// STATX.
    pub fn statx(&self, target: impl Target, mask: u32) -> Result<Statx> {
        let arg = StatxIn { sx_mask: mask, ..Default::default() };
        Ok(self.ask::<StatxOut>(Request::new(op::STATX, target.node(self)?).arg(&arg))?.stat)
    }

    /// SETATTR.
    pub fn setattr(&self, target: impl Target, arg: &SetattrIn) -> Result<Attr> {
        Ok(self.ask::<AttrOut>(Request::new(op::SETATTR, target.node(self)?).arg(arg))?.attr)
    }

    /// SETATTR of the permission bits.
    pub fn chmod(&self, target: impl Target, mode: u32) -> Result<Attr> {
        self.setattr(target, &SetattrIn { valid: SetattrValid::MODE, mode, ..Default::default() })
    }

    /// SETATTR of owner and group; `None` keeps it.
    pub fn chown(&self, target: impl Target, uid: Option<u32>, gid: Option<u32>) -> Result<Attr> {
        let valid = uid.map_or(SetattrValid::empty(), |_| SetattrValid::UID)
            | gid.map_or(SetattrValid::empty(), |_| SetattrValid::GID);
        let (uid, gid) = (uid.unwrap_or(0), gid.unwrap_or(0));
        self.setattr(target, &SetattrIn { valid, uid, gid, ..Default::default() })
    }

    /// SETATTR of the size.
    pub fn truncate(&self, target: impl Target, size: u64) -> Result<Attr> {
        self.setattr(target, &SetattrIn { valid: SetattrValid::SIZE, size, ..Default::default() })
    }

    /// SETATTR of the size by an open file.
    pub fn ftruncate(&self, file: &File, size: u64) -> Result<Attr> {
        let valid = SetattrValid::SIZE | SetattrValid::FH;
        self.setattr(file.node, &SetattrIn { valid, size, fh: file.fh, ..Default::default() })
    }

    /// ACCESS.
    pub fn access(&self, target: impl Target, mask: i32) -> Result<()> {
        let arg = AccessIn { mask: mask as u32, padding: 0 };
        self.tell(&Request::new(op::ACCESS, target.node(self)?).arg(&arg))
    }
}
