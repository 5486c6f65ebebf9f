//! The command line. postern-helper(8) is its reference.

use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use clap::{Parser, ValueEnum};
use log::LevelFilter;
use postern_ipc::attr::Mode;
use postern_ipc::model::Model;
use postern_policy::idmap::Extent;
use postern_policy::kinds::Kinds;
use postern_policy::limit::LEAST_DESCRIPTORS;
use postern_policy::modcaps::Modcaps;
use postern_policy::right::Rights;
use postern_policy::sandbox::seccomp;
use postern_policy::translate::Rule;
use postern_policy::xattrmap::XattrMap;

/// Does the credentialed file access of one share, asked by a postern-server.
#[derive(Parser, Clone, Debug)]
#[command(name = "postern-helper", version, max_term_width = 100)]
pub(crate) struct Args {
    /// Descriptor of a connected Unix socket (stream or seqpacket) whose other end is the server's
    #[arg(long, value_name = "N", required_unless_present = "by_policy")]
    pub(crate) sock_fd: Option<RawFd>,

    /// The directory to share
    #[arg(long, value_name = "DIR", required_unless_present = "by_policy")]
    pub(crate) shared_dir: Option<PathBuf>,

    /// Share what the server at the other end of systemd's socket (LISTEN_FDS) asks for, as /etc/postern/policy.toml
    /// lets its user; or, with file capabilities and --sock-fd alone, whoever starts this
    #[arg(long, conflicts_with_all = ["sock_fd", "shared_dir", "uid_map", "gid_map", "readonly", "security_model", "fmode",
        "dmode", "translate_uid", "translate_gid", "identity", "allow_setid", "allow_devices", "modcaps"])]
    pub(crate) by_policy: bool,

    /// Host user ids of the guest's; as often as there are ranges
    #[arg(long, value_name = ":INSIDE:OUTSIDE:COUNT:")]
    pub(crate) uid_map: Vec<Extent>,

    /// Host group ids of the guest's; as often as there are ranges
    #[arg(long, value_name = ":INSIDE:OUTSIDE:COUNT:")]
    pub(crate) gid_map: Vec<Extent>,

    /// User ids of the guest that are others in the share; as often as there are ranges
    #[arg(long, value_name = "KIND:FROM:TO:COUNT")]
    pub(crate) translate_uid: Vec<Rule>,

    /// Group ids of the guest that are others in the share; as often as there are ranges
    #[arg(long, value_name = "KIND:FROM:TO:COUNT")]
    pub(crate) translate_gid: Vec<Rule>,

    /// Nothing of the share may be changed
    #[arg(long)]
    pub(crate) readonly: bool,

    /// Where the guest's ownership and modes are kept
    #[arg(long, value_name = "MODEL", default_value_t = SecurityModel::Passthrough)]
    pub(crate) security_model: SecurityModel,

    /// Permission bits of the host's files, octal (mapped-xattr, mapped-file) [default: 600]
    #[arg(long, value_name = "MODE", value_parser = Mode::permissions)]
    pub(crate) fmode: Option<Mode>,

    /// Permission bits of the host's directories, octal (mapped-xattr, mapped-file) [default: 700]
    #[arg(long, value_name = "MODE", value_parser = Mode::permissions)]
    pub(crate) dmode: Option<Mode>,

    /// What the guest's extended attributes are called on the host: `guest`, or rules :TYPE:SCOPE:KEY:PREPEND:
    #[arg(long, value_name = "MAP")]
    pub(crate) xattrmap: Option<XattrMap>,

    /// Who guest root is: root of the mapped ids only, in a user namespace or without one, or the host's root
    #[arg(long, value_name = "FORM", default_value = "userns")]
    pub(crate) identity: Form,

    /// The guest may make set-id files although host users can execute them
    #[arg(long)]
    pub(crate) allow_setid: bool,

    /// The guest may make device nodes although host users can open them (needs --identity=host)
    #[arg(long)]
    pub(crate) allow_devices: bool,

    /// Nodes that the guest may make besides files, directories and links: fifo, socket, whiteout, device, with commas
    /// between, or none [default: all]
    #[arg(long, value_name = "KINDS")]
    pub(crate) mknod: Option<Kinds>,

    /// Capabilities that the helper keeps or does without, such as +sys_admin:-fsetid
    #[arg(long, value_name = "+NAME|-NAME[:...]", allow_hyphen_values = true)]
    pub(crate) modcaps: Option<Modcaps>,

    /// Most descriptors the helper may have open
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u64).range(LEAST_DESCRIPTORS..))]
    pub(crate) rlimit_nofile: u64,

    /// Most requests a second that a channel does; then it waits [default: as many as it can]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_rate: Option<u32>,

    /// Say on the standard output what confines each process (postern explain asks for it)
    #[arg(long)]
    pub(crate) explain: bool,

    /// off, error, warn, info or debug
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub(crate) log_level: LevelFilter,

    /// Log to the system's log
    #[arg(long)]
    pub(crate) syslog: bool,

    /// What becomes of a process that makes a system call it has no need of: kill, log or none
    #[arg(long, value_name = "MODE", default_value_t = seccomp::Mode::Kill)]
    pub(crate) seccomp: seccomp::Mode,

    /// Go without Landlock
    #[arg(long)]
    pub(crate) no_landlock: bool,

    /// Keep the host's root directory
    #[arg(long)]
    pub(crate) no_empty_root: bool,
}

