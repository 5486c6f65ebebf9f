//! The rules of a host: who may share which directory with which ids, when the helper that does it is not his.
//! postern-policy(5)
//!
//! The first rule that is about a caller and his directory decides. Where none is, he has what newuidmap(1) and
//! newgidmap(1) would give him. Names are looked up when a rule is judged; one that cannot be looked up just now
//! refuses, because the rule might have.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::idmap::{Extent, IdMap, IdMaps};

mod file;

pub use file::{PATH, read};

/// Shares that one user may have at once, unless the policy says how many.
const SHARES: u16 = 32;

/// All of the file.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Policy {
    /// Shares that one user may have at once.
    pub shares_per_user: u16,
    /// In the order in which they are judged.
    #[serde(rename = "rule")]
    rules: Vec<Rule>,
}

impl Default for Policy {
    fn default() -> Self {
        Self { shares_per_user: SHARES, rules: Vec::new() }
    }
}

/// One of them. What it does not say it is not particular about.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(try_from = "Text")]
struct Rule {
    users: Option<Vec<Who>>,
    groups: Option<Vec<Who>>,
    below: Option<Vec<PathBuf>>,
    share: Access,
    ids: Ids,
}

/// A rule as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Text {
    users: Option<Vec<Who>>,
    groups: Option<Vec<Who>>,
    below: Option<Vec<PathBuf>>,
    #[serde(default)]
    share: Access,
    ids: Option<Whose>,
    uid_map: Option<Vec<Extent>>,
    gid_map: Option<Vec<Extent>>,
}

/// A user or a group.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(untagged)]
enum Who {
    Id(u32),
    Name(String),
}

/// What a rule lets be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Access {
    No,
    ReadOnly,
    #[default]
    ReadWrite,
}

/// Of whose ids the guest's are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Whose {
    Own,
    Subordinate,
}

/// Which ids of the host a guest has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ids {
    /// Guest root is the caller; there are no others.
    Own,
    /// Guest root is the caller, the others are his subordinate ids.
    Subordinate,
    /// Those of the rule.
    Given(IdMaps),
}

/// Who asks for a share, as the kernel knows him.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caller {
    /// His user id.
    pub uid: u32,
    /// His group.
    pub gid: u32,
    /// His other groups.
    pub groups: Vec<u32>,
}

/// What he is given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grant {
    /// Whatever he has asked for, nothing may be changed.
    pub readonly: bool,
    /// With these ids.
    pub ids: Ids,
    /// The rule that says so, from 1 on; none by default.
    pub rule: Option<usize>,
}

/// Why he is given nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal(String);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refusal {}

/// What is known of names: the account database.
pub trait Names {
    /// The id of a user's name, if there is such a user.
    ///
    /// # Errors
    /// If that cannot be said.
    fn user(&self, name: &str) -> Result<Option<u32>, Refusal>;

    /// The same of a group's.
    ///
    /// # Errors
    /// If that cannot be said.
    fn group(&self, name: &str) -> Result<Option<u32>, Refusal>;
}

/// That of the host. nsswitch.conf(5)
#[derive(Clone, Copy, Debug)]
pub struct Host;

impl Names for Host {
    fn user(&self, name: &str) -> Result<Option<u32>, Refusal> {
        let found = nix::unistd::User::from_name(name).map_err(|errno| unknown("user", name, errno))?;
        Ok(found.map(|user| user.uid.as_raw()))
    }

    fn group(&self, name: &str) -> Result<Option<u32>, Refusal> {
        let found = nix::unistd::Group::from_name(name).map_err(|errno| unknown("group", name, errno))?;
        Ok(found.map(|group| group.gid.as_raw()))
    }
}

fn unknown(kind: &str, name: &str, errno: nix::errno::Errno) -> Refusal {
    Refusal(format!("the policy's {kind} {name:?} cannot be looked up: {}", postern_ipc::Errno::from(errno)))
}

