#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::list_cursor(data));