/// Values of `--identity`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Form {
    /// In a user namespace whose map is the share's
    Userns,
    /// The same in the initial one, where the helper applies the map
    Soft,
    /// As the host's root
    Host,
}

/// Values of `--security-model`, as QEMU has them but for mapped-links.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum SecurityModel {
    /// In the host's inodes
    Passthrough,
    /// In the host's inodes; an owner that cannot be had is not missed
    None,
    /// In user.virtfs.* attributes of the host's files
    #[value(alias = "mapped")]
    MappedXattr,
    /// The same, with real symbolic links and permission bits
    MappedLinks,
    /// In files of a directory .virtfs_metadata beside
    MappedFile,
}

impl From<SecurityModel> for Model {
    fn from(model: SecurityModel) -> Self {
        match model {
            SecurityModel::Passthrough => Self::Passthrough,
            SecurityModel::None => Self::None,
            SecurityModel::MappedXattr => Self::MappedXattr,
            SecurityModel::MappedLinks => Self::MappedLinks,
            SecurityModel::MappedFile => Self::MappedFile,
        }
    }
}

/// As on the command line.
impl std::fmt::Display for SecurityModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Model::from(*self).fmt(f)
    }
}

impl From<Model> for SecurityModel {
    fn from(model: Model) -> Self {
        match model {
            Model::Passthrough => Self::Passthrough,
            Model::None => Self::None,
            Model::MappedXattr => Self::MappedXattr,
            Model::MappedLinks => Self::MappedLinks,
            Model::MappedFile => Self::MappedFile,
        }
    }
}

impl Args {
    /// The directory, for people.
    pub(crate) fn shown(&self) -> std::path::Display<'_> {
        self.shared_dir.as_deref().unwrap_or(Path::new("")).display()
    }

    /// What the share grants.
    pub(crate) fn rights(&self) -> Rights {
        if self.readonly { Rights::READ } else { Rights::READ_WRITE }
    }

    /// Whatever weakens the walls says so.
    pub(crate) fn warn_of_weakness(&self) {
        if self.seccomp != seccomp::Mode::Kill {
            log::warn!("--seccomp={}: system calls outside the helper's list are not stopped", self.seccomp);
        }
        let flags = [
            (self.no_landlock, "--no-landlock: paths outside the share are not kept from the helper by landlock"),
            (self.no_empty_root, "--no-empty-root: the helper's root is the host's"),
            (self.identity == Form::Host, "--identity=host: guest root is the host's root"),
            (self.allow_setid, "--allow-setid: set-id files that the guest makes work on the host"),
            (self.allow_devices, "--allow-devices: device nodes that the guest makes work on the host"),
        ];
        flags.iter().filter(|(set, _)| *set).for_each(|(_, text)| log::warn!("{text}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn maps_are_given_range_by_range_and_not_for_host_root() {
        let line = |more: &[&str]| {
            Args::try_parse_from(["postern-helper", "--sock-fd=3", "--shared-dir=/x"].iter().chain(more))
        };
        let args = line(&["--uid-map=:0:1000:1:", "--uid-map", ":1:100000:65536:"]).unwrap();
        assert_eq!((args.uid_map.len(), args.gid_map.len(), args.identity), (2, 0, Form::Userns));
        assert!(line(&["--uid-map=0:1000:1"]).is_err());
        assert!(line(&["--rlimit-nofile=3"]).is_err());
    }

    #[test]
    fn what_the_policy_decides_is_not_said_on_the_command_line() {
        let line = |more: &[&str]| Args::try_parse_from(["postern-helper", "--by-policy"].iter().chain(more));
        assert!(line(&["--syslog", "--max-rate=9"]).is_ok());
        for more in ["--sock-fd=3", "--shared-dir=/x", "--uid-map=:0:1:1:", "--readonly", "--identity=userns"] {
            assert!(line(&[more]).is_err(), "{more}");
        }
    }
}
