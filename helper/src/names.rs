//! What the guest calls an extended attribute and what the host does: by the share's map (`--xattrmap`), then by its
//! security model. No name reaches the host's file but through [`Names::host`], and none the guest but through
//! [`Names::shown`].

use postern_ipc::id::{Caller, GuestUid};
use postern_ipc::model::{KnownTo, Model};
use postern_ipc::name::XattrName;
use postern_ipc::{Errno, Result};
use postern_policy::xattrmap::XattrMap;

use crate::model;

/// File capabilities. capabilities(7)
pub(crate) const CAPABILITY: &[u8] = b"security.capability";
/// POSIX ACLs. acl(5)
pub(crate) const ACLS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];
const USERS: &[u8] = b"user.";

/// Attributes that a share has on the host: by the whole name, or by what it begins with. Whether one may be changed is
/// the kernel's to say. xattr(7)
const NAMES: [(&[u8], bool); 5] =
    [(USERS, false), (b"security.", false), (b"trusted.", false), (ACLS[0], true), (ACLS[1], true)];

/// What is to be done with an attribute.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Use {
    Read,
    Change,
}

/// The names of one share's attributes.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    map: Option<XattrMap>,
    model: Model,
    /// File capabilities, where the host's kernel does not know them for what they are.
    pub(crate) kept_capability: Option<XattrName>,
}

impl Names {
    /// Of a share with this map, if it has one, and model.
    pub(crate) fn new(map: Option<XattrMap>, model: Model) -> Self {
        let mut names = Self { map, model, kept_capability: None };
        names.kept_capability = names.hosts(CAPABILITY).ok().filter(|host| host.as_bytes() != CAPABILITY);
        names
    }

    /// The host's name of an attribute. ENODATA to who reads what is not the guest's to have, EPERM to who would change
    /// it; EOPNOTSUPP for a name that is none of a share's, as for one that the file system does not know.
    ///
    /// What is kept for a guest's kernel under another name is not there for a caller whom none has judged: the host's
    /// kernel sees no more in it than a `user.*` one.
    pub(crate) fn host(&self, name: &XattrName, caller: Caller, used: Use) -> Result<XattrName> {
        let refused = if used == Use::Read { Errno::ENODATA } else { Errno::EPERM };
        let mapped = self.mapped(name)?.ok_or(refused)?;
        require(&mapped)?;
        let kept = *name != mapped && !is_users(name);
        if model::hidden(self.model, &mapped) || kept && alone(caller) {
            return Err(refused);
        }
        model::xattr_name(self.model, &mapped)
    }

    /// The host's names as the guest is to see them, each ended by a NUL.
    pub(crate) fn shown(&self, names: &[u8], caller: Caller) -> Vec<u8> {
        let names = if self.model.is_mapped() { model::shown_xattrs(self.model, names) } else { names.to_owned() };
        let Some(map) = &self.map else { return names };
        let theirs = |name: &[u8]| {
            let shown = map.inward(name)?;
            let kept = shown.as_bytes() != name && !is_users(&shown);
            (!kept || !alone(caller)).then_some(shown)
        };
        let names = names.split(|&byte| byte == 0).filter(|name| !name.is_empty());
        names.filter_map(theirs).flat_map(|name| [name.as_bytes(), &[0]].concat()).collect()
    }

    /// The guest sees all names as the host has them.
    pub(crate) fn are_the_hosts(&self) -> bool {
        self.map.is_none() && !self.model.is_mapped()
    }

    /// Who knows the guest's ACLs.
    pub(crate) fn acls(&self) -> KnownTo {
        match ACLS.map(|name| self.known(name)) {
            [KnownTo::Nobody, _] | [_, KnownTo::Nobody] => KnownTo::Nobody,
            [KnownTo::Host, KnownTo::Host] => KnownTo::Host,
            _ => KnownTo::Guest,
        }
    }

    /// Who knows its file capabilities.
    pub(crate) fn capabilities(&self) -> KnownTo {
        self.known(CAPABILITY)
    }

    fn known(&self, name: &[u8]) -> KnownTo {
        match self.hosts(name) {
            Ok(host) if host.as_bytes() == name => KnownTo::Host,
            Ok(_) => KnownTo::Guest,
            Err(_) => KnownTo::Nobody,
        }
    }

    /// The host's name of one that means something to a kernel.
    fn hosts(&self, name: &[u8]) -> Result<XattrName> {
        self.host(&XattrName::new(name)?, Caller::Root, Use::Change)
    }

    fn mapped(&self, name: &XattrName) -> Result<Option<XattrName>> {
        self.map.as_ref().map_or(Ok(Some(*name)), |map| map.outward(name))
    }
}

/// EOPNOTSUPP for a name that is none of a share's on the host.
fn require(name: &XattrName) -> Result<()> {
    let name = name.as_bytes();
    let fits = |(known, whole): &(&[u8], bool)| if *whole { name == *known } else { name.starts_with(known) };
    if NAMES.iter().any(fits) { Ok(()) } else { Err(Errno::EOPNOTSUPP) }
}

