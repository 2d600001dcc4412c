//! Where the C library calls us. Rust's own beginning reads /proc/self/maps and sets up a stack to tell of
//! an overflow on, in twenty calls: much for a process that lives for three milliseconds. What it does
//! besides for a program's safety is done here.

use std::ffi::{c_char, c_int};

/// glibc hands the words to the standard library by itself; other C libraries do not.
// SAFETY: the name is the one by which the C library's start calls a program, and nothing else has it.
#[unsafe(no_mangle)]
extern "C" fn main(_count: c_int, _words: *const *const c_char) -> c_int {
    have_standard_streams();
    // SAFETY: no handler is installed, and nobody else runs yet.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    let code = crate::begin();
    // Not by returning: what was printed is still to be written out.
    std::process::exit(code.into())
}

/// A closed one is opened on nothing, lest the next file that we open be taken for it.
fn have_standard_streams() {
    for stream in 0..3 {
        // SAFETY: the call touches no memory of ours.
        let open = unsafe { libc::fcntl(stream, libc::F_GETFD) } >= 0;
        // SAFETY: the string ends with a zero. The lowest free number is the closed stream's.
        if !open && unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) } < 0 {
            std::process::abort();
        }
    }
}
