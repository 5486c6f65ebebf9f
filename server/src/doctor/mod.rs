//! `postern doctor`: can this host share directories, and if not, what would mend it.
//!
//! `checks` has a row for each thing that is looked at. Nothing is changed, but the process ends up in namespaces of
//! its own, because only trying tells whether it may have any.

mod checks;

use std::fmt::{self, Display};
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User};

use checks::CHECKS;

/// What is to be said of one thing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Finding {
    /// As it should be.
    Good(String),
    /// Sharing works without it, and better with it.
    Poor {
        /// What is not as it should be.
        what: String,
        /// What mends it.
        remedy: String,
    },
    /// Sharing does not work without it.
    Bad {
        /// What is not as it should be.
        what: String,
        /// What mends it.
        remedy: String,
    },
}

impl Finding {
    fn poor(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Poor { what: what.into(), remedy: remedy.into() }
    }

    fn bad(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Bad { what: what.into(), remedy: remedy.into() }
    }
}

impl Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Good(what) => f.write_str(what),
            Self::Poor { what, remedy } | Self::Bad { what, remedy } => write!(f, "{what}; {remedy}"),
        }
    }
}

/// Who asks, and about what.
#[derive(Debug)]
pub struct Patient {
    /// Where `/proc`, `/etc` and `/dev` are.
    root: PathBuf,
    uid: Uid,
    name: String,
    /// The directory to be shared, if one was named.
    dir: Option<PathBuf>,
}

impl Patient {
    /// This host and whoever runs this process.
    pub fn here(dir: Option<&Path>) -> Self {
        let uid = Uid::effective();
        let name = User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
        Self { root: "/".into(), uid, name, dir: dir.map(Path::to_path_buf) }
    }

    /// The text of a file of the system, without the line's end.
    fn text(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.root.join(path)).ok().map(|text| text.trim_end().to_owned())
    }
}

/// Everything that was looked at: its name and what is to be said of it.
pub fn examine(patient: &Patient) -> Vec<(&'static str, Finding)> {
    CHECKS.iter().filter_map(|(name, check)| check(patient).map(|finding| (*name, finding))).collect()
}

/// The findings for people, one line each, and whether sharing works.
pub fn report(findings: &[(&str, Finding)]) -> (String, bool) {
    let line = |(name, finding): &(&str, Finding)| {
        let mark = match finding {
            Finding::Good(_) => "good",
            Finding::Poor { .. } => "poor",
            Finding::Bad { .. } => "BAD ",
        };
        format!("{mark}  {name}: {finding}\n")
    };
    let works = !findings.iter().any(|(_, finding)| matches!(finding, Finding::Bad { .. }));
    (findings.iter().map(line).collect(), works)
}
