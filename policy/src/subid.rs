//! Subordinate ids: what the administrator gave a user in `/etc/subuid` and `/etc/subgid`. subuid(5), subgid(5)

use std::path::{Path, PathBuf};

use crate::idmap::{BadMap, Extent, IdMap};

/// Where distributions put newuidmap(1) and newgidmap(1); never looked for through $PATH.
pub const PLACES: [&str; 4] = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"];

/// The program of this name that writes maps for users.
pub fn tool(name: &str) -> Option<PathBuf> {
    PLACES.iter().map(|place| Path::new(place).join(name)).find(|path| path.is_file())
}

/// One line: `count` ids from `first` on belong to a user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Grant {
    /// First id of the host.
    pub first: u32,
    /// How many.
    pub count: u32,
}

/// The lines of `file` for the user called `name` or numbered `uid`. As newuidmap(1) does, a line that is none is
/// passed over.
pub fn grants(file: &str, name: Option<&str>, uid: u32) -> Vec<Grant> {
    let number = uid.to_string();
    let mine = |owner: &str| owner == number || Some(owner) == name;
    file.lines().filter_map(parse).filter(|(owner, _)| mine(owner)).map(|(_, grant)| grant).collect()
}

/// Everything that `file` gives to anybody.
pub fn all(file: &str) -> Vec<Grant> {
    file.lines().filter_map(parse).map(|(_, grant)| grant).collect()
}

/// A range that nobody has yet, first and last id: two users with the same ids would own each other's files.
pub fn free(given: &[Grant]) -> (u32, u32) {
    let ends = given.iter().map(|grant| grant.first.saturating_add(grant.count));
    let first = ends.fold(100_000, u32::max);
    (first, first.saturating_add(65_535))
}

fn parse(line: &str) -> Option<(&str, Grant)> {
    let fields: Vec<&str> = line.split(':').collect();
    let [owner, first, count] = fields.try_into().ok()?;
    let grant = Grant { first: first.parse().ok()?, count: count.trim_end().parse().ok()? };
    let valid = grant.count > 0 && grant.first.checked_add(grant.count).is_some();
    (valid && !owner.is_empty()).then_some((owner, grant))
}

/// The map of an ordinary user: guest root is the user, guest ids from 1 on are the subordinate ids in their order.
///
/// # Errors
/// If the grants overlap each other or the user's own id, or are too many.
pub fn map(own: u32, grants: &[Grant]) -> Result<IdMap, BadMap> {
    let mut extents = vec![Extent { inside: 0, outside: own, count: 1 }];
    let mut next: u32 = 1;
    for grant in grants {
        extents.push(Extent { inside: next, outside: grant.first, count: grant.count });
        next = next.saturating_add(grant.count);
    }
    IdMap::new(extents)
}

/// The ranges of `map` that are nobody's subordinate ids, so that users of the host may have them.
pub fn others(grants: &[Grant], map: &IdMap) -> Vec<Extent> {
    let covered = |extent: &Extent| {
        grants.iter().any(|grant| {
            grant.first <= extent.outside
                && extent.outside.saturating_add(extent.count) <= grant.first.saturating_add(grant.count)
        })
    };
    map.extents().iter().copied().filter(|extent| !covered(extent)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "alice:100000:65536\n1000:300000:10\nbob:165536:65536\nbroken\nalice:x:1\nalice:1:0\n:1:1\n";

    // subuid(5): "login name or UID : numerical subordinate user ID : numerical subordinate user ID count"
    #[test]
    fn a_user_has_the_ranges_under_his_name_and_under_his_number() {
        let alice = grants(FILE, Some("alice"), 1000);
        assert_eq!(alice, [Grant { first: 100_000, count: 65_536 }, Grant { first: 300_000, count: 10 }]);
        assert_eq!(grants(FILE, None, 1000).len(), 1);
        assert!(grants(FILE, Some("carol"), 1001).is_empty());
    }

    // useradd(8): SUB_UID_MIN, SUB_UID_COUNT of /etc/login.defs are 100000 and 65536
    #[test]
    fn a_range_to_give_is_nobodys_yet() {
        assert_eq!(free(&[]), (100_000, 165_535));
        assert_eq!(free(&all(FILE)), (300_010, 365_545));
    }

    #[test]
    fn guest_root_is_the_user_and_the_others_follow() {
        let map = map(1000, &grants(FILE, Some("alice"), 1000)).unwrap();
        assert_eq!(map.proc_text(), "0 1000 1\n1 100000 65536\n65537 300000 10\n");
    }

    #[test]
    fn what_is_nobodys_subordinate_id_may_be_a_users_own() {
        let given = all(FILE);
        let map = map(1000, &given[..1]).unwrap();
        assert_eq!(others(&given, &map), [Extent { inside: 0, outside: 1000, count: 1 }]);
        assert_eq!(others(&[], &map).len(), 2);
        assert!(
            others(&given, &IdMap::new(vec![Extent { inside: 0, outside: 100_000, count: 9 }]).unwrap()).is_empty()
        );
    }
}
