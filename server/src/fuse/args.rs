//! Taking a request's arguments apart: each piece is checked when it is taken.

use std::ffi::CStr;

use postern_ipc::id::{Caller, GuestGid, GuestUid};
use postern_ipc::name::FileName;
use postern_ipc::{Errno, Result};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::abi::{EXT_GROUPS, ExtHeader, InHeader, MAX_SECCTX, RECORD_ALIGN, Secctx, SuppGroups};
use crate::fs::{Fh, Handle, NodeId, Object};
use crate::vhost::{Place, Request};

/// What a security module of the guest wants a new file to be labelled with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Label<'a> {
    /// The attribute, such as security.selinux, as it came.
    pub name: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
}

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

    /// The last string as one component of a path: nothing follows it but a label, if there can be one.
    ///
    /// # Errors
    /// As [`FileName::new`], and EINVAL.
    pub(super) fn last_name(&mut self, labelled: bool) -> Result<FileName> {
        let name = self.name()?;
        if self.args.is_empty() || labelled { Ok(name) } else { Err(Errno::EINVAL) }
    }

    /// A handle of the request's node.
    pub(super) fn handle(&self, fh: u64, object: Object) -> Handle {
        Handle { node: self.node(), fh: Fh(fh), object }
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

    /// The security label a new file is to have. Guests before Linux 6.3 put it behind the name, as an argument.
    ///
    /// # Errors
    /// EINVAL for extensions that are none.
    pub(super) fn label(&self) -> Result<Option<Label<'a>>> {
        label(if self.extensions.is_empty() { self.args } else { self.extensions })
    }
}

/// The first group of a groups extension; Linux sends none or one.
fn group(extensions: &[u8]) -> Result<Option<GuestGid>> {
    let Some(content) = find(extensions, |kind| kind == EXT_GROUPS)? else { return Ok(None) };
    let (groups, list) = SuppGroups::read_from_prefix(content).map_err(|_| Errno::EINVAL)?;
    let count = usize::try_from(groups.nr_groups).map_err(|_| Errno::EINVAL)?;
    let size = count.checked_mul(size_of::<u32>()).ok_or(Errno::EINVAL)?;
    let first = list.get(..size).ok_or(Errno::EINVAL)?.first_chunk();
    Ok(first.map(|gid| GuestGid(u32::from_ne_bytes(*gid))))
}

/// The first label of a security context extension, whose kind is the number of labels; Linux sends none or one.
fn label(extensions: &[u8]) -> Result<Option<Label<'_>>> {
    let Some(content) = find(extensions, |kind| (1..=MAX_SECCTX).contains(&kind))? else { return Ok(None) };
    let (head, rest) = Secctx::read_from_prefix(content).map_err(|_| Errno::EINVAL)?;
    let name = CStr::from_bytes_until_nul(rest).map_err(|_| Errno::EINVAL)?;
    let value = rest.get(name.count_bytes().saturating_add(1)..).unwrap_or_default();
    let size = usize::try_from(head.size).map_err(|_| Errno::EINVAL)?;
    Ok(Some(Label { name: name.to_bytes(), value: value.get(..size).ok_or(Errno::EINVAL)? }))
}

/// The content of the first extension of a kind; others are passed over.
fn find(mut extensions: &[u8], wanted: impl Fn(u32) -> bool) -> Result<Option<&[u8]>> {
    while !extensions.is_empty() {
        let (header, _) = ExtHeader::read_from_prefix(extensions).map_err(|_| Errno::EINVAL)?;
        let size = usize::try_from(header.size).map_err(|_| Errno::EINVAL)?;
        let (extension, rest) = extensions.split_at_checked(size).ok_or(Errno::EINVAL)?;
        let content = extension.get(size_of::<ExtHeader>()..).ok_or(Errno::EINVAL)?;
        if wanted(header.kind) {
            return Ok(Some(content));
        }
        extensions = rest;
    }
    Ok(None)
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
    fn a_label_is_found_with_its_name_and_exact_value() {
        let content = [&4_u32.to_ne_bytes()[..], &[0; 4], b"security.selinux\0", b"a:b\0", &[0; 3]].concat();
        let header = [u32::try_from(8 + content.len()).unwrap(), 1].map(u32::to_ne_bytes).concat();
        let bytes = [header, content].concat();
        assert_eq!(label(&bytes), Ok(Some(Label { name: b"security.selinux", value: b"a:b\0" })));
        assert_eq!(label(&extension(EXT_GROUPS, &[1, 7])), Ok(None));
        assert_eq!(label(&extension(1, &[99, 0, 0x0061])), Err(Errno::EINVAL));
    }

    #[test]
    fn a_malformed_extension_is_refused_and_never_loops() {
        assert_eq!(group(&extension(EXT_GROUPS, &[1])), Err(Errno::EINVAL));
        assert_eq!(group(&extension(EXT_GROUPS, &[2, 7])), Err(Errno::EINVAL));
        assert_eq!(group(&extension(EXT_GROUPS, &[u32::MAX, 7])), Err(Errno::EINVAL));
        assert_eq!(group(&[0; 8]), Err(Errno::EINVAL));
        assert_eq!(group(&[0xff; 16]), Err(Errno::EINVAL));
    }
}
