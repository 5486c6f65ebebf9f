//! Attributes whose values name users and groups: POSIX ACLs, and file capabilities of a user namespace's root.
//!
//! The kernel translates their ids by the share's map when they are set and got; here the share's own translation is
//! done. What has another form than the kernel's is refused: some file systems would take it as it is.

use std::borrow::Cow;

use postern_ipc::id::{GuestGid, GuestUid};
use postern_ipc::name::XattrName;
use postern_ipc::{Errno, Result};
use postern_policy::translate::{KernelGid, KernelUid, ShareUid, Translation};

use crate::names::CAPABILITY;

/// linux/posix_acl_xattr.h: POSIX_ACL_XATTR_VERSION
const ACL_VERSION: [u8; 4] = 2_u32.to_le_bytes();
/// linux/posix_acl.h: ACL_USER, ACL_GROUP; the entries of other tags name nobody.
const ACL_USER: u16 = 0x02;
const ACL_GROUP: u16 = 0x08;
/// linux/capability.h: VFS_CAP_REVISION_3, in the highest byte; those before it mean root of whoever sets them.
const CAP_REVISION_3: u8 = 3;
const CAP_REVISION_2: u8 = 2;
/// Bytes of its sets.
const CAP_SETS: usize = 16;
/// Bytes of a whole value, and more than that.
const CAP_MAX: u32 = 64;
/// Shown where there is no id, as the kernel does. linux/uidgid.h: INVALID_UID
const NO_ID: u32 = u32::MAX;
const ROOT: u32 = 0;

/// Users or groups of the guest that become the share's, or the reverse.
#[derive(Clone, Copy)]
enum Way<'a> {
    Outward(&'a Translation),
    Inward(&'a Translation),
}

impl Way<'_> {
    fn user(self, id: u32) -> Result<u32> {
        match self {
            Self::Outward(translation) => translation.kernel_uid(GuestUid(id)).map(|uid| uid.0).map_err(unmapped),
            Self::Inward(translation) => Ok(translation.user(KernelUid(id)).unwrap_or(NO_ID)),
        }
    }

    fn group(self, id: u32) -> Result<u32> {
        match self {
            Self::Outward(translation) => translation.kernel_gid(GuestGid(id)).map(|gid| gid.0).map_err(unmapped),
            Self::Inward(translation) => Ok(translation.group(KernelGid(id)).unwrap_or(NO_ID)),
        }
    }

    /// In whose user namespace file capabilities count: of this root, or of whoever sets and gets them. In the initial
    /// namespace that is the share's root, and EOVERFLOW says as in others that it is none there. cap_inode_getsecurity
    fn root(self, root: Option<u32>) -> Result<Option<u32>> {
        match (self, root) {
            (Self::Outward(translation), None) => {
                self.user(ROOT)?;
                Ok(translation.map().and_then(|map| map.host_uid(ShareUid(ROOT))).map(|uid| uid.0))
            }
            (Self::Inward(translation), root) if let Some(map) = translation.map() => {
                match (map.uids.inward(root.unwrap_or(ROOT)), root) {
                    (Some(ROOT), _) | (None, None) => Ok(None),
                    (Some(_), _) => self.user(root.unwrap_or(ROOT)).map(Some),
                    (None, Some(_)) => Err(Errno::EOVERFLOW),
                }
            }
            (_, root) => root.map(|root| self.user(root)).transpose(),
        }
    }
}

/// As the kernel says of an id in a value.
fn unmapped(errno: Errno) -> Errno {
    if errno == Errno::EOVERFLOW { Errno::EINVAL } else { errno }
}

/// Most bytes of a value whose size is not the same for kernel and guest.
pub(crate) fn resized(name: &XattrName, translation: &Translation) -> Option<u32> {
    (translation.map().is_some() && name.as_bytes() == CAPABILITY).then_some(CAP_MAX)
}

/// A value that the guest sets, in the share's ids. EPERM if it names somebody whom the share forbids, EINVAL if it is
/// none of its kind.
pub(crate) fn outward<'a>(name: &XattrName, value: &'a [u8], translation: &Translation) -> Result<Cow<'a, [u8]>> {
    if translation.is_none() || value.is_empty() {
        return Ok(Cow::Borrowed(value));
    }
    let mut value = value.to_vec();
    translated(name, &mut value, Way::Outward(translation))?;
    Ok(Cow::Owned(value))
}

/// A value that the guest gets, as it is to see it. EINVAL as for [`outward`].
pub(crate) fn inward(name: &XattrName, value: &mut Vec<u8>, translation: &Translation) -> Result<()> {
    if translation.is_none() || value.is_empty() {
        return Ok(());
    }
    translated(name, value, Way::Inward(translation))
}

fn translated(name: &XattrName, value: &mut Vec<u8>, way: Way<'_>) -> Result<()> {
    match name.as_bytes() {
        b"system.posix_acl_access" | b"system.posix_acl_default" => acl(value, way),
        CAPABILITY => capability(value, way),
        _ => Ok(()),
    }
}

/// A version, then entries of tag, permissions and id. linux/posix_acl_xattr.h
fn acl(value: &mut [u8], way: Way<'_>) -> Result<()> {
    let (version, entries) = value.split_first_chunk_mut::<4>().ok_or(Errno::EINVAL)?;
    let (entries, []) = entries.as_chunks_mut::<8>() else { return Err(Errno::EINVAL) };
    if *version != ACL_VERSION {
        return Err(Errno::EINVAL);
    }
    for [t0, t1, _, _, id @ ..] in entries {
        let named = match u16::from_le_bytes([*t0, *t1]) {
            ACL_USER => way.user(u32::from_le_bytes(*id))?,
            ACL_GROUP => way.group(u32::from_le_bytes(*id))?,
            _ => continue,
        };
        *id = named.to_le_bytes();
    }
    Ok(())
}

