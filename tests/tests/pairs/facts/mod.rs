//! What std and the kernel do, whatever programs use them.

mod std;
