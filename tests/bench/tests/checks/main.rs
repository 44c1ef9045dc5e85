//! The bench is checked as well: what its clients would notice, how it draws; and, in a release build, how
//! fast our programs are beside others.

#![cfg(target_os = "linux")]

mod loads;
mod picture;
mod speed;
