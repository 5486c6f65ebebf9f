//! Names from outside. Each type has one constructor; whatever holds it has been checked.

use std::ffi::CStr;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::errno::{Errno, Result};
use crate::few::EACH_MAX;

/// Longest file name and xattr name in bytes. limits.h: NAME_MAX, XATTR_NAME_MAX
pub const NAME_MAX: usize = 255;
/// Longest target of a symbolic link in bytes, without its NUL. limits.h: PATH_MAX
pub const TARGET_MAX: usize = 4095;

/// Up to 255 bytes without a NUL, held inline so that a name costs no allocation.
#[derive(Clone, Copy)]
struct Short {
    len: u8,
    bytes: [u8; NAME_MAX + 1],
}

impl Short {
    /// Of 1 to 255 bytes without a NUL.
    fn new(name: &[u8]) -> Result<Self> {
        let (Ok(len @ 1..), false) = (u8::try_from(name.len()), name.contains(&0)) else { return Err(Errno::EINVAL) };
        let mut short = Self { len, bytes: [0; NAME_MAX + 1] };
        short.bytes.iter_mut().zip(name).for_each(|(to, from)| *to = *from);
        Ok(short)
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident: $check:expr;)*) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub struct $name(Short);

        impl $name {
            /// The only way in.
            ///
            /// # Errors
            /// As the type's description says.
            #[inline(always)] // in its place: to copy all 256 bytes of each was 7 % of READDIRPLUS
            pub fn new(name: &[u8]) -> Result<Self> {
                let check: fn(&[u8]) -> Result<()> = $check;
                check(name)?;
                Ok(Self(Short::new(name)?))
            }

            /// Without the NUL.
            pub fn as_bytes(&self) -> &[u8] {
                self.0.as_bytes()
            }

            /// For system calls.
            pub fn as_c_str(&self) -> &CStr {
                self.0.as_c_str()
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.as_bytes() == other.as_bytes()
            }
        }

        impl Eq for $name {}

        /// Quoted and escaped, fit for a log line.
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "\"{}\"", self.as_bytes().escape_ascii())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
                serializer.serialize_bytes(self.as_bytes())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
                let bytes: &[u8] = Deserialize::deserialize(deserializer)?;
                Self::new(bytes).map_err(|_| D::Error::custom(concat!("bad ", stringify!($name))))
            }
        }
    )* };
}

names! {
    /// One component of a path: 1 to 255 bytes, no '/' and no NUL (EINVAL), not "." or "..". Longer is ENAMETOOLONG,
    /// empty is ENOENT, as path_resolution(7) has it.
    FileName: |name| match name {
        b"" => Err(Errno::ENOENT),
        b"." | b".." => Err(Errno::EINVAL),
        _ if name.len() > NAME_MAX => Err(Errno::ENAMETOOLONG),
        _ if name.contains(&b'/') => Err(Errno::EINVAL),
        _ => Ok(()),
    };
    /// The name of an extended attribute with its namespace: 1 to 255 bytes without NUL; otherwise ERANGE. xattr(7)
    XattrName: |name| if (1..=NAME_MAX).contains(&name.len()) { Ok(()) } else { Err(Errno::ERANGE) };
}

/// Names in one directory, 1 to [`EACH_MAX`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "Vec<FileName>", into = "Vec<FileName>")]
pub struct Names(Vec<FileName>);

impl Names {
    /// In the order in which they are to be taken.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &FileName> {
        self.0.iter()
    }
}

impl TryFrom<Vec<FileName>> for Names {
    type Error = &'static str;

    fn try_from(names: Vec<FileName>) -> std::result::Result<Self, Self::Error> {
        if (1..=EACH_MAX).contains(&names.len()) { Ok(Self(names)) } else { Err("no names, or too many") }
    }
}

impl From<Names> for Vec<FileName> {
    fn from(names: Names) -> Self {
        names.0
    }
}

/// What a symbolic link says: 1 to 4095 bytes, no NUL. The helper stores it and never follows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Target(std::ffi::CString);

impl Target {
    /// The only way in: empty is ENOENT, longer than PATH_MAX ENAMETOOLONG, with a NUL EINVAL. symlink(2)
    ///
    /// # Errors
    /// As said above.
    pub fn new(target: &[u8]) -> Result<Self> {
        match target.len() {
            0 => Err(Errno::ENOENT),
            1..=TARGET_MAX => std::ffi::CString::new(target).map(Self).map_err(|_| Errno::EINVAL),
            _ => Err(Errno::ENAMETOOLONG),
        }
    }

    /// For system calls.
    pub fn as_c_str(&self) -> &CStr {
        &self.0
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.as_bytes().escape_ascii())
    }
}

impl Serialize for Target {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0.as_bytes())
    }
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let bytes: &[u8] = Deserialize::deserialize(deserializer)?;
        Self::new(bytes).map_err(|_| D::Error::custom("bad Target"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // path_resolution(7); CVE-2016-7116: names of the guest that are paths.
    #[test]
    fn a_name_that_is_a_path_is_no_file_name() {
        for bad in [&b"/"[..], b"a/b", b"/etc", b"a/", b".", b"..", b"a\0b", b"\0"] {
            assert_eq!(FileName::new(bad).err(), Some(Errno::EINVAL), "{}", bad.escape_ascii());
        }
        assert_eq!(FileName::new(b"").err(), Some(Errno::ENOENT));
    }

    #[test]
    fn a_name_of_255_bytes_is_the_longest() {
        assert_eq!(FileName::new(&[b'a'; 255]).unwrap().as_c_str().to_bytes().len(), 255);
        assert_eq!(FileName::new(&[b'a'; 256]).err(), Some(Errno::ENAMETOOLONG));
        assert!(FileName::new(b"...").is_ok());
    }

    #[test]
    fn names_are_shown_escaped() {
        assert_eq!(format!("{:?}", FileName::new(b"a\n\"\x1b").unwrap()), r#""a\n\"\x1b""#);
    }

    #[test]
    fn a_target_may_be_any_path_but_not_empty_or_longer_than_path_max() {
        assert!(Target::new(b"../../etc/passwd").is_ok());
        assert_eq!(Target::new(b"").err(), Some(Errno::ENOENT));
        assert_eq!(Target::new(&[b'x'; 4096]).err(), Some(Errno::ENAMETOOLONG));
    }
}
