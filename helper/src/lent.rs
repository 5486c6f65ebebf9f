//! A helper that root has lent capabilities, by its file: any user may start it, and has no say in anything but which
//! descriptor his server is at. The kernel's word counts for who he is; what else he leaves is reset, or he is refused.
//!
//! From then on it is what systemd starts: root's, with what it takes to enter the share's namespaces and no more. No
//! process of the caller's can change or follow it until it is in them.

use std::ffi::OsString;
use std::os::fd::RawFd;

use caps::Capability;
use clap::Parser as _;
use nix::unistd::{getegid, geteuid, getgid, getgroups, getuid, setgroups, setresgid, setresuid};
use postern_policy::fatal::{Fatal, Started, Step as _};
use postern_policy::rules::Caller;
use postern_policy::sandbox::caps::{Need, is_there, keep};
use postern_policy::sandbox::{no_new_privs, not_dumpable};

use crate::PROGRAM;
use crate::args::Args;
use crate::walls::need;

/// What it takes until the walls stand.
const NEEDED: [Need; 5] = [
    need(Capability::CAP_DAC_READ_SEARCH, "sees the directory and those above it"),
    need(Capability::CAP_SYS_ADMIN, "enters namespaces"),
    need(Capability::CAP_SETUID, "becomes root, and maps ids"),
    need(Capability::CAP_SETGID, "the same of groups"),
    need(Capability::CAP_SETFCAP, "maps the host's root, where the policy says so"),
];

/// How root lends them.
const LEND: &str = "setcap cap_dac_read_search,cap_sys_admin,cap_setuid,cap_setgid,cap_setfcap=p lends a helper what it \
                    takes, and no_new_privs, nosuid and ptrace take it away";

/// What is to be done for whom, if this process has capabilities of its file's; none if it is whoever starts it.
pub(crate) fn caller(has_more: bool) -> Started<Option<(Args, Caller)>> {
    let refused = |why: &str| Fatal::new("serve", why);
    match (has_more, said()) {
        (false, None) => Ok(None),
        (false, Some(_)) => Err(refused("it has no more privileges than who starts it").hint(LEND)),
        (true, None) => Err(refused("it has more privileges than who starts it").hint(
            "he may say --by-policy --sock-fd N and nothing else; for other uses take its set-id bits or file capabilities \
             away",
        )),
        (true, Some(number)) => {
            let caller = become_root()?;
            let args = Args::parse_from([PROGRAM, "--by-policy", "--syslog"]);
            Ok(Some((Args { sock_fd: Some(number), ..args }, caller)))
        }
    }
}

/// The number of the socket, if nothing else is said.
fn said() -> Option<RawFd> {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    match &words[..] {
        [policy, socket, number] if policy == "--by-policy" && socket == "--sock-fd" => number.to_str()?.parse().ok(),
        _ => None,
    }
}

/// Says who has started this process.
fn become_root() -> Started<Caller> {
    let (uid, gid) = (getuid(), getgid());
    if (uid, gid) != (geteuid(), getegid()) {
        return Err(Fatal::new("serve", "it has set-id bits").hint(LEND));
    }
    if let Some(Need { capability, .. }) = NEEDED.iter().find(|need| !is_there(need.capability)) {
        return Err(Fatal::new("serve", format!("its file has not lent it {capability}")).hint(LEND));
    }
    let step = "be root's and nobody else's";
    let groups = getgroups().step(step)?.into_iter().map(Into::into).collect();
    no_new_privs()?;
    keep(&NEEDED)?;
    setgroups(&[]).step(step)?;
    setresgid(0.into(), 0.into(), 0.into()).step(step)?;
    setresuid(0.into(), 0.into(), 0.into()).step(step)?;
    not_dumpable()?;
    Ok(Caller { uid: uid.as_raw(), gid: gid.as_raw(), groups })
}
