use super::*;

/// A host where ann is 1000, kvm is 20, and the directory service for everything that begins with x is away.
struct Test;

impl Names for Test {
    fn user(&self, name: &str) -> Result<Option<u32>, Refusal> {
        if name.starts_with('x') { Err(Refusal("away".into())) } else { Ok((name == "ann").then_some(1000)) }
    }

    fn group(&self, name: &str) -> Result<Option<u32>, Refusal> {
        if name.starts_with('x') { Err(Refusal("away".into())) } else { Ok((name == "kvm").then_some(20)) }
    }
}

fn caller(uid: u32, groups: &[u32]) -> Caller {
    Caller { uid, gid: uid, groups: groups.into() }
}

fn judge(text: &str, caller: &Caller, dir: &str) -> Result<Grant, Refusal> {
    Policy::parse(text).unwrap().judge(caller, Path::new(dir), &Test)
}

/// Which rule gives something.
fn rule(text: &str, caller: &Caller, dir: &str) -> Option<usize> {
    judge(text, caller, dir).unwrap().rule
}

// postern-policy(5): "Where no rule is about it, guest root is the caller and the other ids are his subordinate ones"
#[test]
fn without_a_rule_a_caller_has_his_own_ids() {
    let given = Grant { readonly: false, ids: Ids::Subordinate, rule: None };
    assert_eq!(judge("", &caller(1000, &[]), "/d"), Ok(given));
}

// postern-policy(5): "The first rule that is about the caller and his directory decides"
#[test]
fn the_first_rule_that_is_about_somebody_decides() {
    let text = "[[rule]]\nusers = ['ann']\nbelow = ['/srv']\nshare = 'read-only'\n[[rule]]\nshare = 'no'\n";
    assert_eq!(judge(text, &caller(1000, &[]), "/srv/d").map(|grant| grant.readonly), Ok(true));
    for (uid, dir) in [(1000, "/home/ann"), (1001, "/srv/d"), (0, "/")] {
        let refused = judge(text, &caller(uid, &[]), dir).unwrap_err();
        assert_eq!(refused.to_string(), "rule 2 of /etc/postern/policy.toml says no");
    }
}

#[test]
fn a_rule_is_about_any_of_its_users_and_groups() {
    let text = "[[rule]]\nusers = ['ann', 1002]\ngroups = ['kvm', 30]\n";
    for (uid, groups) in [(1000, &[][..]), (1002, &[]), (1, &[20]), (1, &[5, 30]), (20, &[])] {
        assert_eq!(rule(text, &caller(uid, groups), "/"), Some(1), "{uid} {groups:?}");
    }
    assert_eq!(rule(text, &caller(1001, &[1000, 1002]), "/"), None);
}

// A path is judged by its components
#[test]
fn a_directory_is_below_itself_but_not_below_one_whose_name_only_begins_so() {
    let text = "[[rule]]\nbelow = ['/srv/vm', '/data']\n";
    for (dir, is) in
        [("/srv/vm", true), ("/srv/vm/a/b", true), ("/data", true), ("/srv/vmx", false), ("/srv", false), ("/", false)]
    {
        assert_eq!(rule(text, &caller(1, &[]), dir).is_some(), is, "{dir}");
    }
}

#[test]
fn a_rule_that_cannot_be_judged_just_now_refuses() {
    for text in ["[[rule]]\nusers = ['x']\nshare = 'no'\n", "[[rule]]\ngroups = ['xy']\n"] {
        assert_eq!(judge(text, &caller(1000, &[]), "/").unwrap_err().to_string(), "away");
    }
}

// postern-policy(5): uid-map, gid-map
#[test]
fn a_rule_may_say_which_ids() {
    let text = "[[rule]]\nuid-map = [':0:100000:65536:']\ngid-map = ['/0/5/1/']\n";
    let Ids::Given(maps) = judge(text, &caller(1000, &[]), "/").unwrap().ids else { panic!("its own") };
    assert_eq!((maps.uids.outward(1), maps.gids.outward(0), maps.gids.outward(1)), (Some(100_001), Some(5), None));
    assert_eq!(judge("[[rule]]\nids = 'own'\n", &caller(1, &[]), "/").unwrap().ids, Ids::Own);
}

// postern-policy(5): "A file with an error refuses everything"
#[test]
fn what_is_no_policy_is_told_with_its_line() {
    for (text, why) in [
        ("sharing = 1\n", "line 1: unknown field `sharing`"),
        ("[[rule]]\nuser = ['ann']\n", "unknown field `user`"),
        ("shares-per-user = -1\n", "line 1: "),
        ("shares-per-user = 1\n\n[[rule]\n", "line 3: "),
        ("[[rule]]\nusers = []\n", "users is empty"),
        ("[[rule]]\nbelow = []\n", "below is empty"),
        ("[[rule]]\nbelow = ['srv']\n", "not an absolute path"),
        ("[[rule]]\nbelow = ['/srv/../etc']\n", "not an absolute path"),
        ("[[rule]]\nbelow = ['/srv/']\n", "not an absolute path"),
        ("[[rule]]\nshare = 'yes'\n", "unknown variant `yes`"),
        ("[[rule]]\nids = 'own'\nuid-map = [':0:1:1:']\ngid-map = [':0:1:1:']\n", "not both"),
        ("[[rule]]\nuid-map = [':0:1:1:']\n", "come together"),
        ("[[rule]]\nuid-map = [':1:1:1:']\ngid-map = [':0:1:1:']\n", "guest root is not mapped"),
        ("[[rule]]\nuid-map = ['0:1:1']\ngid-map = [':0:1:1:']\n", "is not :INSIDE:OUTSIDE:COUNT:"),
        ("[[rule]]\nusers = [-1]\n", "line 2: "),
        ("shares-per-user = 1\nshares-per-user = 2\n", "line 2: duplicate key"),
    ] {
        let told = Policy::parse(text).unwrap_err();
        assert!(told.contains(why) && !told.contains('\n'), "{text:?}: {told}");
    }
}
