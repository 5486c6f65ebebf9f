//! What the tests stand on: a guest without a virtual machine.
//!
//! A [`Share`] is a directory served by one of the [`Kind`]s: postern in each of its identity cases,
//! or a peer, which proves the tests. A test is a [`Process`] in the guest, whose [`Kernel`](kernel::Kernel) speaks
//! FUSE or 9P over real rings in shared memory; and it looks at the directory from the host's side through [`Host`].
//!
//! A behaviour is written once, named as a sentence, and becomes one test per kind, whatever that kind speaks:
//!
//! ```ignore
//! // open(2): "EISDIR  pathname refers to a directory and the access requested involved writing"
//! #[apply(behaviour)]
//! fn a_directory_opened_for_writing_is_refused(share: &Share) {
//!     share.mkdir("d", 0o755).unwrap();
//!     assert_eq!(share.open("d", O_WRONLY), Err(EISDIR));
//! }
//! ```

pub mod dotu;
pub mod foreign;
pub mod fuse;
pub mod fuzz;
pub mod guest;
pub mod host;
pub mod hostile;
pub mod kernel;
pub mod kind;
pub mod memory;
pub mod mounts;
pub mod named;
pub mod p9;
pub mod pair;
pub mod peers;
pub mod process;
pub mod processes;
pub mod proxy;
#[cfg(target_arch = "x86_64")]
pub mod puppet;
pub mod ring;
pub mod share;
pub mod stream;
pub mod sweep;
pub mod systemd;
pub mod twin;
pub mod v9fs;
pub mod vmm;
pub mod wishes;

pub use fuse::{File, Process};
pub use host::Host;
pub use kind::Kind;
pub use share::{Setup, Share};

/// What a test file starts with.
pub mod prelude {
    pub use crate::fuse::{Entry, File, Process, Request};
    pub use crate::host::{Host, ids};
    pub use crate::kind::Kind;
    pub use crate::share::{Cache, Setup, Share};
    pub use crate::{behaviour, promise, translates, virtiofs};
    pub use libc::{
        O_APPEND, O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY, S_IFBLK, S_IFCHR,
        S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK,
    };
    pub use macro_rules_attribute::apply;
    pub use nix::errno::Errno::*;
    pub use postern_server::fuse::abi::{self, InitFlags, ROOT_ID, SetattrValid, opcode};
}

/// Makes one test per kind of a function that takes the [`Kind`], or a [`Share`] of default set-up.
#[macro_export]
macro_rules! behaviour {
    ($($function:tt)*) => {
        $crate::each! { mapped Mapped, soft Soft, root Root, user User, asked Asked, host Host, p9_mapped P9Mapped,
            p9_user P9User, mapped_xattr MappedXattr, mapped_file MappedFile, virtiofsd Virtiofsd, c_virtiofsd CVirtiofsd;
            $($function)* }
    };
}

/// A behaviour of virtio-fs: its very requests and replies, or what 9P leaves to the guest's kernel.
#[macro_export]
macro_rules! virtiofs {
    ($($function:tt)*) => {
        $crate::each! { mapped Mapped, soft Soft, root Root, user User, host Host, mapped_xattr MappedXattr,
            mapped_file MappedFile, virtiofsd Virtiofsd, c_virtiofsd CVirtiofsd; $($function)* }
    };
}

/// A behaviour of those that translate ids: postern where the host's inodes keep them, and virtiofsd.
#[macro_export]
macro_rules! translates {
    ($($function:tt)*) => {
        $crate::each! { mapped Mapped, soft Soft, root Root, user User, host Host, p9_mapped P9Mapped, p9_user P9User,
            virtiofsd Virtiofsd; $($function)* }
    };
}

/// A behaviour that postern promises and the peers do not. It says itself which protocol it is about.
#[macro_export]
macro_rules! promise {
    ($($function:tt)*) => {
        $crate::each! { mapped Mapped, soft Soft, root Root, user User, host Host; $($function)* }
    };
}

/// One test per listed kind of a function.
#[doc(hidden)]
#[macro_export]
macro_rules! each {
    ($($test:ident $kind:ident),*; $(#[$meta:meta])* fn $name:ident($share:ident: &Share) $body:block) => {
        $crate::each! { $($test $kind),*;
            $(#[$meta])*
            fn $name(on: Kind) {
                let $share = &on.serve();
                $body
            }
        }
    };
    ($($test:ident $kind:ident),*; $(#[$meta:meta])* fn $name:ident($share:ident: &Share9p) $body:block) => {
        $crate::each! { $($test $kind),*;
            $(#[$meta])*
            fn $name(on: Kind) {
                let $share = &on.setup().serve_9p();
                $body
            }
        }
    };
    ($($test:ident $kind:ident),*; $(#[$meta:meta])* fn $name:ident($on:ident: Kind) $body:block) => {
        $(#[$meta])*
        fn $name($on: $crate::Kind) $body

        mod $name {
            $(
                #[test]
                fn $test() {
                    $crate::peers::prove(stringify!($name), $crate::Kind::$kind, super::$name);
                }
            )*
        }
    };
}
