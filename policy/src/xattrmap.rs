//! Which extended attributes of the guest are which of the host's file. The grammar is virtiofsd's.
//!
//! A map is a list of rules `:TYPE:SCOPE:KEY:PREPEND:`, each with a delimiter of its own; the first that matches
//! decides. Names that come from the guest are matched by what they begin with against KEY, names that lie on the host
//! against PREPEND. Whatever the rules say of a name on the host, the guest sees it only by a name that leads back to
//! it.

use std::fmt;
use std::str::FromStr;

use postern_ipc::name::{NAME_MAX, XattrName};
use postern_ipc::{Errno, Result};

/// The map that is known by a name.
const GUEST: &str = "guest";
/// What it puts before names of the guest's that the host, or a user namespace, has its own use for.
const STORE: &str = "user.postern.";
/// What those begin with: overlayfs, security modules and file capabilities of the guest.
const STORED: [&str; 2] = ["trusted.", "security."];

/// What a rule does with a name that it matches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Type {
    /// PREPEND goes before it on its way to the host, and is taken off on the way back.
    Prefix,
    /// It stays as it is.
    Ok,
    /// The guest may not have it.
    Bad,
    /// There are none such.
    Unsupported,
}

/// The types by their words.
const TYPES: [(&str, Type); 4] =
    [("prefix", Type::Prefix), ("ok", Type::Ok), ("bad", Type::Bad), ("unsupported", Type::Unsupported)];

/// The scopes by their words, and whether they match names of the guest, of the host.
const SCOPES: [(&str, [bool; 2]); 3] = [("client", [true, false]), ("server", [false, true]), ("all", [true, true])];

#[derive(Clone, PartialEq, Eq, Debug)]
struct Rule {
    what: Type,
    client: bool,
    server: bool,
    key: String,
    prepend: String,
}

impl Rule {
    fn new(what: Type, [client, server]: [bool; 2], key: &str, prepend: &str) -> Self {
        Self { what, client, server, key: key.into(), prepend: prepend.into() }
    }

    fn all(what: Type, key: &str, prepend: &str) -> Self {
        Self::new(what, [true, true], key, prepend)
    }

    fn matches_client(&self, name: &[u8]) -> bool {
        self.client && name.starts_with(self.key.as_bytes())
    }

    fn matches_server(&self, name: &[u8]) -> bool {
        self.server && name.starts_with(self.prepend.as_bytes())
    }
}

/// A map that has an answer for every name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct XattrMap(Vec<Rule>);

impl XattrMap {
    /// The host's name of the guest's `name`; `None` if the guest may not have it.
    ///
    /// # Errors
    /// EOPNOTSUPP if there are none such; ERANGE if it were longer than a name can be. setxattr(2)
    pub fn outward(&self, name: &XattrName) -> Result<Option<XattrName>> {
        let Some(rule) = self.0.iter().find(|rule| rule.matches_client(name.as_bytes())) else { return Ok(None) };
        match rule.what {
            Type::Prefix => XattrName::new(&[rule.prepend.as_bytes(), name.as_bytes()].concat()).map(Some),
            Type::Ok => Ok(Some(*name)),
            Type::Bad => Ok(None),
            Type::Unsupported => Err(Errno::EOPNOTSUPP),
        }
    }

    /// The guest's name of what the host calls `name`, by which it can ask for it; `None` if there is none.
    pub fn inward(&self, name: &[u8]) -> Option<XattrName> {
        let rule = self.0.iter().find(|rule| rule.matches_server(name))?;
        let shown = match rule.what {
            Type::Prefix => name.strip_prefix(rule.prepend.as_bytes())?,
            Type::Ok => name,
            Type::Bad | Type::Unsupported => return None,
        };
        let shown = XattrName::new(shown).ok()?;
        let leads_back = self.outward(&shown).ok().flatten().is_some_and(|host| host.as_bytes() == name);
        leads_back.then_some(shown)
    }

    /// `trusted.*` and `security.*` are the guest's own: they are stored under [`STORE`], which is not there for it, and
    /// those of the host are not either.
    fn guest() -> Self {
        let stored = STORED.map(|class| Rule::all(Type::Prefix, class, STORE));
        let hosts = STORED.map(|class| Rule::new(Type::Bad, [false, true], "", class));
        let rest = [Rule::all(Type::Bad, STORE, STORE), Rule::all(Type::Ok, "", "")];
        Self([&stored[..], &hosts, &rest].concat())
    }
}

