//! Ids as the guest knows them. The host's ids exist in `policy` only and cannot travel.

use serde::{Deserialize, Serialize};

/// A user id of the guest. Untranslated it is what the share's map takes as its inner side.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct GuestUid(pub u32);

/// A group id of the guest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct GuestGid(pub u32);

/// On whose behalf an operation acts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Caller {
    /// Root of the share's ids: for operations that carry no identity, because the guest's kernel has judged them.
    Root,
    /// A user of the guest, for what belongs to its creator. Permission was judged by the guest's kernel
    /// (`default_permissions`), so the helper raises its override again: identity here decides who owns the new
    /// file, not who may make it.
    User {
        /// Becomes the file system uid. setfsuid(2)
        uid: GuestUid,
        /// Becomes the file system gid. setfsgid(2)
        gid: GuestGid,
        /// The one supplementary group that matters, when the guest sends it (FUSE_CREATE_SUPP_GROUP).
        group: Option<GuestGid>,
    },
    /// A user nobody has judged: all of the operation is done as him and by no right of another, as if he were a
    /// process of the host. Root is root.
    Alone {
        /// Becomes the file system uid.
        uid: GuestUid,
        /// Becomes the file system gid, and is the only group he is of.
        gid: GuestGid,
    },
}

impl std::fmt::Display for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Root => f.write_str("root"),
            Self::Alone { uid, gid } => write!(f, "uid={} gid={} alone", uid.0, gid.0),
            Self::User { uid, gid, group: None } => write!(f, "uid={} gid={}", uid.0, gid.0),
            Self::User { uid, gid, group: Some(group) } => write!(f, "uid={} gid={} group={}", uid.0, gid.0, group.0),
        }
    }
}
