//! Attributes whose values name users and groups: POSIX ACLs, and file capabilities of a user namespace's root.
//!
//! The kernel translates their ids by the share's map when they are set and got; here the share's own translation is
//! done. What has another form than the kernel's is refused: some file systems would take it as it is.

use std::borrow::Cow;

use postern_ipc::id::{GuestGid, GuestUid};
use postern_ipc::name::XattrName;
use postern_ipc::{Errno, Result};
use postern_policy::translate::Translation;

/// linux/posix_acl_xattr.h: POSIX_ACL_XATTR_VERSION
const ACL_VERSION: [u8; 4] = 2_u32.to_le_bytes();
/// linux/posix_acl.h: ACL_USER, ACL_GROUP; the entries of other tags name nobody.
const ACL_USER: u16 = 0x02;
const ACL_GROUP: u16 = 0x08;
/// linux/capability.h: VFS_CAP_REVISION_3, in the highest byte; those before it mean root of whoever sets them.
const CAP_REVISION_3: u8 = 3;
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
            Self::Outward(translation) => translation.uid(GuestUid(id)).map(|uid| uid.0),
            Self::Inward(translation) => translation.shown().uids.of(id).ok_or(Errno::EPERM),
        }
    }

    fn group(self, id: u32) -> Result<u32> {
        match self {
            Self::Outward(translation) => translation.gid(GuestGid(id)).map(|gid| gid.0),
            Self::Inward(translation) => translation.shown().gids.of(id).ok_or(Errno::EPERM),
        }
    }
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
pub(crate) fn inward(name: &XattrName, value: &mut [u8], translation: &Translation) -> Result<()> {
    if translation.is_none() || value.is_empty() {
        return Ok(());
    }
    translated(name, value, Way::Inward(translation))
}

fn translated(name: &XattrName, value: &mut [u8], way: Way<'_>) -> Result<()> {
    match name.as_bytes() {
        b"system.posix_acl_access" | b"system.posix_acl_default" => acl(value, way),
        b"security.capability" => capability(value, way),
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
fn capability(value: &mut [u8], way: Way<'_>) -> Result<()> {
    match value {
        [_, _, _, CAP_REVISION_3, sets @ ..] => {
            let (sets, root) = sets.split_last_chunk_mut::<4>().ok_or(Errno::EINVAL)?;
            if sets.len() != 16 {
                return Err(Errno::EINVAL);
            }
            *root = way.user(u32::from_le_bytes(*root))?.to_le_bytes();
            Ok(())
        }
        [_, _, _, revision, ..] if *revision < CAP_REVISION_3 => way.user(ROOT).map(drop),
        _ => Err(Errno::EINVAL),
    }
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
