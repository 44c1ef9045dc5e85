//! The pairs, held together by tests: `tests/pairs`, and `tests/promises.rs`, which asks each program for
//! what the library `promises` says of its kind. The library `harness` starts and watches processes.
