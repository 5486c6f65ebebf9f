//! As whom a client acts.

use std::sync::Arc;

use postern_ipc::id::{GuestGid, GuestUid};
use postern_ipc::{Errno, Result};

use super::message::NONUNAME;
use crate::fs::Fs;

/// The user who owns nothing. Linux: overflowuid
const NOBODY: u32 = 65534;

/// A user whom clients may say they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct User {
    /// His id.
    pub uid: u32,
    /// The only group he is of.
    pub gid: u32,
}

impl User {
    /// A user of whom nothing is known but his id: his group is the one with the same number.
    fn of(uid: u32) -> Self {
        Self { uid, gid: uid }
    }
}

/// Who judges what the users of a client may do.
#[derive(Clone, Debug)]
pub enum Users {
    /// The client, a guest's kernel as a rule, has done so before it asks.
    Judged,
    /// The host's kernel: each acts alone.
    Alone {
        /// Those that clients may say they are; all if there are none.
        named: Arc<[User]>,
        /// Root may be one of all.
        root: bool,
    },
}

impl Users {
    /// The files of `fs` for whoever attaches, and his uid. A client that names nobody ([`NONUNAME`]), as Linux does
    /// when it mounts, is the user whose number is his name, else the first one named, else nobody.
    ///
    /// # Errors
    /// EPERM for who may not be, EMFILE for too many.
    pub(super) fn attach<F: Fs>(&self, fs: &Arc<F>, n_uname: u32, uname: &[u8]) -> Result<(Arc<F>, u32)> {
        let Self::Alone { named, root } = self else { return Ok((Arc::clone(fs), n_uname)) };
        let number =
            || std::str::from_utf8(uname).ok().and_then(|name| name.parse().ok()).filter(|&uid| uid != NONUNAME);
        let uid = match n_uname {
            NONUNAME => number().or(named.first().map(|user| user.uid)).unwrap_or(NOBODY),
            uid => uid,
        };
        let known = named.iter().find(|user| user.uid == uid).copied();
        let any = || (named.is_empty() && (uid != 0 || *root)).then(|| User::of(uid));
        let User { uid, gid } = known.or_else(any).ok_or(Errno::EPERM)?;
        Ok((fs.acting_as(GuestUid(uid), GuestGid(gid))?, uid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::synthetic::Synthetic;

    fn attach(users: &Users, n_uname: u32, uname: &[u8]) -> Result<u32> {
        users.attach(&Arc::new(Synthetic::default()), n_uname, uname).map(|(_, uid)| uid)
    }

    // diod protocol.md, attach: "n_uname ... P9_NONUNAME"
    #[test]
    fn who_names_nobody_is_who_his_name_says_or_nobody() {
        let all = Users::Alone { named: [].into(), root: false };
        assert_eq!(attach(&all, 1000, b"0"), Ok(1000));
        assert_eq!(attach(&all, NONUNAME, b"1000"), Ok(1000));
        assert_eq!(attach(&all, NONUNAME, b"nobody"), Ok(NOBODY));
        assert_eq!(attach(&all, NONUNAME, b"4294967295"), Ok(NOBODY));
        assert_eq!(attach(&all, NONUNAME, &[0xff]), Ok(NOBODY));
    }

    #[test]
    fn only_who_is_named_may_attach_where_somebody_is() {
        let some = Users::Alone { named: [User { uid: 7, gid: 8 }, User { uid: 0, gid: 0 }].into(), root: false };
        assert_eq!(attach(&some, 7, b""), Ok(7));
        assert_eq!(attach(&some, 0, b""), Ok(0));
        assert_eq!(attach(&some, 8, b""), Err(Errno::EPERM));
        assert_eq!(attach(&some, NONUNAME, b"8"), Err(Errno::EPERM));
        assert_eq!(attach(&some, NONUNAME, b"root"), Ok(7));
    }

    #[test]
    fn the_host_s_root_has_to_be_named() {
        let all = |root| Users::Alone { named: [].into(), root };
        assert_eq!(
            (attach(&all(false), 0, b""), attach(&all(false), NONUNAME, b"0")),
            (Err(Errno::EPERM), Err(Errno::EPERM))
        );
        assert_eq!(attach(&all(true), 0, b""), Ok(0));
    }
}
