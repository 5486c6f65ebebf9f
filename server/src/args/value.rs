//! Words that stand for something, and texts that must be more than texts.

use clap::ValueEnum;

use crate::fs::{Multidevs, Writeout};
use crate::fuse::Cache;

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

/// A name of 1 to `most` bytes by which a guest finds a device.
pub(super) fn tag_of(text: &str, most: usize) -> Result<String, String> {
    if (1..=most).contains(&text.len()) { Ok(text.into()) } else { Err(format!("must have 1 to {most} bytes")) }
}
