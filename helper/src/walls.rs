//! What the two processes keep of their power: the capabilities of the operations, and the warden's system calls.
//! The helper's system calls are said by its operations, in `serve`.

use caps::Capability;
use nix::libc;
use postern_ipc::model::Model;
use postern_policy::fatal::{Fatal, Started};
use postern_policy::modcaps::Modcaps;
use postern_policy::right::{Right, Rights};
use postern_policy::sandbox::caps::{Need, is_there};
use postern_policy::sandbox::seccomp::{Call, Mode, bits};
use rustix::fs::OFlags;

use crate::args::Form;
use crate::guard::Guard;
use crate::serve;

/// How high the walls are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walls<'a> {
    pub(crate) capabilities: &'a [Need],
    pub(crate) seccomp: Mode,
    pub(crate) landlock: bool,
    /// They are told of.
    pub(crate) told: bool,
}

pub(crate) const fn need(capability: Capability, why: &'static str) -> Need {
    Need { capability, why }
}

/// What the operations of a read-only share need of root's power, within the map.
const READ: &[Need] = &[
    need(Capability::CAP_DAC_READ_SEARCH, "the guest's kernel has judged who may read"),
    need(Capability::CAP_SETUID, "whom no kernel has judged acts as himself; what is made is its caller's"),
    need(Capability::CAP_SETGID, "the same of groups"),
];

/// What those of any other need.
const WRITE: &[Need] = &[
    need(Capability::CAP_DAC_OVERRIDE, "the guest's kernel has judged who may read and write"),
    need(Capability::CAP_CHOWN, "SetAttr changes owners"),
    need(Capability::CAP_FOWNER, "SetAttr changes what others own; O_NOATIME"),
    need(Capability::CAP_FSETID, "SetAttr sets the set-group-id bit for any group"),
    need(Capability::CAP_SETUID, "whom no kernel has judged acts as himself; what is made is its caller's"),
    need(Capability::CAP_SETGID, "the same of groups"),
    need(Capability::CAP_SETFCAP, "SetXattr sets file capabilities"),
];

/// What those of a mapped security model need: the ids and modes that they change are not the host's.
const MAPPED: &[Need] = &[
    need(Capability::CAP_DAC_OVERRIDE, "the guest's kernel has judged who may read and write"),
    need(Capability::CAP_FOWNER, "SetAttr changes times of what others own; O_NOATIME"),
    need(Capability::CAP_SETFCAP, "SetXattr sets file capabilities"),
];
/// The same of a read-only share.
const MAPPED_READ: &[Need] = &[need(Capability::CAP_DAC_READ_SEARCH, "the guest's kernel has judged who may read")];

/// What those need that a map is not the kernel's for: the rest is done as the owner. Each is had for one call at a
/// time.
const JUDGED: &[Need] = &[
    need(Capability::CAP_DAC_OVERRIDE, "the guest's kernel has judged who may read and write"),
    need(Capability::CAP_CHOWN, "SetAttr changes owners"),
    need(Capability::CAP_SETUID, "owners do what is theirs to do; what is made is its caller's"),
    need(Capability::CAP_SETGID, "the same of groups"),
    need(Capability::CAP_SETFCAP, "SetXattr sets file capabilities"),
];

/// Besides, where the host's root may make device nodes.
const DEVICES: &[Need] = &[need(Capability::CAP_MKNOD, "Mknod makes device nodes")];

/// What may be kept besides because somebody wants it (`--modcaps`): with it operations do what they are refused
/// without.
struct More {
    need: Need,
    /// It counts for nothing in a user namespace.
    hosts: bool,
    /// Of the operations that have a use for it.
    right: Right,
}

const MORE: [More; 3] = [
    More {
        need: need(Capability::CAP_DAC_READ_SEARCH, "the guest's kernel has judged who may read"),
        hosts: false,
        right: Right::Read,
    },
    More {
        need: need(
            Capability::CAP_SYS_ADMIN,
            "the guest has the host's trusted.* and security.* attributes of the share",
        ),
        hosts: true,
        right: Right::Read,
    },
    More {
        need: need(
            Capability::CAP_LINUX_IMMUTABLE,
            "the guest makes files that nobody changes, and changes such files",
        ),
        hosts: true,
        right: Right::Write,
    },
];

/// The capabilities of the helper of a share, which the warden hands down.
pub(crate) fn capabilities(
    rights: Rights,
    guard: Guard,
    model: Model,
    form: Form,
    modcaps: Option<&Modcaps>,
) -> Started<Vec<Need>> {
    let list = needed(rights, guard, model, form);
    let Some(modcaps) = modcaps else { return Ok(list) };
    if form == Form::Soft {
        return Err(Fatal::new(
            "change the helper's capabilities (--modcaps)",
            "with --identity=soft each is had for one call",
        )
        .hint("leave it out, or choose --identity=userns"));
    }
    let added = modcaps.added(&list).map(|capability| more(capability, rights, form)).collect::<Started<Vec<_>>>()?;
    for Need { capability, why } in &added {
        log::warn!("--modcaps: the helper has {capability}: {why}");
    }
    Ok([list, added].concat().into_iter().filter(|need| !modcaps.takes(need.capability)).collect())
}