impl Policy {
    /// Reads it.
    ///
    /// # Errors
    /// Says in one line what is wrong, and where.
    pub fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.lines().count().max(1).saturating_add(usize::from(before.ends_with('\n')));
            format!("line {line}: {}", error.message().replace('\n', " "))
        })
    }

    /// What `caller` is given who asks for the directory that is at `dir`.
    ///
    /// # Errors
    /// Says why that is nothing.
    pub fn judge(&self, caller: &Caller, dir: &Path, names: &impl Names) -> Result<Grant, Refusal> {
        for (rule, number) in self.rules.iter().zip(1..) {
            if !rule.is_about(caller, dir, names)? {
                continue;
            }
            let readonly = match rule.share {
                Access::No => return Err(Refusal(format!("rule {number} of {PATH} says no"))),
                Access::ReadOnly => true,
                Access::ReadWrite => false,
            };
            return Ok(Grant { readonly, ids: rule.ids.clone(), rule: Some(number) });
        }
        Ok(Grant { readonly: false, ids: Ids::Subordinate, rule: None })
    }
}

impl Rule {
    fn is_about(&self, caller: &Caller, dir: &Path, names: &impl Names) -> Result<bool, Refusal> {
        if self.below.as_ref().is_some_and(|below| !below.iter().any(|place| dir.starts_with(place))) {
            return Ok(false);
        }
        if self.users.is_none() && self.groups.is_none() {
            return Ok(true);
        }
        for who in self.users.iter().flatten() {
            if who.id(|name| names.user(name))? == Some(caller.uid) {
                return Ok(true);
            }
        }
        for who in self.groups.iter().flatten() {
            let id = who.id(|name| names.group(name))?;
            if id.is_some_and(|id| id == caller.gid || caller.groups.contains(&id)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Who {
    fn id(&self, find: impl FnOnce(&str) -> Result<Option<u32>, Refusal>) -> Result<Option<u32>, Refusal> {
        match self {
            Self::Id(id) => Ok(Some(*id)),
            Self::Name(name) => find(name),
        }
    }
}

impl TryFrom<Text> for Rule {
    type Error = String;

    fn try_from(text: Text) -> Result<Self, String> {
        let Text { users, groups, below, share, ids, uid_map, gid_map } = text;
        let empty = [("users", users.as_ref().map(Vec::is_empty)), ("groups", groups.as_ref().map(Vec::is_empty))];
        let below_is_empty = below.as_ref().map(Vec::is_empty);
        if let Some((key, _)) = empty.iter().chain([&("below", below_is_empty)]).find(|(_, empty)| *empty == Some(true))
        {
            return Err(format!("{key} is empty: leave it out for all"));
        }
        if let Some(place) = below.iter().flatten().find(|place| !is_plain(place)) {
            return Err(format!("{place:?} is not an absolute path without . and .."));
        }
        let ids = match (ids, uid_map, gid_map) {
            (None | Some(Whose::Subordinate), None, None) => Ids::Subordinate,
            (Some(Whose::Own), None, None) => Ids::Own,
            (None, Some(uids), Some(gids)) => Ids::Given(IdMaps { uids: map(uids)?, gids: map(gids)? }),
            (None, _, _) => return Err("uid-map and gid-map come together".into()),
            (Some(_), _, _) => return Err("ids, or uid-map and gid-map, not both".into()),
        };
        Ok(Self { users, groups, below, share, ids })
    }
}

/// As the kernel would tell it.
fn is_plain(place: &Path) -> bool {
    let whole: PathBuf = place.components().collect();
    let up = |part| matches!(part, std::path::Component::ParentDir);
    place.is_absolute() && !place.components().any(up) && whole.as_os_str() == place.as_os_str()
}

fn map(extents: Vec<Extent>) -> Result<IdMap, String> {
    let map = IdMap::new(extents).map_err(|why| why.to_string())?;
    if map.outward(0).is_none() {
        return Err("guest root is not mapped: one range must have the INSIDE 0".into());
    }
    Ok(map)
}

#[cfg(test)]
mod tests;
