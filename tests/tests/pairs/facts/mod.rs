//! What std and the kernel do, whatever programs use them. The mistakes of the book, with such facts
//! about wrong code, are in `book/mistakes`.

#[cfg(target_os = "linux")]
mod hangs;
mod tcp;
mod udp;
#[cfg(target_os = "linux")]
mod unix;
