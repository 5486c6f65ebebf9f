//! The command line of `postern-server`. Option names follow virtiofsd where it has one.

mod guest;
mod p9;
mod share;
#[cfg(test)]
mod tests;
mod value;

use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use log::LevelFilter;
use postern_policy::fatal::Fatal;
use postern_policy::limit::LEAST_DESCRIPTORS;
use postern_policy::sandbox::seccomp;

pub use self::guest::GuestArgs;
pub use self::p9::{P9, P9GuestArgs, P9WayArgs};
pub use self::share::ShareArgs;
pub use self::value::{CacheArg, MultidevsArg, WriteoutArg};
use crate::fs::{Multidevs, tree};
use crate::fuse::Settings;

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
    /// Request queues; the VMM may use fewer
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=QUEUES_MAX))]
    pub num_request_queues: u16,
    /// Threads that serve the queues, each with one in the helper [default: one for each queue, or for each CPU if those
    /// are fewer]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=QUEUES_MAX))]
    pub queue_threads: Option<u16>,
}

/// Who does the work.
#[derive(Args, Debug)]
#[command(next_help_heading = "The process")]
pub struct ThreadArgs {
    /// Threads for requests that may wait for a disk; with 0 they hold up the others of their queue
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(0..=QUEUES_MAX))]
    pub thread_pool_size: u16,
}

/// How the process runs.
#[derive(Args, Debug)]
#[command(next_help_heading = "The process")]
pub struct ProcessArgs {
    /// Microseconds that a thread looks for the next request, or for an answer of the helper, before it sleeps, where
    /// that pays; 0 for never
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(0..=1000))]
    pub poll_us: u64,
    /// Most descriptors open at once: an eighth for locks, some for files kept open, the rest for nodes and open files by
    /// halves
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(LEAST_DESCRIPTORS..))]
    pub rlimit_nofile: u64,
    /// Most files that guests may know at once; each takes some 150 bytes here, as long as a guest remembers it
    #[arg(long, value_name = "N", default_value_t = 1 << 23, value_parser = clap::value_parser!(u64).range(1024..))]
    pub max_nodes: u64,
    /// Most files or directories opened with one the guest asks for, if it opens them in the order listed; 0 for none
    #[arg(long, value_name = "N", default_value_t = tree::AHEAD_MAX, value_parser = clap::value_parser!(u8).range(0..=i64::from(tree::AHEAD_MAX)))]
    pub open_ahead: u8,
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

fn tag(text: &str) -> Result<String, String> {
    value::tag_of(text, crate::fuse::TAG_MAX)
}
