#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::library::new_plays(data));
