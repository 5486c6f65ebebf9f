//! The command line of `postern-server`. Option names follow virtiofsd where it has one.

use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use log::LevelFilter;
use postern_ipc::hello::Root;
use postern_policy::fatal::Fatal;
use postern_policy::sandbox::seccomp;

use crate::fs::tree;
use crate::fs::{Multidevs, Writeout};
use crate::fuse::{Cache, Settings};
use crate::p9;

/// Most request queues: one channel to the helper each, and as many for the pool.
const QUEUES_MAX: i64 = 32;

/// Lets a virtual machine use a host directory.
#[derive(Parser, Debug)]
#[command(name = "postern-server", version, about, max_term_width = 100)]
pub struct Cli {
    /// What the guest speaks
    #[command(subcommand)]
    pub frontend: Frontend,
}

/// The protocols served.
#[derive(Subcommand, Debug)]
pub enum Frontend {
    /// A vhost-user-fs device: the guest mounts it with `mount -t virtiofs TAG DIR`
    Virtiofs(Box<Virtiofs>),
    /// A vhost-user virtio-9p device: the guest mounts it with `mount -t 9p -o trans=virtio,version=9p2000.L TAG DIR`
    #[command(name = "9p")]
    P9(Box<P9>),
    /// The other end of QEMU's `-fsdev proxy` (up to QEMU 9.1): the guest mounts it with `mount -t 9p TAG DIR`
    Proxy(Box<Proxy>),
}

/// Everything `postern-server virtiofs` can be told.
#[derive(Args, Debug)]
pub struct Virtiofs {
    /// Where the VMM comes from
    #[command(flatten)]
    pub socket: SocketArgs,
    /// What the VMM finds
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Which directory
    #[command(flatten)]
    pub share: ShareArgs,
    /// What the guest is told
    #[command(flatten)]
    pub guest: GuestArgs,
    /// Mounts below the share: apart, as --announce-submounts says, or one of these
    #[arg(long, value_enum, help_heading = "The guest")]
    pub multidevs: Option<MultidevsArg>,
    /// Who does the work
    #[command(flatten)]
    pub threads: ThreadArgs,
    /// How it runs
    #[command(flatten)]
    pub process: ProcessArgs,
}

/// Everything `postern-server 9p` can be told.
#[derive(Args, Debug)]
pub struct P9 {
    /// Where guests come from
    #[command(flatten)]
    pub way: P9WayArgs,
    /// Which directory
    #[command(flatten)]
    pub share: ShareArgs,
    /// What the guest is told
    #[command(flatten)]
    pub guest: P9GuestArgs,
    /// Who does the work
    #[command(flatten)]
    pub threads: ThreadArgs,
    /// How it runs
    #[command(flatten)]
    pub process: ProcessArgs,
}

/// Everything `postern-server proxy` can be told.
#[derive(Args, Debug)]
pub struct Proxy {
    /// Where QEMU comes from
    #[command(flatten)]
    pub socket: SocketArgs,
    /// Which directory
    #[command(flatten)]
    pub share: ShareArgs,
    /// Mounts below the share
    #[arg(long, value_enum, default_value_t, help_heading = "The guest")]
    pub multidevs: MultidevsArg,
    /// How it runs
    #[command(flatten)]
    pub process: ProcessArgs,
}

/// Where the VMM comes from.
#[derive(Args, Debug)]
#[command(next_help_heading = "The VMM")]
pub struct SocketArgs {
    /// Listen there for a VMM (QEMU: -chardev socket,path=PATH; -fsdev proxy,socket=PATH)
    #[arg(long, value_name = "PATH", required_unless_present = "fd")]
    pub socket_path: Option<PathBuf>,
    /// Take VMMs from this descriptor: a listening or a connected Unix stream socket
    #[arg(long, value_name = "N", conflicts_with_all =
        ["socket_path", "socket_user", "socket_group"])]
    pub fd: Option<RawFd>,
    /// This user may connect to --socket-path
    #[arg(long, value_name = "USER")]
    pub socket_user: Option<String>,
    /// Members of this group may connect to --socket-path
    #[arg(long, value_name = "GROUP")]
    pub socket_group: Option<String>,
}

