//! What clients that mean harm send, whatever they speak.

use crate::Kind;

/// Says how often a class of attacks was tried; never is no proof.
///
/// # Panics
/// When it was not tried at all.
pub fn tried(class: &str, attempts: usize) {
    assert_ne!(attempts, 0, "{class}");
    println!("{class}: {attempts} attempts");
}

/// What holds alike for all kinds that a promise is made for, and costs a process each time: one kind tries every fourth.
pub fn is_its_turn(on: Kind, attempt: usize) -> bool {
    [Kind::Mapped, Kind::Root, Kind::User, Kind::Host][attempt % 4] == on
}

/// Names that are no names: path_resolution(7). Some would lead out of a share, to what is beside it.
pub fn bad_names() -> Vec<Vec<u8>> {
    let bad: [&[u8]; 12] = [
        b"",
        b".",
        b"..",
        b"/",
        b"a/b",
        b"d/f",
        b"/etc/passwd",
        b"../outside/canary",
        b"../outside/new",
        b"f/..",
        b"f\0",
        b"f\0g",
    ];
    let long = [256, 4096, 65_000].map(|len| vec![b'n'; len]);
    bad.into_iter().map(<[u8]>::to_vec).chain(long).collect()
}
