//! What the kernel shows of a process to whoever asks. proc(5)

use std::fs;
use std::path::PathBuf;

use caps::Capability;
use postern_policy::idmap::Extent;

/// Kinds of namespaces. namespaces(7)
const NAMESPACES: [&str; 8] = ["user", "mnt", "net", "ipc", "uts", "pid", "cgroup", "time"];

/// What may be looked at by root alone, for everybody else.
const HIDDEN: &str = "only root may see";

/// Each property, and what it is.
pub(super) fn seen(pid: u32) -> Vec<(String, String)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = |name: &str| {
        let found = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        found.map(str::trim).unwrap_or_default().to_owned()
    };
    let apart = fs::read(format!("/proc/{pid}/uid_map")).ok() != fs::read("/proc/self/uid_map").ok();
    let (own, hosts) = namespaces(pid);
    [
        ("uid", ids(pid, "uid_map", &line("Uid"))),
        ("gid", ids(pid, "gid_map", &line("Gid"))),
        ("groups", or_none(line("Groups"))),
        ("capabilities inside", capabilities(&line("CapEff"))),
        ("capabilities outside", if apart { "none".into() } else { capabilities(&line("CapEff")) }),
        ("can ever have", capabilities(&line("CapBnd"))),
        ("namespaces of its side", own),
        ("namespaces of the host", hosts),
        ("id map", map(pid)),
        ("root directory", root(pid)),
        ("no_new_privs", if line("NoNewPrivs") == "1" { "set".into() } else { "not set".into() }),
        ("seccomp filters", line("Seccomp_filters")),
    ]
    .map(|(what, is)| (what.to_owned(), is))
    .into()
}

fn or_none(text: String) -> String {
    if text.is_empty() { "none".into() } else { text }
}

fn extents(pid: u32, file: &str) -> Vec<Extent> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let extent = |line: &str| match line.split_whitespace().map(str::parse).collect::<Result<Vec<u32>, _>>().ok()?[..] {
        [inside, outside, count] => Some(Extent { inside, outside, count }),
        _ => None,
    };
    text.lines().filter_map(extent).collect()
}

/// The first of four ids, as the host and as the process sees it.
fn ids(pid: u32, file: &str, four: &str) -> String {
    let Some(outside) = four.split_whitespace().next().and_then(|id| id.parse::<u32>().ok()) else {
        return "unknown".into();
    };
    let within = |extent: &Extent| outside.checked_sub(extent.outside).filter(|offset| *offset < extent.count);
    let inside = extents(pid, file).iter().find_map(|extent| within(extent)?.checked_add(extent.inside));
    let inside = inside.map_or_else(|| "nobody".into(), |id| id.to_string());
    format!("{outside} outside, {inside} inside")
}

fn map(pid: u32) -> String {
    let shown = |extent: Extent| format!("{} is {} ({})", extent.inside, extent.outside, extent.count);
    or_none(extents(pid, "uid_map").into_iter().map(shown).collect::<Vec<_>>().join(", "))
}

/// The names of a set. capabilities(7)
fn capabilities(hexadecimal: &str) -> String {
    let Ok(set) = u64::from_str_radix(hexadecimal, 16) else { return "unknown".into() };
    let has = |capability: &Capability| set & capability.bitmask() != 0;
    let mut all: Vec<Capability> = caps::all().into_iter().collect();
    all.sort_by_key(Capability::index);
    if all.iter().all(has) {
        return "all".into();
    }
    let names: Vec<String> = all.iter().filter(|capability| has(capability)).map(Capability::to_string).collect();
    or_none(names.join(" ").replace("CAP_", ""))
}

/// Which namespaces are others than this program's, and which are the same.
fn namespaces(pid: u32) -> (String, String) {
    let link = |who: &str, kind: &str| -> Option<PathBuf> { fs::read_link(format!("/proc/{who}/ns/{kind}")).ok() };
    let (mut own, mut hosts) = (Vec::new(), Vec::new());
    for kind in NAMESPACES {
        match (link(&pid.to_string(), kind), link("self", kind)) {
            (None, _) => return (HIDDEN.into(), HIDDEN.into()),
            (theirs, ours) if theirs == ours => hosts.push(kind),
            _ => own.push(kind),
        }
    }
    (or_none(own.join(" ")), or_none(hosts.join(" ")))
}

fn root(pid: u32) -> String {
    match fs::read_dir(format!("/proc/{pid}/root/")).map(Iterator::count) {
        Ok(0) => "empty".into(),
        Ok(names) => format!("has {names} names"),
        Err(_) => HIDDEN.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_told_by_names() {
        assert_eq!(capabilities("0000000000000000"), "none");
        assert_eq!(capabilities("0000000000000003"), "CHOWN DAC_OVERRIDE");
        assert_eq!(capabilities("000001ffffffffff"), "all");
        assert_eq!(capabilities("x"), "unknown");
    }

    #[test]
    fn this_process_is_seen_as_it_is() {
        let pid = std::process::id();
        let uid = nix::unistd::getuid();
        let seen = seen(pid);
        let of = |name: &str| seen.iter().find(|(what, _)| what == name).unwrap().1.clone();
        assert_eq!(of("uid"), format!("{uid} outside, {uid} inside"));
        assert_eq!((of("namespaces of its side").as_str(), of("seccomp filters").is_empty()), ("none", false));
    }
}