/// What the VMM finds.
#[derive(Args, Debug)]
#[command(next_help_heading = "The device")]
pub struct DeviceArgs {
    /// End when the VMM disconnects, instead of waiting for the next
    #[arg(long)]
    pub once: bool,
    /// Give the device a config space of its own with this tag, for VMMs that have none (not for QEMU 7.1 to 8.0)
    #[arg(long, value_name = "TAG", value_parser = tag)]
    pub tag: Option<String>,
    /// Request queues, each with a thread here and one in the helper; the VMM may use fewer
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=QUEUES_MAX))]
    pub num_request_queues: u16,
}

/// Where guests come from: by a VMM, or on a stream.
#[derive(Args, Debug)]
#[command(next_help_heading = "The way to the guest", group = ArgGroup::new("way").required(true))]
pub struct P9WayArgs {
    /// Be a vhost-user device: listen there for a VMM (QEMU: -chardev socket,path=PATH)
    #[arg(long, value_name = "PATH", group = "way", requires = "tag")]
    pub socket_path: Option<PathBuf>,
    /// Be a vhost-user device: take VMMs from this descriptor, a listening or a connected Unix stream socket
    #[arg(long, value_name = "N", group = "way", requires = "tag", conflicts_with_all = ["socket_user", "socket_group"])]
    pub fd: Option<RawFd>,
    /// Listen there for clients that speak 9P on a stream (`mount -t 9p -o trans=unix PATH DIR`)
    #[arg(long, value_name = "unix:PATH", group = "way", value_parser = unix_path, conflicts_with = "poll_us")]
    pub listen: Option<PathBuf>,
    /// Serve the client at the other end of this connected stream socket
    #[arg(long, value_name = "N", group = "way", conflicts_with_all = ["socket_user", "socket_group", "poll_us"])]
    pub stream_fd: Option<RawFd>,
    /// Serve the client at the standard input and output
    #[arg(long, group = "way", conflicts_with_all = ["socket_user", "socket_group", "poll_us", "explain"])]
    pub stdio: bool,
    /// This user may connect to --socket-path or --listen
    #[arg(long, value_name = "USER")]
    pub socket_user: Option<String>,
    /// Members of this group may connect to --socket-path or --listen
    #[arg(long, value_name = "GROUP")]
    pub socket_group: Option<String>,
    /// The tag by which the guest finds the device
    #[arg(long, value_name = "TAG", value_parser = p9_tag, conflicts_with_all = STREAMS)]
    pub tag: Option<String>,
    /// End when the VMM disconnects, instead of waiting for the next
    #[arg(long, conflicts_with_all = STREAMS)]
    pub once: bool,
    /// Clients served at once by --listen; others wait
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=QUEUES_MAX),
        conflicts_with_all = ["socket_path", "fd", "stream_fd", "stdio"])]
    pub clients: u16,
    /// A client on a stream is a guest's kernel, which judges itself what its users may do
    #[arg(long, conflicts_with_all = ["socket_path", "fd"])]
    pub trust_client: bool,
    /// Clients on a stream act as this user, of this group [default: the one of the same number]; may be repeated
    /// [default: as any user]
    #[arg(long, value_name = "UID[:GID]", value_parser = user, conflicts_with_all = ["socket_path", "fd", "trust_client"])]
    pub attach_as: Vec<p9::User>,
}

/// Ways without a VMM.
const STREAMS: [&str; 3] = ["listen", "stream_fd", "stdio"];

/// What a policy decides, or a helper that is there already has been told.
const DECIDED: [&str; 11] = [
    "sock_fd",
    "uid_map",
    "gid_map",
    "translate_uid",
    "translate_gid",
    "identity",
    "allow_setid",
    "allow_devices",
    "mknod",
    "modcaps",
    "max_rate",
];