/// Of the class that anybody may set on his own files.
pub(crate) fn is_users(name: &XattrName) -> bool {
    name.as_bytes().starts_with(USERS)
}

/// No guest's kernel has judged what this caller may do, who is not root.
fn alone(caller: Caller) -> bool {
    matches!(caller, Caller::Alone { uid, .. } if uid != GuestUid(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use postern_ipc::id::GuestGid;

    const ALONE: Caller = Caller::Alone { uid: GuestUid(1000), gid: GuestGid(1000) };

    fn names(map: &str, model: Model) -> Names {
        Names::new((!map.is_empty()).then(|| map.parse().unwrap()), model)
    }

    fn name(text: &str) -> XattrName {
        XattrName::new(text.as_bytes()).unwrap()
    }

    fn host(names: &Names, text: &str, used: Use) -> Result<String> {
        let host = names.host(&name(text), Caller::Root, used)?;
        Ok(String::from_utf8(host.as_bytes().to_vec()).unwrap())
    }

    #[test]
    fn a_share_has_attributes_of_four_kinds_only() {
        let ask = |name: &str| require(&self::name(name));
        for name in ["user.a", "security.selinux", "trusted.overlay.opaque", "system.posix_acl_default"] {
            assert_eq!(ask(name), Ok(()), "{name}");
        }
        for name in ["system.nfs4_acl", "btrfs.compression", "ceph.dir.layout", "a", "system.posix_acl_accessory"] {
            assert_eq!(ask(name), Err(Errno::EOPNOTSUPP), "{name}");
        }
    }

    // virtiofsd(1): "denied using EPERM"; a name that is not there has no value
    #[test]
    fn what_is_not_the_guests_is_not_there_and_cannot_be_made() {
        let names = names("guest", Model::Passthrough);
        for text in ["user.postern.trusted.overlay.opaque", "user.postern.", "user.postern.a"] {
            assert_eq!(host(&names, text, Use::Read), Err(Errno::ENODATA), "{text}");
            assert_eq!(host(&names, text, Use::Change), Err(Errno::EPERM), "{text}");
        }
        assert_eq!(host(&names, "trusted.a", Use::Change).as_deref(), Ok("user.postern.trusted.a"));
    }

    #[test]
    fn a_map_leads_to_no_name_that_is_the_models_or_no_shares() {
        let to_model = ":prefix:client:virtfs.:user.: :ok:all:::";
        assert_eq!(host(&names(to_model, Model::MappedXattr), "virtfs.uid", Use::Change), Err(Errno::EPERM));
        assert_eq!(host(&names(to_model, Model::MappedXattr), "virtfs.uid", Use::Read), Err(Errno::ENODATA));
        let to_other = ":prefix:client::system.: :ok:server:::";
        assert_eq!(host(&names(to_other, Model::Passthrough), "nfs4_acl", Use::Change), Err(Errno::EOPNOTSUPP));
    }

    #[test]
    fn the_models_names_are_hidden_and_the_maps_shown_by_the_guests() {
        let names = names("guest", Model::MappedXattr);
        let there = b"user.virtfs.uid\0user.a\0user.postern.trusted.b\0security.selinux\0user.postern.user.c\0user.virtfs.system.posix_acl_access\0";
        let shown = names.shown(there, Caller::Root);
        assert_eq!(String::from_utf8(shown).unwrap(), "user.a\0trusted.b\0system.posix_acl_access\0");
    }

    // xattr(7): trusted attributes are for CAP_SYS_ADMIN, which the host's kernel does not ask for a user.* name
    #[test]
    fn what_is_kept_for_a_guests_kernel_is_not_for_whom_none_has_judged() {
        let names = names("guest", Model::Passthrough);
        assert_eq!(names.host(&name("trusted.a"), ALONE, Use::Read), Err(Errno::ENODATA));
        assert_eq!(names.host(&name("security.capability"), ALONE, Use::Change), Err(Errno::EPERM));
        assert_eq!(names.host(&name("user.a"), ALONE, Use::Change), Ok(name("user.a")));
        assert_eq!(names.shown(b"user.postern.security.a\0user.a\0", ALONE), b"user.a\0");
    }

    #[test]
    fn the_server_hears_who_knows_acls_and_capabilities() {
        let known = |map: &str, model| {
            let names = names(map, model);
            (names.acls(), names.capabilities(), names.kept_capability.is_some())
        };
        assert_eq!(known("", Model::Passthrough), (KnownTo::Host, KnownTo::Host, false));
        assert_eq!(known("", Model::MappedXattr), (KnownTo::Guest, KnownTo::Host, false));
        assert_eq!(known("", Model::MappedFile), (KnownTo::Nobody, KnownTo::Host, false));
        assert_eq!(known("guest", Model::Passthrough), (KnownTo::Host, KnownTo::Guest, true));
        assert_eq!(known(":map::user.x.:", Model::MappedFile), (KnownTo::Guest, KnownTo::Guest, true));
        let neither = ":bad:all:s:s: :ok:all:::";
        assert_eq!(known(neither, Model::Passthrough), (KnownTo::Nobody, KnownTo::Nobody, false));
    }
}
