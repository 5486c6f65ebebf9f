//! Extended attributes.

use postern_server::fuse::abi::{opcode as op, *};
use zerocopy::IntoBytes;

use super::*;

impl Process {
    /// SETXATTR.
    pub fn setxattr(&self, target: impl Target, name: &str, value: &[u8], flags: i32) -> Result<()> {
        self.setxattr_with(target, name, value, flags, SetxattrFlags::empty())
    }

    /// SETXATTR with flags beside those of setxattr(2).
    pub fn setxattr_with(
        &self,
        target: impl Target,
        name: &str,
        value: &[u8],
        flags: i32,
        setxattr_flags: SetxattrFlags,
    ) -> Result<()> {
        let size = value.len().try_into().expect("small");
        let arg = SetxattrIn { size, flags: flags as u32, setxattr_flags, padding: 0 };
        let extended = self.granted().contains(InitFlags::SETXATTR_EXT);
        let len = if extended { size_of::<SetxattrIn>() } else { COMPAT_SETXATTR_IN_SIZE };
        let request = Request::new(op::SETXATTR, target.node(self)?).bytes(&arg.as_bytes()[..len]);
        self.tell(&request.name(name.as_bytes()).bytes(value))
    }

    /// GETXATTR into a buffer of 64 KiB.
    pub fn getxattr(&self, target: impl Target, name: &str) -> Result<Vec<u8>> {
        self.getxattr_into(target, name, 65536)
    }

    /// GETXATTR into a buffer of `size` bytes.
    pub fn getxattr_into(&self, target: impl Target, name: &str, size: u32) -> Result<Vec<u8>> {
        let arg = GetxattrIn { size, padding: 0 };
        let request = Request::new(op::GETXATTR, target.node(self)?).arg(&arg).name(name.as_bytes());
        self.raw(&request.room_bytes(size as usize))
    }

    /// GETXATTR that asks for the size only.
    pub fn getxattr_size(&self, target: impl Target, name: &str) -> Result<u32> {
        let request = Request::new(op::GETXATTR, target.node(self)?).arg(&GetxattrIn::default());
        Ok(self.ask::<GetxattrOut>(request.name(name.as_bytes()))?.size)
    }

    /// LISTXATTR into a buffer of 64 KiB, sorted.
    pub fn listxattr(&self, target: impl Target) -> Result<Vec<String>> {
        let list = self.listxattr_into(target, 65536)?;
        let names = list.split_terminator('\0').map(String::from);
        let mut names: Vec<_> = names.collect();
        names.sort();
        Ok(names)
    }

    /// LISTXATTR into a buffer of `size` bytes.
    pub fn listxattr_into(&self, target: impl Target, size: u32) -> Result<String> {
        let arg = GetxattrIn { size, padding: 0 };
        let request = Request::new(op::LISTXATTR, target.node(self)?).arg(&arg);
        let list = self.raw(&request.room_bytes(size as usize))?;
        Ok(String::from_utf8(list).expect("UTF-8"))
    }

    /// LISTXATTR that asks for the size only.
    pub fn listxattr_size(&self, target: impl Target) -> Result<u32> {
        let request = Request::new(op::LISTXATTR, target.node(self)?).arg(&GetxattrIn::default());
        Ok(self.ask::<GetxattrOut>(request)?.size)
    }

    /// REMOVEXATTR.
    pub fn removexattr(&self, target: impl Target, name: &str) -> Result<()> {
        self.tell(&Request::new(op::REMOVEXATTR, target.node(self)?).name(name.as_bytes()))
    }
}