/// Which directory is shared and how: told to the helper, or known to it already.
#[derive(Args, Debug)]
#[command(next_help_heading = "The share")]
#[allow(clippy::struct_excessive_bools, reason = "each is an option")]
pub struct ShareArgs {
    /// Share this directory: starts a helper for it
    #[arg(long, value_name = "DIR", required_unless_present = "sock_fd")]
    pub shared_dir: Option<PathBuf>,
    /// A helper is at the other end of this socket already; it knows the directory and what is allowed
    #[arg(long, value_name = "N", conflicts_with_all =
        ["shared_dir", "helper", "by_policy", "uid_map", "gid_map", "translate_uid", "translate_gid", "identity", "readonly",
         "security_model", "fmode", "dmode", "xattrmap", "allow_setid", "allow_devices", "mknod", "modcaps", "max_rate"])]
    pub sock_fd: Option<RawFd>,
    /// A helper of root's is behind this socket; it shares what the host's policy lets this user, with his ids
    #[arg(long, value_name = "PATH", requires = "shared_dir", conflicts_with = "helper", conflicts_with_all = DECIDED)]
    pub helper_socket: Option<PathBuf>,
    /// The helper has capabilities of its file's, and is started for this user; it shares what the host's policy lets him,
    /// with his ids
    #[arg(long, requires = "shared_dir", conflicts_with = "helper_socket", conflicts_with_all = DECIDED)]
    pub by_policy: bool,
    /// The helper's program [default: postern-helper beside this one, else in libexec]
    #[arg(long, value_name = "PATH")]
    pub helper: Option<PathBuf>,
    /// Ids of the guest and the host's they stand for, `:GUEST:HOST:COUNT:`; may be repeated
    #[arg(long, value_name = "MAP")]
    pub uid_map: Vec<String>,
    /// The same for groups
    #[arg(long, value_name = "MAP")]
    pub gid_map: Vec<String>,
    /// User ids of the guest that are others in the share, or are shown as others: `guest:GUEST:HOST:COUNT`, `host:HOST:GUEST:COUNT`,
    /// `squash-guest:GUEST:HOST:COUNT`, `squash-host:HOST:GUEST:COUNT`, `forbid-guest:GUEST:COUNT` or
    /// `map:GUEST:HOST:COUNT`; may be repeated
    #[arg(long, value_name = "RANGE")]
    pub translate_uid: Vec<String>,
    /// The same for groups
    #[arg(long, value_name = "RANGE")]
    pub translate_gid: Vec<String>,
    /// `userns`: the guest's ids are mapped by a user namespace; `soft`: by the helper, without one; `host`: guest root is
    /// the host's root
    #[arg(long, value_name = "FORM")]
    pub identity: Option<String>,
    /// Nothing of the share may be changed
    #[arg(long)]
    pub readonly: bool,
    /// Where the guest's ownership and modes are kept: passthrough (in the host's inodes), none, mapped-xattr (or mapped),
    /// mapped-links, mapped-file
    #[arg(long, value_name = "MODEL")]
    pub security_model: Option<String>,
    /// Permission bits of the host's files with mapped-xattr and mapped-file, octal [default: 600]
    #[arg(long, value_name = "MODE")]
    pub fmode: Option<String>,
    /// The same for directories [default: 700]
    #[arg(long, value_name = "MODE")]
    pub dmode: Option<String>,
    /// What the guest's extended attributes are called on the host: `guest`, or rules :TYPE:SCOPE:KEY:PREPEND:; implies --xattr
    #[arg(long, value_name = "MAP")]
    pub xattrmap: Option<String>,
    /// Set-id files of the guest may take effect on the host
    #[arg(long)]
    pub allow_setid: bool,
    /// Device nodes of the guest may take effect on the host
    #[arg(long)]
    pub allow_devices: bool,
    /// Nodes that the guest may make besides files, directories and links: fifo, socket, whiteout, device, with commas
    /// between, or none [default: all]
    #[arg(long, value_name = "KINDS")]
    pub mknod: Option<String>,
    /// Capabilities that the helper keeps or does without, such as +sys_admin:-fsetid
    #[arg(long, value_name = "+NAME|-NAME[:...]", allow_hyphen_values = true)]
    pub modcaps: Option<String>,
    /// Most requests a second that the helper does on each of its channels [default: as many as it can]
    #[arg(long, value_name = "N")]
    pub max_rate: Option<String>,
}

