//! What was found by searching, and thousands of changed copies of whole conversations, harm nobody that decodes them.

use std::path::Path;

use postern_tests::fuzz::{TARGETS, changed, corpus, seeds, target};

/// Changed copies of each conversation.
const COPIES: u64 = 4000;

fn survives(name: &str) {
    let found = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/found").join(name);
    for entry in std::fs::read_dir(&found).into_iter().flatten() {
        target(name)(&std::fs::read(entry.unwrap().path()).unwrap());
    }
    corpus(name).iter().for_each(|bytes| target(name)(bytes));
    for (_, seed) in seeds().into_iter().filter(|(of, _)| *of == name) {
        target(name)(&seed);
        (0..COPIES).for_each(|number| target(name)(&changed(&seed, number)));
    }
}

#[test]
fn frames_of_helper_and_server_are_decoded_or_refused() {
    survives("frame");
}

#[test]
fn a_9p_client_may_send_anything() {
    survives("p9");
}

#[test]
fn qemu_may_send_anything_to_its_proxy() {
    survives("proxy");
}

#[test]
fn a_guests_kernel_may_send_anything() {
    survives("fuse");
}

#[test]
fn a_guests_driver_may_lay_out_anything() {
    survives("chain");
}

#[test]
fn a_vmm_may_say_anything() {
    survives("vhost");
}

#[test]
fn every_target_has_a_conversation_and_a_test() {
    let tests = include_str!("fuzz.rs");
    for (name, _) in TARGETS {
        assert!(seeds().iter().any(|(of, seed)| of == name && !seed.is_empty()), "{name}");
        assert!(tests.contains(&format!("survives(\"{name}\")")), "{name}");
    }
}
