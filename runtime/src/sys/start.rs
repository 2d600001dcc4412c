//! Where the kernel starts us, before the C library: it has set up nothing yet.
//!
//! A verb that enters a container has our binary executed twice (`seal`). Done here, the first time costs
//! no more than the kernel's own work: no relocation, no look at the processor, which a virtual machine
//! answers slowly, no heap. Nothing that has to be resolved at the start may be used: no string functions,
//! which the C library chooses by the processor, no statics that point to others, and no function of the
//! standard library that is more than arithmetic, since unoptimized ones call others to check what they get.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "what a system call takes and gives is words"
)]

use std::arch::{asm, global_asm};
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};

// The stack pointer stands at the count of words; what else the kernel has left for `_start` is given on.
global_asm!(
    ".globl runtime_start",
    ".type runtime_start, @function",
    "runtime_start:",
    "mov r12, rsp",
    "mov r13, rdx",
    "mov rdi, rsp",
    "call {become_protected}",
    "mov rsp, r12",
    "mov rdx, r13",
    "jmp _start",
    become_protected = sym become_protected,
);

/// Becomes the protected binary if the line asks for what needs it. Where anything fails or is not as it is
/// usually, `seal::ensure` does it again, and says what is wrong.
unsafe extern "C" fn become_protected(stack: usize) {
    // SAFETY: the kernel puts the count, so many words, a null, the environment and a null onto the stack.
    unsafe {
        let count = word(stack);
        let words = stack + WORD;
        let mut enters = false;
        let mut at = 1;
        while at < count {
            enters |= is_verb(word(words + at * WORD));
            at += 1;
        }
        if enters && !is_protected() {
            execute_clone(words, words + (count + 1) * WORD);
        }
    }
}

/// Whether the word may be one by which a container is entered: `run`, `create`, `exec`, `mounts`. One that
/// stands for something else, a container's name say, costs a needless start, and no more.
unsafe fn is_verb(text: usize) -> bool {
    // SAFETY: it is the address of a C string, of which nothing behind the zero is read.
    unsafe {
        match byte(text) {
            b'r' => is(text, b"run\0"),
            b'c' => is(text, b"create\0"),
            b'e' => is(text, b"exec\0"),
            b'm' => is(text, b"mounts\0"),
            _ => false,
        }
    }
}

unsafe fn is<const LENGTH: usize>(text: usize, verb: &[u8; LENGTH]) -> bool {
    let mut at = 0;
    while at < LENGTH {
        // SAFETY: all before are the verb's, and its zero is the last.
        if unsafe { byte(text + at) } != verb[at] {
            return false;
        }
        at += 1;
    }
    true
}

const WORD: usize = size_of::<usize>();

unsafe fn word(address: usize) -> usize {
    let value;
    // SAFETY: the caller knows that a word stands there.
    unsafe { asm!("mov {}, [{}]", out(reg) value, in(reg) address, options(nostack, readonly)) };
    value
}

unsafe fn byte(address: usize) -> u8 {
    let value: u32;
    // SAFETY: the caller knows that a byte stands there.
    unsafe {
        asm!("movzx {0:e}, byte ptr [{1}]", out(reg) value, in(reg) address, options(nostack, readonly));
    }
    value as u8
}

/// Decided by the file itself, as `seal` does. What can't be told counts as protected: it is left to `seal`.
fn is_protected() -> bool {
    let exe = &raw const OWN_EXE as usize;
    let here = libc::AT_FDCWD as usize;
    let flags = (libc::O_RDONLY | libc::O_CLOEXEC) as usize;
    // `struct statfs` of 64 bits.
    let mut statfs = MaybeUninit::<[usize; 15]>::uninit();
    let answer = &raw mut statfs as usize;
    // SAFETY: the string ends with a zero, `statfs` has room for the answer, and the byte is one of our own
    // that was zero until now; nobody else runs yet.
    unsafe {
        let file = call(libc::SYS_openat, here, exe, flags, 0, 0);
        if file < 0 {
            return true;
        }
        let told = call(libc::SYS_fstatfs, file as usize, answer, 0, 0, 0);
        let seals = call(libc::SYS_fcntl, file as usize, libc::F_GET_SEALS as usize, 0, 0, 0);
        call(libc::SYS_close, file as usize, 0, 0, 0, 0);
        if told < 0 {
            return true;
        }
        let protected = word(answer + FLAGS * WORD) & READ_ONLY != 0
            || (seals >= 0 && seals & libc::F_SEAL_WRITE as isize != 0);
        if protected {
            let found = &raw const FOUND_PROTECTED as usize;
            asm!("mov byte ptr [{}], 1", in(reg) found, options(nostack));
        }
        protected
    }
}

/// Whether the file that we run from was seen to be protected when we began.
pub(crate) fn found_protected() -> bool {
    FOUND_PROTECTED.load(Ordering::Relaxed)
}

static FOUND_PROTECTED: AtomicBool = AtomicBool::new(false);

/// Executes a copy of our mount that is read-only and mounted nowhere; comes back if that fails.
unsafe fn execute_clone(words: usize, environment: usize) {
    #[repr(C)]
    struct Attributes {
        set: u64,
        clear: u64,
        propagation: u64,
        user_namespace: u64,
    }
    let attributes =
        Attributes { set: libc::MOUNT_ATTR_RDONLY, clear: 0, propagation: 0, user_namespace: 0 };
    let flags = (libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC) as usize;
    let (here, exe) = (libc::AT_FDCWD as usize, &raw const OWN_EXE as usize);
    let empty = exe + LENGTH - 1;
    let itself = libc::AT_EMPTY_PATH as usize;
    // SAFETY: strings end with a zero, the attributes are as long as is said, and both lists are the kernel's
    // own, and end with a null.
    unsafe {
        let tree = call(libc::SYS_open_tree, here, exe, flags, 0, 0);
        if tree < 0 {
            return;
        }
        let size = size_of::<Attributes>();
        let (tree, attributes) = (tree as usize, &raw const attributes as usize);
        if call(libc::SYS_mount_setattr, tree, empty, itself, attributes, size) == 0 {
            call(libc::SYS_execveat, tree, empty, words, environment, itself);
        }
        call(libc::SYS_close, tree, 0, 0, 0, 0);
    }
}

/// With its zero, of which the last part is an empty string.
static OWN_EXE: [u8; LENGTH] = *b"/proc/self/exe\0";
const LENGTH: usize = 15;

/// Where `f_flags` stands, and what of it is `ST_RDONLY`.
const FLAGS: usize = 10;
const READ_ONLY: usize = 1;

/// A system call: its result, or the error's number below zero.
unsafe fn call(number: libc::c_long, a: usize, b: usize, c: usize, d: usize, e: usize) -> isize {
    let result;
    // SAFETY: the caller answers for the arguments; the kernel changes no other registers than these.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") a,
            in("rsi") b,
            in("rdx") c,
            in("r10") d,
            in("r8") e,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}