/// What the guest is told about the share.
#[derive(Args, Debug)]
#[command(next_help_heading = "The guest")]
#[allow(clippy::struct_excessive_bools, reason = "each is an option")]
pub struct GuestArgs {
    /// How far the guest may trust its own memory of the share
    #[arg(long, value_enum, default_value_t)]
    pub cache: CacheArg,
    /// Seconds for which a name is remembered [default: by --cache]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub entry_timeout: Option<Duration>,
    /// Seconds for which attributes are remembered [default: by --cache]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub attr_timeout: Option<Duration>,
    /// Seconds for which it is remembered that a name is not there [default: 0]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub negative_timeout: Option<Duration>,
    /// Shared mappings of files work although --cache=never or metadata keeps their data out of the guest's cache
    #[arg(long)]
    pub allow_mmap: bool,
    /// O_DIRECT of the guest reaches the host
    #[arg(long)]
    pub allow_direct_io: bool,
    /// O_NOATIME of the guest reaches the host
    #[arg(long)]
    pub preserve_noatime: bool,
    /// The guest may collect writes
    #[arg(long)]
    pub writeback: bool,
    /// What the guest writes is on its way to the disk before the write returns
    #[arg(long, value_enum, value_name = "WHEN")]
    pub writeout: Option<WriteoutArg>,
    /// The guest reads directories by names only
    #[arg(long)]
    pub no_readdirplus: bool,
    /// Mounts below the share are file systems of their own in the guest (the default)
    #[arg(long, overrides_with = "no_announce_submounts")]
    pub announce_submounts: bool,
    /// Mounts below the share are directories like others
    #[arg(long, overrides_with = "announce_submounts")]
    pub no_announce_submounts: bool,
    /// Extended attributes
    #[arg(long)]
    pub xattr: bool,
    /// POSIX ACLs; implies --xattr
    #[arg(long)]
    pub posix_acl: bool,
    /// New files get the label that a security module of the guest wants (SELinux); implies --xattr
    #[arg(long)]
    pub security_label: bool,
    /// The guest clears set-id bits itself, with a request of its own before each write that needs it
    #[arg(long)]
    pub no_killpriv_v2: bool,
}

/// What a 9P guest is told about the share.
#[derive(Args, Debug)]
#[command(next_help_heading = "The guest")]
pub struct P9GuestArgs {
    /// Most bytes of a message, whatever the guest asks for with `-o msize=`
    #[arg(long, value_name = "BYTES", default_value_t = p9::MSIZE_MAX, value_parser =
        clap::value_parser!(u32).range(i64::from(p9::MSIZE_MIN)..=i64::from(p9::MSIZE_MAX)))]
    pub msize_max: u32,
    /// Mounts below the share
    #[arg(long, value_enum, default_value_t)]
    pub multidevs: MultidevsArg,
    /// What the guest writes is on its way to the disk before the write returns
    #[arg(long, value_enum, value_name = "WHEN")]
    pub writeout: Option<WriteoutArg>,
    /// Extended attributes
    #[arg(long)]
    pub xattr: bool,
    /// POSIX ACLs; implies --xattr
    #[arg(long)]
    pub posix_acl: bool,
    /// Most fids that all clients may have at once; each takes some 150 bytes here
    #[arg(long, value_name = "N", default_value_t = 1 << 20, value_parser = clap::value_parser!(u32).range(1024..),
        help_heading = "The process")]
    pub max_fids: u32,
}

