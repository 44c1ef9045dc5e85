//! The pairs, held together by tests. All of them are in `tests/pairs`; the programs that start and
//! watch processes are in `harness`.
