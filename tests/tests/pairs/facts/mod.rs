//! What std and the kernel do, whatever programs use them. The mistakes of the book, with such facts
//! about wrong code, are in `book/mistakes`.

#[cfg(target_os = "linux")]
mod addresses;
#[cfg(target_os = "linux")]
mod paths;
#[cfg(target_os = "linux")]
mod ports;
mod tcp;
mod udp;
#[cfg(target_os = "linux")]
mod unix;