impl P9GuestArgs {
    /// How the share is shown and written.
    pub fn tree(&self) -> tree::Settings {
        tree::Settings { multidevs: self.multidevs.into(), writeout: self.writeout.into(), alone: false }
    }
}

impl P9 {
    /// As the frontend takes them.
    pub fn settings(&self) -> p9::Settings {
        let P9GuestArgs { msize_max, xattr, posix_acl, max_fids, .. } = self.guest;
        p9::Settings {
            msize: msize_max,
            xattr: xattr || posix_acl || self.share.xattrmap.is_some(),
            posix_acl,
            fids: usize::try_from(max_fids).unwrap_or(usize::MAX),
        }
    }
}

/// Who does the work.
#[derive(Args, Debug)]
#[command(next_help_heading = "The process")]
pub struct ThreadArgs {
    /// Threads for requests that may wait for a disk; with 0 they hold up the others of their queue
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(0..=QUEUES_MAX))]
    pub thread_pool_size: u16,
    /// Microseconds that a queue's thread looks for the next request before it sleeps, where that pays; 0 for never
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(0..=1000))]
    pub poll_us: u64,
}

/// How the process runs.
#[derive(Args, Debug)]
#[command(next_help_heading = "The process")]
pub struct ProcessArgs {
    /// Most descriptors open at once: an eighth for locks, the rest for nodes and open files by halves
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(256..))]
    pub rlimit_nofile: u64,
    /// Most files that guests may know at once; each takes some 170 bytes here, as long as a guest remembers it
    #[arg(long, value_name = "N", default_value_t = 1 << 23, value_parser = clap::value_parser!(u64).range(1024..))]
    pub max_nodes: u64,
    /// Become this user when started by root: one that owns nothing in the share
    #[arg(long, value_name = "USER", default_value = "nobody")]
    pub user: String,
    /// What is logged: off, error, warn, info, debug (a line per request), trace
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log_level: LevelFilter,
    /// Log to syslog instead of the standard error output
    #[arg(long)]
    pub syslog: bool,
    /// Keep figures of requests, and tell them to who connects there (postern stat PATH)
    #[arg(long, value_name = "PATH")]
    pub stats_socket: Option<PathBuf>,
    /// Say on the standard output what confines each process (postern explain asks for it)
    #[arg(long)]
    pub explain: bool,
    /// What becomes of a process that makes a system call it has no use for: kill, log, none
    #[arg(long, value_name = "MODE", default_value_t)]
    pub seccomp: seccomp::Mode,
    /// Serve although the kernel has no Landlock
    #[arg(long)]
    pub no_landlock: bool,
}

/// `--cache`
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum CacheArg {
    /// Names and attributes for a second, data until the file has changed
    #[default]
    Auto,
    /// Everything: for a share that only this guest changes
    Always,
    /// Nothing
    Never,
    /// Names and attributes, but no data
    Metadata,
}

impl From<CacheArg> for Cache {
    fn from(cache: CacheArg) -> Self {
        match cache {
            CacheArg::Auto => Self::Auto,
            CacheArg::Always => Self::Always,
            CacheArg::Never => Self::Never,
            CacheArg::Metadata => Self::Metadata,
        }
    }
}

/// `--multidevs`, as QEMU has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum MultidevsArg {
    /// Directories like others; no two inode numbers are equal
    #[default]
    Remap,
    /// Not there
    Forbid,
    /// Directories like others; inode numbers may be equal, which is said once
    Warn,
}

impl From<MultidevsArg> for Multidevs {
    fn from(arg: MultidevsArg) -> Self {
        match arg {
            MultidevsArg::Remap => Self::Remap,
            MultidevsArg::Forbid => Self::Forbid,
            MultidevsArg::Warn => Self::Warn,
        }
    }
}

