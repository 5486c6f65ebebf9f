//! `postern-server 9p`.

use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::{ArgGroup, Args};
use postern_ipc::hello::Root;

use super::value::{MultidevsArg, WriteoutArg, tag_of};
use super::{ProcessArgs, QUEUES_MAX, ShareArgs, SocketArgs, ThreadArgs};
use crate::fs::tree;
use crate::p9;

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
    #[arg(long, value_name = "unix:PATH", group = "way", value_parser = unix_path)]
    pub listen: Option<PathBuf>,
    /// Serve the client at the other end of this connected stream socket
    #[arg(long, value_name = "N", group = "way", conflicts_with_all = ["socket_user", "socket_group"])]
    pub stream_fd: Option<RawFd>,
    /// Serve the client at the standard input and output
    #[arg(long, group = "way", conflicts_with_all = ["socket_user", "socket_group", "explain"])]
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
