#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| pointsman_fuzz::forwarded_head(input));