/// `--writeout`, as QEMU has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum WriteoutArg {
    /// At once
    Immediate,
}

impl From<Option<WriteoutArg>> for Writeout {
    fn from(arg: Option<WriteoutArg>) -> Self {
        match arg {
            Some(WriteoutArg::Immediate) => Self::Immediate,
            None => Self::Later,
        }
    }
}

impl P9WayArgs {
    /// Where VMMs come from.
    pub fn vmm(&self) -> SocketArgs {
        let Self { socket_path, fd, socket_user, socket_group, .. } = self;
        SocketArgs {
            socket_path: socket_path.clone(),
            fd: *fd,
            socket_user: socket_user.clone(),
            socket_group: socket_group.clone(),
        }
    }

    /// It is a stream, and not a VMM that stands between.
    pub fn is_stream(&self) -> bool {
        self.listen.is_some() || self.stream_fd.is_some() || self.stdio
    }

    /// As whom clients on a stream act. The host's root has to be named where it is the share's.
    pub fn users(&self, root: Root) -> p9::Users {
        if self.trust_client {
            return p9::Users::Judged;
        }
        p9::Users::Alone { named: self.attach_as.as_slice().into(), root: root != Root::Host }
    }
}

impl Proxy {
    /// How the share is shown; QEMU writes itself.
    pub fn tree(&self) -> tree::Settings {
        tree::Settings { multidevs: self.multidevs.into(), ..tree::Settings::default() }
    }
}

impl Virtiofs {
    /// How the share is shown and written.
    ///
    /// # Errors
    /// If mounts below it are to be both announced and no file systems of their own.
    pub fn tree(&self) -> Result<tree::Settings, Fatal> {
        Ok(tree::Settings { multidevs: self.multidevs()?, writeout: self.guest.writeout.into(), alone: false })
    }

    fn multidevs(&self) -> Result<Multidevs, Fatal> {
        match self.multidevs {
            Some(MultidevsArg::Remap | MultidevsArg::Warn) if self.guest.announce_submounts => {
                Err(Fatal::new("make mounts directories like others (--multidevs)", "they are to be announced, too")
                    .hint("leave --announce-submounts out"))
            }
            Some(policy) => Ok(policy.into()),
            None if self.guest.no_announce_submounts => Ok(Multidevs::Remap),
            None => Ok(Multidevs::Apart),
        }
    }

    /// As the frontend takes them.
    pub fn settings(&self) -> Settings {
        let settings = self.guest.settings();
        Settings {
            announce_submounts: settings.announce_submounts && self.multidevs.is_none(),
            xattr: settings.xattr || self.share.xattrmap.is_some(),
            ..settings
        }
    }
}

impl GuestArgs {
    fn settings(&self) -> Settings {
        let cache = Cache::from(self.cache);
        Settings {
            cache,
            entry_timeout: self.entry_timeout.unwrap_or(cache.timeout()),
            attr_timeout: self.attr_timeout.unwrap_or(cache.timeout()),
            negative_timeout: self.negative_timeout.unwrap_or_default(),
            allow_mmap: self.allow_mmap,
            allow_direct_io: self.allow_direct_io,
            writeback: self.writeback,
            readdirplus: !self.no_readdirplus,
            announce_submounts: !self.no_announce_submounts,
            xattr: self.xattr || self.posix_acl || self.security_label,
            posix_acl: self.posix_acl,
            security_label: self.security_label,
            preserve_noatime: self.preserve_noatime,
            killpriv_v2: !self.no_killpriv_v2,
        }
    }
}

fn tag(text: &str) -> Result<String, String> {
    tag_of(text, crate::fuse::TAG_MAX)
}

fn p9_tag(text: &str) -> Result<String, String> {
    tag_of(text, p9::TAG_MAX)
}

fn unix_path(text: &str) -> Result<PathBuf, String> {
    let path = text.strip_prefix("unix:").filter(|path| !path.is_empty());
    path.map(PathBuf::from).ok_or_else(|| "must be unix: and a path".into())
}

