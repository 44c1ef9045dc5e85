//! The tests of the transcripts are made at compile time, one for each file.

fn main() {
    println!("cargo::rerun-if-changed=sessions");
    println!("cargo::rerun-if-changed=build.rs");
}
