//! Taking a request's arguments apart: each piece is checked when it is taken.

use std::ffi::CStr;

use postern_ipc::id::{Caller, GuestGid, GuestUid};
use postern_ipc::name::FileName;
use postern_ipc::{Errno, Result};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::abi::{EXT_GROUPS, ExtHeader, InHeader, RECORD_ALIGN, SuppGroups};
use crate::fs::{Fh, NodeId};
use crate::vhost::{Place, Request};

/// One request, decoded as far as its header.
pub(super) struct Call<'a> {
    /// Its header.
    pub header: InHeader,
    /// Where it is handled.
    pub place: Place,
    /// The chain: for the data of WRITE, and the room for the answer.
    pub request: &'a mut Request,
    args: &'a [u8],
    extensions: &'a [u8],
}

impl<'a> Call<'a> {
    /// `args` is what follows the header, extensions at its end.
    ///
    /// # Errors
    /// EINVAL if the extensions are longer than that.
    pub(super) fn new(header: InHeader, place: Place, request: &'a mut Request, args: &'a [u8]) -> Result<Self> {
        let extensions = usize::from(header.total_extlen).saturating_mul(RECORD_ALIGN);
        let end = args.len().checked_sub(extensions).ok_or(Errno::EINVAL)?;
        let (args, extensions) = args.split_at_checked(end).ok_or(Errno::EINVAL)?;
        Ok(Self { header, place, request, args, extensions })
    }

    /// The node the request is about.
    pub(super) fn node(&self) -> NodeId {
        NodeId(self.header.nodeid)
    }

    /// The next structure.
    ///
    /// # Errors
    /// EINVAL if there is less.
    pub(super) fn take<T: FromBytes + KnownLayout + Immutable>(&mut self) -> Result<T> {
        let (value, rest) = T::read_from_prefix(self.args).map_err(|_| Errno::EINVAL)?;
        self.args = rest;
        Ok(value)
    }

    /// The next string, without its NUL.
    ///
    /// # Errors
    /// EINVAL if no NUL ends it.
    pub(super) fn string(&mut self) -> Result<&'a [u8]> {
        let string = CStr::from_bytes_until_nul(self.args).map_err(|_| Errno::EINVAL)?;
        self.args = self.args.get(string.count_bytes().saturating_add(1)..).unwrap_or_default();
        Ok(string.to_bytes())
    }

    /// The next string as one component of a path.
    ///
    /// # Errors
    /// As [`FileName::new`].
    pub(super) fn name(&mut self) -> Result<FileName> {
        FileName::new(self.string()?)
    }

    /// The next `len` bytes.
    ///
    /// # Errors
    /// EINVAL if there are fewer.
    pub(super) fn bytes(&mut self, len: u32) -> Result<&'a [u8]> {
        let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
        let (bytes, rest) = self.args.split_at_checked(len).ok_or(Errno::EINVAL)?;
        self.args = rest;
        Ok(bytes)
    }

    /// Whom a new file belongs to: the caller, with the supplementary group the guest found to matter.
    ///
    /// # Errors
    /// EINVAL for extensions that are none.
    pub(super) fn caller(&self) -> Result<Caller> {
        let (uid, gid) = (GuestUid(self.header.uid), GuestGid(self.header.gid));
        Ok(Caller::User { uid, gid, group: group(self.extensions)? })
    }
}

/// The first group of a groups extension; Linux sends none or one. Other extensions are passed over.
fn group(mut extensions: &[u8]) -> Result<Option<GuestGid>> {
    while !extensions.is_empty() {
        let (header, _) = ExtHeader::read_from_prefix(extensions).map_err(|_| Errno::EINVAL)?;
        let size = usize::try_from(header.size).map_err(|_| Errno::EINVAL)?;
        let (extension, rest) = extensions.split_at_checked(size).ok_or(Errno::EINVAL)?;
        let content = extension.get(size_of::<ExtHeader>()..).ok_or(Errno::EINVAL)?;
        if header.kind == EXT_GROUPS {
            let (groups, list) = SuppGroups::read_from_prefix(content).map_err(|_| Errno::EINVAL)?;
            if groups.nr_groups == 0 {
                return Ok(None);
            }
            let (gid, _) = u32::read_from_prefix(list).map_err(|_| Errno::EINVAL)?;
            return Ok(Some(GuestGid(gid)));
        }
        extensions = rest;
    }
    Ok(None)
}

/// A handle as the guest sends it.
pub(super) fn fh(raw: u64) -> Fh {
    Fh(raw)
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use super::*;

    fn extension(kind: u32, words: &[u32]) -> Vec<u8> {
        let size = u32::try_from(8 + words.len() * 4).unwrap();
        [size, kind].iter().chain(words).flat_map(|word| word.to_ne_bytes()).collect()
    }

    #[test]
    fn the_one_group_is_found_behind_other_extensions() {
        let bytes = [extension(1, &[0, 0]), extension(EXT_GROUPS, &[1, 4711])].concat();
        assert_eq!(group(&bytes), Ok(Some(GuestGid(4711))));
        assert_eq!(group(&extension(EXT_GROUPS, &[0, 0])), Ok(None));
        assert_eq!(group(&[]), Ok(None));
    }

    #[test]
    fn a_malformed_extension_is_refused_and_never_loops() {
        assert_eq!(group(&extension(EXT_GROUPS, &[1])), Err(Errno::EINVAL));
        assert_eq!(group(&[0; 8]), Err(Errno::EINVAL));
        assert_eq!(group(&[0xff; 16]), Err(Errno::EINVAL));
    }
}
