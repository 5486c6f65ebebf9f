//! Capabilities that somebody wants a share's helper to have besides those it needs, or to do without. The grammar is
//! virtiofsd's: `+NAME` or `-NAME`, with colons between; of what is said twice the last counts.

use std::fmt;
use std::str::FromStr;

use caps::Capability;

use crate::sandbox::caps::Need;

/// What names of capabilities begin with, as the kernel has them; people leave it out. capabilities(7)
const PREFIX: &str = "CAP_";

/// What is to be changed, each capability once.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Modcaps(Vec<(Capability, Change)>);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Change {
    Add,
    Take,
}

/// Why something is no such list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadModcaps(String);

impl fmt::Display for BadModcaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no capability of capabilities(7) with + or - before it, such as +sys_admin", self.0)
    }
}

impl std::error::Error for BadModcaps {}

impl FromStr for Modcaps {
    type Err = BadModcaps;

    fn from_str(text: &str) -> Result<Self, BadModcaps> {
        let mut changes: Vec<(Capability, Change)> = Vec::new();
        for word in text.split(':') {
            let (capability, change) = parse(word).ok_or_else(|| BadModcaps(word.into()))?;
            changes.retain(|(known, _)| *known != capability);
            changes.push((capability, change));
        }
        Ok(Self(changes))
    }
}

fn parse(word: &str) -> Option<(Capability, Change)> {
    let (name, change) = match word.strip_prefix('+') {
        Some(name) => (name, Change::Add),
        None => (word.strip_prefix('-')?, Change::Take),
    };
    let name = name.to_ascii_uppercase();
    let name = if name.starts_with(PREFIX) { name } else { format!("{PREFIX}{name}") };
    Some((name.parse().ok()?, change))
}

impl Modcaps {
    /// What is wanted besides `list`.
    pub fn added(&self, list: &[Need]) -> impl Iterator<Item = Capability> {
        let listed = |capability: Capability| list.iter().any(|need| need.capability == capability);
        let added = self.0.iter().filter(|(_, change)| *change == Change::Add).map(|(capability, _)| *capability);
        added.filter(move |capability| !listed(*capability))
    }

    /// Whether this one is to be done without.
    pub fn takes(&self, capability: Capability) -> bool {
        self.0.contains(&(capability, Change::Take))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modcaps(text: &str) -> Modcaps {
        text.parse().unwrap()
    }

    // virtiofsd(1): "--modcaps=+sys_admin:-chown"
    #[test]
    fn names_are_taken_with_or_without_prefix_in_any_case() {
        let both = Modcaps(vec![(Capability::CAP_SYS_ADMIN, Change::Add), (Capability::CAP_CHOWN, Change::Take)]);
        for text in ["+sys_admin:-chown", "+SYS_ADMIN:-Chown", "+CAP_SYS_ADMIN:-cap_chown"] {
            assert_eq!(modcaps(text), both, "{text}");
        }
    }

    #[test]
    fn of_what_is_said_twice_the_last_counts() {
        let last = modcaps("-chown:+chown:+mknod:-mknod");
        assert_eq!(last.added(&[]).collect::<Vec<_>>(), [Capability::CAP_CHOWN]);
        assert!(last.takes(Capability::CAP_MKNOD) && !last.takes(Capability::CAP_CHOWN));
        let chown = Need { capability: Capability::CAP_CHOWN, why: "there already" };
        assert_eq!(last.added(&[chown]).count(), 0);
    }

    #[test]
    fn what_is_no_list_says_which_word_is_wrong() {
        for (text, word) in [
            ("", ""),
            ("chown", "chown"),
            ("+chown:", ""),
            ("+chown,-mknod", "+chown,-mknod"),
            ("+all", "+all"),
            ("+", "+"),
            ("++chown", "++chown"),
            ("+chown: -mknod", " -mknod"),
            ("+cap_cap_chown", "+cap_cap_chown"),
        ] {
            assert_eq!(text.parse::<Modcaps>(), Err(BadModcaps(word.into())), "{text}");
        }
        let told = "+x\ny".parse::<Modcaps>().unwrap_err().to_string();
        assert_eq!(told, r#""+x\ny" is no capability of capabilities(7) with + or - before it, such as +sys_admin"#);
    }
}