/// `UID` or `UID:GID`.
fn user(text: &str) -> Result<p9::User, String> {
    let (uid, gid) = text.split_once(':').unwrap_or((text, text));
    let id = |text: &str| text.parse().ok().filter(|&id| id != u32::MAX).ok_or_else(|| format!("{text:?} is no id"));
    Ok(p9::User { uid: id(uid)?, gid: id(gid)? })
}

fn tag_of(text: &str, most: usize) -> Result<String, String> {
    if (1..=most).contains(&text.len()) { Ok(text.into()) } else { Err(format!("must have 1 to {most} bytes")) }
}

fn seconds(text: &str) -> Result<Duration, String> {
    text.parse().ok().and_then(|s| Duration::try_from_secs_f64(s).ok()).ok_or_else(|| "not a number of seconds".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Virtiofs, clap::Error> {
        let all = ["postern-server", "virtiofs"].iter().chain(args);
        Cli::try_parse_from(all).map(|cli| match cli.frontend {
            Frontend::Virtiofs(virtiofs) => *virtiofs,
            Frontend::P9(_) | Frontend::Proxy(_) => panic!("another frontend"),
        })
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn what_the_helper_decides_is_refused_with_a_helper_already_there() {
        assert!(parse(&["--sock-fd=3", "--fd=4"]).is_ok());
        for more in ["--readonly", "--shared-dir=/x", "--uid-map=:0:1:1:", "--xattrmap=guest", "--allow-setid"] {
            assert!(parse(&["--sock-fd=3", "--fd=4", more]).is_err(), "{more}");
        }
    }

    #[test]
    fn what_the_policy_decides_is_refused_with_a_helper_of_roots() {
        let asked = ["--helper-socket=/s", "--fd=4", "--shared-dir=/x", "--readonly", "--security-model=mapped"];
        assert!(parse(&asked).is_ok());
        assert!(parse(&asked[..2]).is_err());
        for more in [
            "--sock-fd=3",
            "--helper=/x",
            "--uid-map=:0:1:1:",
            "--identity=host",
            "--translate-uid=map:0:1:1",
            "--allow-setid",
            "--max-rate=9",
        ] {
            assert!(parse(&[&asked[..], &[more]].concat()).is_err(), "{more}");
        }
    }

    #[test]
    fn a_directory_or_a_helper_and_a_socket_are_needed() {
        assert!(parse(&["--socket-path=s"]).is_err());
        assert!(parse(&["--shared-dir=/x"]).is_err());
        assert!(parse(&["--shared-dir=/x", "--fd=3", "--socket-path=s"]).is_err());
    }

    #[test]
    fn a_9p_device_has_a_tag_and_no_option_that_means_nothing_to_it() {
        let parse = |args: &[&str]| {
            let all = ["postern-server", "9p", "--shared-dir=/x", "--fd=3"].iter().chain(args);
            Cli::try_parse_from(all)
        };
        assert!(parse(&["--tag=share", "--msize-max=512000", "--xattr", "--once"]).is_ok());
        assert!(parse(&[]).is_err());
        for more in
            ["--cache=always", "--writeback", "--num-request-queues=2", "--msize-max=4095", "--announce-submounts"]
        {
            assert!(parse(&["--tag=share", more]).is_err(), "{more}");
        }
    }

    #[test]
    fn timeouts_follow_the_cache_policy_unless_given() {
        let args = parse(&["--shared-dir=/x", "--fd=3", "--cache=always", "--attr-timeout=0.5"]).unwrap();
        let settings = args.settings();
        assert_eq!(settings.entry_timeout, Duration::from_secs(86_400));
        assert_eq!(settings.attr_timeout, Duration::from_millis(500));
        assert!(parse(&["--shared-dir=/x", "--fd=3", "--attr-timeout=-1"]).is_err());
    }
}
