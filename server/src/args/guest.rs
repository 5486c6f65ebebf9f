//! What a virtio-fs guest is told.

use std::time::Duration;

use clap::Args;

use super::value::{CacheArg, WriteoutArg};
use crate::fuse::{Cache, Settings};

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

impl GuestArgs {
    pub(super) fn settings(&self) -> Settings {
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

fn seconds(text: &str) -> Result<Duration, String> {
    text.parse().ok().and_then(|s| Duration::try_from_secs_f64(s).ok()).ok_or_else(|| "not a number of seconds".into())
}
