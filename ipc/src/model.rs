//! The security models: where the guest's ownership and modes are kept. Names and formats are those of QEMU's 9p.

use serde::{Deserialize, Serialize};

/// Directory of the attributes that [`Model::MappedFile`] keeps of the other entries of the same directory.
pub const METADATA: &std::ffi::CStr = c".virtfs_metadata";
/// File of those of the share's root.
pub const METADATA_OF_ROOT: &std::ffi::CStr = c".virtfs_metadata_root";

/// Where the guest's ownership and modes are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Model {
    /// In the host's inodes.
    #[default]
    Passthrough,
    /// In the host's inodes as far as they can be had; an owner that cannot is not missed.
    None,
    /// In `user.virtfs.*` attributes of files and directories that are the helper's own.
    MappedXattr,
    /// The same, but symbolic links and permission bits are real where the host can.
    MappedLinks,
    /// In files of a directory beside.
    MappedFile,
}

impl Model {
    /// Attributes are the helper's to tell: those of the host's inodes are not the guest's.
    pub fn is_mapped(self) -> bool {
        matches!(self, Self::MappedXattr | Self::MappedLinks | Self::MappedFile)
    }

    /// They are kept by name: without its name, a node has none.
    pub fn keeps_by_name(self) -> bool {
        self == Self::MappedFile
    }

    /// Such a name is the model's own, and none of the guest's.
    pub fn hides(self, name: &[u8]) -> bool {
        self == Self::MappedFile && (name == METADATA.to_bytes() || name == METADATA_OF_ROOT.to_bytes())
    }
}

/// Whose kernel knows an extended attribute of the guest's for what it is, and acts by it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum KnownTo {
    /// The host's, too: it is on the host's inode under its own name.
    Host,
    /// The guest's only: it is kept under another name.
    Guest,
    /// Nobody's: the guest can have none.
    Nobody,
}

/// As on the command line.
const NAMES: [(&str, Model); 6] = [
    ("passthrough", Model::Passthrough),
    ("none", Model::None),
    ("mapped-xattr", Model::MappedXattr),
    ("mapped-links", Model::MappedLinks),
    ("mapped-file", Model::MappedFile),
    ("mapped", Model::MappedXattr),
];

impl std::fmt::Display for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(NAMES.iter().find(|(_, model)| model == self).map_or("", |(name, _)| name))
    }
}

impl std::str::FromStr for Model {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = NAMES.iter().find(|(name, _)| *name == text).map(|(_, model)| *model);
        found.ok_or("is none of passthrough, none, mapped-xattr (mapped), mapped-links, mapped-file")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_two_names_that_hold_metadata_are_hidden() {
        for name in [&b".virtfs_metadata"[..], b".virtfs_metadata_root"] {
            assert!(Model::MappedFile.hides(name) && !Model::MappedXattr.hides(name));
        }
        assert!(!Model::MappedFile.hides(b".virtfs_metadata_") && !Model::MappedFile.hides(b"virtfs_metadata"));
    }

    #[test]
    fn a_model_has_the_name_that_is_understood() {
        for (_, model) in NAMES {
            assert_eq!(model.to_string().parse(), Ok(model));
        }
        assert!("".parse::<Model>().is_err());
    }
}
