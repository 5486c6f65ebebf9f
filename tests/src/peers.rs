//! Where the peers do not do what a local file system does, and why.
//!
//! Such a test must fail there: a row that is no longer true is an error.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::Kind;

/// Behaviour, the peers that lack it, why.
const DEVIATIONS: &[(&str, &[Kind], &str)] = &[];

/// Runs a behaviour on a kind, and expects it to fail where the table says so.
///
/// # Panics
/// When the behaviour does not hold, or holds against the table.
pub fn prove(name: &str, on: Kind, behaviour: fn(Kind)) {
    let deviates = |row: &&(&str, &[Kind], &str)| row.0 == name && row.1.contains(&on);
    let Some((_, _, why)) = DEVIATIONS.iter().find(deviates) else {
        return behaviour(on);
    };
    let held = catch_unwind(AssertUnwindSafe(|| behaviour(on))).is_ok();
    assert!(!held, "holds on {on:?}: its row is to go ({why})");
}