/// Revision and flags, two sets of eight bytes, and from the third revision on the root of the user namespace in which
/// they count. linux/capability.h: struct vfs_ns_cap_data
fn capability(value: &mut Vec<u8>, way: Way<'_>) -> Result<()> {
    let root = match value[..] {
        [_, _, _, CAP_REVISION_3, ref sets @ ..] => match sets.split_last_chunk::<4>() {
            Some((sets, root)) if sets.len() == CAP_SETS => Some(u32::from_le_bytes(*root)),
            _ => return Err(Errno::EINVAL),
        },
        [_, _, _, revision, ..] if revision < CAP_REVISION_3 => None,
        _ => return Err(Errno::EINVAL),
    };
    let becomes = way.root(root)?;
    if root.is_none() && becomes.is_none() {
        return Ok(());
    }
    value.truncate(CAP_SETS.saturating_add(4));
    let [_, _, _, revision, sets @ ..] = &mut value[..] else { return Err(Errno::EINVAL) };
    if sets.len() != CAP_SETS {
        return Err(Errno::EINVAL);
    }
    *revision = if becomes.is_some() { CAP_REVISION_3 } else { CAP_REVISION_2 };
    value.extend(becomes.map(u32::to_le_bytes).into_iter().flatten());
    Ok(())
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "a panic is a failed test")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(name: &str) -> XattrName {
        XattrName::new(name.as_bytes()).unwrap()
    }

    fn translation(users: &[&str], groups: &[&str]) -> Translation {
        let rules = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
        Translation::new(&rules(users), &rules(groups)).unwrap()
    }

    fn acl_of(entries: &[(u16, u32)]) -> Vec<u8> {
        let entry = |&(tag, id): &(u16, u32)| [&tag.to_le_bytes()[..], &[6, 0], &id.to_le_bytes()].concat();
        [ACL_VERSION.to_vec(), entries.iter().flat_map(entry).collect()].concat()
    }

    #[test]
    fn the_ids_of_an_acl_are_translated_and_nothing_else_is() {
        let ids = translation(&["map:1000:5:10"], &["map:2000:7:1", "forbid-guest:3000:1"]);
        let (access, user) = (name("system.posix_acl_access"), name("user.a"));
        let guests = acl_of(&[(1, u32::MAX), (2, 1001), (2, 3000), (4, 1000), (8, 2000), (16, 1000), (32, u32::MAX)]);
        let shares = acl_of(&[(1, u32::MAX), (2, 6), (2, 3000), (4, 1000), (8, 7), (16, 1000), (32, u32::MAX)]);
        assert_eq!(outward(&access, &guests, &ids).unwrap().as_ref(), shares);
        let mut shown = shares.clone();
        inward(&access, &mut shown, &ids).unwrap();
        assert_eq!(shown, guests);
        assert_eq!(outward(&user, &guests, &ids).unwrap().as_ref(), guests);
        assert_eq!(outward(&access, &guests, &Translation::default()).unwrap().as_ref(), guests);
        assert_eq!(outward(&access, &acl_of(&[(8, 3000)]), &ids), Err(Errno::EPERM));
    }

    #[test]
    fn the_root_of_file_capabilities_is_translated() {
        let ids = translation(&["map:1000:5:10", "forbid-guest:3000:1"], &[]);
        let caps = |revision: u8, root: &[u8]| [&[1, 0, 0, revision][..], &[4; 16], root].concat();
        let root = |id: u32| caps(3, &id.to_le_bytes());
        let set = |value: &[u8]| outward(&name("security.capability"), value, &ids).map(Cow::into_owned);
        assert_eq!((set(&root(1001)), set(&root(3000))), (Ok(root(6)), Err(Errno::EPERM)));
        assert_eq!(set(&caps(2, b"")), Ok(caps(2, b"")));
        let rootless = translation(&["forbid-guest:0:1"], &[]);
        let mine = outward(&name("security.capability"), &caps(2, b""), &rootless).map(drop);
        assert_eq!(mine, Err(Errno::EPERM));
        for bad in [caps(3, b""), caps(3, &[0; 5]), caps(4, &[0; 4]), vec![1, 0, 0]] {
            assert_eq!(set(&bad), Err(Errno::EINVAL), "{bad:?}");
        }
    }

    proptest! {
        /// Whatever a guest sets, an ACL that gets through names nobody whom the share forbids.
        #[test]
        fn no_acl_names_the_forbidden(value in prop::collection::vec(any::<u8>(), 0..64), versioned: bool, size in 0..8_usize) {
            let ids = translation(&["forbid-guest:0:4294967295"], &["forbid-guest:0:4294967295"]);
            let mut value = value;
            if versioned {
                value.resize(4 + 8 * size, 2);
                value[..4].copy_from_slice(&ACL_VERSION);
            }
            if let Ok(set) = outward(&name("system.posix_acl_access"), &value, &ids) {
                let (entries, rest) = set.get(4..).unwrap_or_default().as_chunks::<8>();
                prop_assert!(rest.is_empty());
                for [t0, t1, _, _, id @ ..] in entries {
                    let names = matches!(u16::from_le_bytes([*t0, *t1]), ACL_USER | ACL_GROUP);
                    prop_assert!(!names || *id == [0xff; 4], "only what is no id gets through");
                }
            }
        }
    }
}
