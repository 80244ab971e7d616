//! What is outside: companies and services that this system calls.

pub mod sms;
