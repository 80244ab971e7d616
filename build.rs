//! The migrations are built into the binary: a new file must build it anew.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
