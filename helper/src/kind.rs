//! Users and groups: what is alike of both, by which name.

use std::fmt;

/// Users or groups: each has its files and its tool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    User,
    Group,
}

impl Kind {
    /// The ids that there are here.
    pub(crate) fn here(self) -> &'static str {
        match self {
            Self::User => "/proc/self/uid_map",
            Self::Group => "/proc/self/gid_map",
        }
    }

    /// Where subordinate ones are given.
    pub(crate) fn grants(self) -> &'static str {
        match self {
            Self::User => "/etc/subuid",
            Self::Group => "/etc/subgid",
        }
    }

    /// The option of usermod(8) that gives some.
    pub(crate) fn gives(self) -> &'static str {
        match self {
            Self::User => "--add-subuids",
            Self::Group => "--add-subgids",
        }
    }

    /// The option that makes ids others.
    pub(crate) fn translates(self) -> &'static str {
        match self {
            Self::User => "--translate-uid",
            Self::Group => "--translate-gid",
        }
    }

    /// The program that maps them.
    pub(crate) fn tool(self) -> &'static str {
        match self {
            Self::User => "newuidmap",
            Self::Group => "newgidmap",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User => "user",
            Self::Group => "group",
        })
    }
}