/// Why a map cannot be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadXattrMap(String);

impl fmt::Display for BadXattrMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadXattrMap {}

type Parsed<T> = std::result::Result<T, BadXattrMap>;

impl FromStr for XattrMap {
    type Err = BadXattrMap;

    /// `guest`, or rules with any white space around each.
    fn from_str(text: &str) -> Parsed<Self> {
        if text == GUEST {
            return Ok(Self::guest());
        }
        let (mut rules, mut left) = (Vec::new(), text.trim_start());
        while !left.is_empty() {
            let mut fields = Fields::new(left)?;
            let more = fields.rules()?;
            left = fields.left.trim_start();
            if matches!(more, Said::Map(_)) && !left.is_empty() {
                return Err(fields.wrong("is a map and not the last rule"));
            }
            match more {
                Said::Rule(rule) => rules.push(rule),
                Said::Map(map) => rules.extend(map),
            }
        }
        Self::complete(rules)
    }
}

impl XattrMap {
    /// There is an answer for every name only if a rule takes whatever is left.
    fn complete(rules: Vec<Rule>) -> Parsed<Self> {
        let client = rules.iter().any(|rule| rule.matches_client(b""));
        let server = rules.iter().any(|rule| rule.matches_server(b""));
        if client && server {
            return Ok(Self(rules));
        }
        let side = if client { "the host" } else { "the guest" };
        Err(BadXattrMap(format!("no rule takes the other names of {side}: end with :ok:all::: or :bad:all:::")))
    }
}

/// What one rule of a command line comes to.
enum Said {
    Rule(Rule),
    /// `:map:KEY:PREPEND:`
    Map(Vec<Rule>),
}

/// The fields of the rule that a text begins with.
struct Fields<'a> {
    whole: &'a str,
    delimiter: char,
    /// What has not been read of it, and what follows.
    left: &'a str,
}

impl<'a> Fields<'a> {
    fn new(whole: &'a str) -> Parsed<Self> {
        let mut chars = whole.chars();
        match chars.next() {
            Some(delimiter) if !delimiter.is_alphanumeric() => Ok(Self { whole, delimiter, left: chars.as_str() }),
            _ => Err(BadXattrMap(format!("{whole:?} is neither {GUEST} nor :TYPE:SCOPE:KEY:PREPEND:"))),
        }
    }

    /// The rule as far as it has been read.
    fn wrong(&self, why: &str) -> BadXattrMap {
        let read = self.whole.strip_suffix(self.left).unwrap_or(self.whole);
        BadXattrMap(format!("{:?} {why}", read.trim_end()))
    }

    fn next(&mut self) -> Parsed<&'a str> {
        let Some((field, left)) = self.left.split_once(self.delimiter) else {
            self.left = "";
            return Err(self.wrong(&format!("has no {} at its end", self.delimiter)));
        };
        self.left = left;
        if field.len() > NAME_MAX {
            return Err(self.wrong("is longer than a name can be"));
        }
        Ok(field)
    }

    fn rules(&mut self) -> Parsed<Said> {
        let word = self.next()?;
        if word == "map" {
            return Ok(Said::Map(map(self.next()?, self.next()?)));
        }
        let what = named(word, TYPES).ok_or_else(|| self.wrong("is none of prefix, ok, bad, unsupported, map"))?;
        let scope = self.next()?;
        let scope = named(scope, SCOPES).ok_or_else(|| self.wrong("is none of client, server, all"))?;
        Ok(Said::Rule(Rule::new(what, scope, self.next()?, self.next()?)))
    }
}

fn named<T: Copy, const N: usize>(word: &str, table: [(&str, T); N]) -> Option<T> {
    table.iter().find(|(name, _)| *name == word).map(|(_, value)| *value)
}

