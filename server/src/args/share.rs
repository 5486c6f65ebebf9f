//! Which directory is shared and how.

use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::Args;

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
    /// The helper has capabilities of its file's, and is started for this user; it shares what the host's policy lets
    /// him, with his ids
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
    /// User ids of the guest that are others in the share, or are shown as others: `guest:GUEST:HOST:COUNT`,
    /// `host:HOST:GUEST:COUNT`, `squash-guest:GUEST:HOST:COUNT`, `squash-host:HOST:GUEST:COUNT`,
    /// `forbid-guest:GUEST:COUNT` or `map:GUEST:HOST:COUNT`; may be repeated
    #[arg(long, value_name = "RANGE")]
    pub translate_uid: Vec<String>,
    /// The same for groups
    #[arg(long, value_name = "RANGE")]
    pub translate_gid: Vec<String>,
    /// `userns`: the guest's ids are mapped by a user namespace; `soft`: by the helper, without one; `host`: guest root
    /// is the host's root
    #[arg(long, value_name = "FORM")]
    pub identity: Option<String>,
    /// Nothing of the share may be changed
    #[arg(long)]
    pub readonly: bool,
    /// Where the guest's ownership and modes are kept: passthrough (in the host's inodes), none, mapped-xattr (or
    /// mapped), mapped-links, mapped-file
    #[arg(long, value_name = "MODEL")]
    pub security_model: Option<String>,
    /// Permission bits of the host's files with mapped-xattr and mapped-file, octal [default: 600]
    #[arg(long, value_name = "MODE")]
    pub fmode: Option<String>,
    /// The same for directories [default: 700]
    #[arg(long, value_name = "MODE")]
    pub dmode: Option<String>,
    /// What the guest's extended attributes are called on the host: `guest`, or rules :TYPE:SCOPE:KEY:PREPEND:; implies
    /// --xattr
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
