#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| postern_tests::fuzz::vhost(bytes));