/// Names with `key` are stored with `prepend` before them and are there by no other way; without a key there are no
/// others.
fn map(key: &str, prepend: &str) -> Vec<Rule> {
    let stored = Rule::all(Type::Prefix, key, prepend);
    if key.is_empty() {
        return vec![stored, Rule::all(Type::Bad, "", "")];
    }
    let hosts = Rule::new(Type::Bad, [false, true], "", key);
    let forged = Rule::new(Type::Bad, [true, false], prepend, "");
    vec![stored, hosts, forged, Rule::all(Type::Ok, "", "")]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(text: &str) -> XattrMap {
        text.parse().unwrap()
    }

    fn name(text: &str) -> XattrName {
        XattrName::new(text.as_bytes()).unwrap()
    }

    fn outward(map: &XattrMap, text: &str) -> Result<Option<String>> {
        let host = map.outward(&name(text))?;
        Ok(host.map(|host| String::from_utf8(host.as_bytes().to_vec()).unwrap()))
    }

    fn inward(map: &XattrMap, text: &str) -> Option<String> {
        map.inward(text.as_bytes()).map(|shown| String::from_utf8(shown.as_bytes().to_vec()).unwrap())
    }

    // virtiofsd, doc/xattr-mapping.md: "will match trusted.* attributes in client calls and prefix them before passing
    // them to the server"
    #[test]
    fn the_first_rule_that_matches_decides() {
        let map = map(
            "/prefix/all/trusted./user.virtiofs./\n /bad/server//trusted./ /bad/client/user.virtiofs.// /ok/all///",
        );
        assert_eq!(outward(&map, "trusted.a"), Ok(Some("user.virtiofs.trusted.a".into())));
        assert_eq!(outward(&map, "user.virtiofs.trusted.a"), Ok(None));
        assert_eq!(outward(&map, "security.a"), Ok(Some("security.a".into())));
        assert_eq!(inward(&map, "user.virtiofs.trusted.a").as_deref(), Some("trusted.a"));
        assert_eq!(inward(&map, "trusted.a"), None);
        assert_eq!(inward(&map, "user.a").as_deref(), Some("user.a"));
    }

    // the same: "The map type adds a number of separate rules"
    #[test]
    fn a_map_is_short_for_the_rules_that_store_and_hide() {
        let long =
            "/prefix/all/trusted./user.virtiofs./ /bad/server//trusted./ /bad/client/user.virtiofs.// /ok/all///";
        assert_eq!(map("/map/trusted./user.virtiofs./"), map(long));
        assert_eq!(map(":map::user.virtiofs.:"), map(":prefix:all::user.virtiofs.::bad:all:::"));
    }

    // the same: "denied using ENOTSUP"
    #[test]
    fn what_is_unsupported_is_told_from_what_is_bad() {
        let map = map("#unsupported#all#security.selinux#security.selinux# :bad:all:security.:security.: :ok:all:::");
        assert_eq!(outward(&map, "security.selinux"), Err(Errno::EOPNOTSUPP));
        assert_eq!(outward(&map, "security.capability"), Ok(None));
        assert_eq!([inward(&map, "security.selinux"), inward(&map, "security.capability")], [None, None]);
    }

    // xattr(7): names are "limited to 255 bytes"; setxattr(2): ERANGE
    #[test]
    fn a_name_that_becomes_too_long_is_none() {
        let map = map("guest");
        let (fits, long) = (format!("trusted.{}", "n".repeat(234)), format!("trusted.{}", "n".repeat(235)));
        assert_eq!(outward(&map, &fits).map(|host| host.map(|host| host.len())), Ok(Some(255)));
        assert_eq!(outward(&map, &long), Err(Errno::ERANGE));
    }

    #[test]
    fn a_name_is_shown_only_if_it_leads_back() {
        let guest = map("guest");
        for hidden in ["user.postern.", "user.postern.a", "user.postern.user.a", "user.postern.user.postern.trusted.a"]
        {
            assert_eq!(inward(&guest, hidden), None, "{hidden}");
        }
        assert_eq!(inward(&map(":prefix:server::user.x.: :ok:all:::"), "user.x.user.a"), None);
    }

    #[test]
    fn what_is_no_map_says_what_is_wrong() {
        let why = |text: &str| text.parse::<XattrMap>().unwrap_err().to_string();
        for (text, said) in [
            ("", "no rule takes the other names of the guest: end with :ok:all::: or :bad:all:::"),
            (":ok:client:::", "no rule takes the other names of the host: end with :ok:all::: or :bad:all:::"),
            ("gest", "\"gest\" is neither guest nor :TYPE:SCOPE:KEY:PREPEND:"),
            (":allow:all:::", "\":allow:\" is none of prefix, ok, bad, unsupported, map"),
            (":ok:both:::", "\":ok:both:\" is none of client, server, all"),
            (":ok:all:::  :bad:all::", "\":bad:all::\" has no : at its end"),
            (":map::user.x.: :ok:all:::", "\":map::user.x.:\" is a map and not the last rule"),
        ] {
            assert_eq!(why(text), said);
        }
        assert!(why(&format!(":prefix:all:{}::", "k".repeat(256))).ends_with("is longer than a name can be"));
    }
}
