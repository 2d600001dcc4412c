//! What is done before `main`, and before the standard library makes itself ready.
//!
//! A verb that enters a container has our binary executed twice (`seal`). Done here, the first time
//! costs little more than the kernel's own work: no heap, no signal handlers, no command line read.

use std::ffi::{CStr, c_char, c_int};

use crate::seal;

/// The words that a container may be entered by. One that stands for something else, a container's
/// name say, costs a needless start, and no more: `seal::ensure` decides.
const VERBS: [&CStr; 4] = [c"run", c"create", c"exec", c"mounts"];

type Entry = extern "C" fn(c_int, *const *const c_char, *const *const c_char);

// SAFETY: glibc calls the functions of this section one by one before `main`, statically linked
// or not, with main's three arguments.
#[used]
#[unsafe(link_section = ".init_array")]
static ENTRY: Entry = become_protected;

/// Becomes the protected binary if the line asks for what needs it. After any failure `main` tries
/// again, and says what is wrong.
extern "C" fn become_protected(
    count: c_int,
    words: *const *const c_char,
    environment: *const *const c_char,
) {
    let enters = (1..usize::try_from(count).unwrap_or(0)).any(|at| {
        // SAFETY: `words` are as many as `count` says, each of them a C string.
        let word = unsafe { CStr::from_ptr(*words.add(at)) };
        VERBS.contains(&word)
    });
    if !enters {
        return;
    }
    let Ok(Some(binary)) = seal::read_only_binary() else { return };
    // SAFETY: both lists are the kernel's own, and end in a null pointer.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            std::os::fd::AsRawFd::as_raw_fd(&binary),
            c"".as_ptr(),
            words,
            environment,
            libc::AT_EMPTY_PATH,
        );
    }
}