fn more(capability: Capability, rights: Rights, form: Form) -> Started<Need> {
    let refused = |why: &str| Fatal::new(format!("keep {capability} (--modcaps)"), why);
    let More { need, hosts, .. } =
        MORE.iter().find(|more| more.need.capability == capability && rights.allow(more.right)).ok_or_else(|| {
            refused("no operation of this share has a use for it")
                .hint("leave it out, see --modcaps in postern-helper(8)")
        })?;
    if *hosts && form == Form::Userns {
        return Err(refused("it gives nothing in a user namespace")
            .hint("leave it out; --xattrmap=guest stores trusted.* and security.*, --identity=host goes without the namespace"));
    }
    if is_there(capability) { Ok(*need) } else { Err(refused("the helper was started without it")) }
}

/// What the operations need.
fn needed(rights: Rights, guard: Guard, model: Model, form: Form) -> Vec<Need> {
    match (rights.allow(Right::Write), guard.devices) {
        (true, _) if form == Form::Soft => JUDGED.to_vec(),
        (false, _) if model.is_mapped() => MAPPED_READ.to_vec(),
        (true, _) if model.is_mapped() => MAPPED.to_vec(),
        (false, _) => READ.to_vec(),
        (true, false) => WRITE.to_vec(),
        (true, true) => [WRITE, DEVICES].concat(),
    }
}

/// Flags of clone(2) that make namespaces.
const NAMESPACES: u32 = bits(
    libc::CLONE_NEWNS
        | libc::CLONE_NEWCGROUP
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET,
);

/// How the two open directories.
const DIR_FLAGS: u32 = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::LARGEFILE).bits();

/// What the warden calls, and a new helper until its own list is in force.
const WARDEN: &[Call] = &[
    Call::any(libc::SYS_socketpair, "makes channels, for descriptors"),
    Call::any(libc::SYS_clone, "makes a helper, and its threads").masked(0, NAMESPACES, 0),
    Call::any(libc::SYS_clone3, "is absent, so that the flags of clone can be seen"),
    Call::any(libc::SYS_pipe2, "makes channels, for frames, and takes lines of the helper's log"),
    Call::any(libc::SYS_dup3, "a helper has nothing of the log but that pipe").eq(1, bits(libc::STDERR_FILENO)),
    Call::any(libc::SYS_dup3, "the same of what it explained itself to").eq(1, bits(libc::STDOUT_FILENO)),
    Call::any(libc::SYS_pidfd_open, "watches the helper"),
    Call::any(libc::SYS_pidfd_send_signal, "ends the helper").eq(1, bits(libc::SIGKILL)),
    Call::any(libc::SYS_waitid, "learns what the helper died of"),
    Call::any(libc::SYS_ppoll, "waits for the helper, the server and signals"),
    Call::any(libc::SYS_read, "looks whether the server is gone, takes lines of the helper's log"),
    Call::any(libc::SYS_recvfrom, "the same, by a newer Rust").null(4),
    Call::any(libc::SYS_write, "tells the server news, by an older Rust than one that uses sendto"),
    Call::at(libc::SYS_openat, "opens the share's root, and a helper's own /proc/self/fd").eq(2, DIR_FLAGS),
    Call::any(libc::SYS_fchdir, "a serving thread's working directory is its /proc/self/fd"),
    Call::any(libc::SYS_unshare, "a serving thread has a working directory of its own").eq(0, bits(libc::CLONE_FS)),
    Call::any(libc::SYS_close_range, "a helper closes what is the warden's"),
    Call::any(libc::SYS_getppid, "a helper looks whether its warden lives"),
    Call::any(libc::SYS_prctl, "a helper dies with its warden").eq(0, bits(libc::PR_SET_PDEATHSIG)),
    Call::any(libc::SYS_prctl, "a helper drops capabilities").eq(0, bits(libc::PR_CAPBSET_READ)),
    Call::any(libc::SYS_prctl, "a helper drops capabilities").eq(0, bits(libc::PR_CAPBSET_DROP)),
    Call::any(libc::SYS_prctl, "a helper drops capabilities").eq(0, bits(libc::PR_CAP_AMBIENT)),
    Call::any(libc::SYS_prctl, "walls ask for no new privileges").eq(0, bits(libc::PR_SET_NO_NEW_PRIVS)),
    Call::any(libc::SYS_capget, "a helper drops capabilities"),
    Call::any(libc::SYS_capset, "a helper drops capabilities"),
    Call::any(libc::SYS_setgroups, "a serving thread learns whether it can leave groups"),
    Call::any(libc::SYS_landlock_create_ruleset, "a helper enters a landlock domain"),
    Call::any(libc::SYS_landlock_add_rule, "a helper enters a landlock domain"),
    Call::any(libc::SYS_landlock_restrict_self, "a helper enters a landlock domain"),
    Call::at(libc::SYS_newfstatat, "landlock's library looks whether a directory is one"),
    Call::any(libc::SYS_fstat, "the same, by an older C library"),
    Call::any(libc::SYS_seccomp, "a helper puts its own list in force"),
    Call::any(libc::SYS_rt_sigaction, "a helper forgets signals"),
    Call::any(libc::SYS_set_robust_list, "a thread starts"),
    Call::any(libc::SYS_rseq, "a thread starts"),
    Call::any(libc::SYS_gettid, "a thread starts"),
    Call::any(libc::SYS_sched_getaffinity, "a thread starts"),
    Call::any(libc::SYS_prlimit64, "a thread starts").eq(0, 0).null(2),
];

/// The system calls of the warden: its own, and its child's, which no list of the child's own can widen.
pub(crate) fn warden(rights: Rights, model: Model) -> Vec<Call> {
    serve::calls(rights, model).into_iter().chain(WARDEN.iter().copied()).collect()
}
