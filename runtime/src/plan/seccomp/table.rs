//! Numbers of system calls per ABI, sorted by name. From the kernel's headers, up to Linux 7.1.

use super::abi::Abi;

/// A call of some ABI, by its place in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Common(usize),
    /// One of ARM's own.
    Arm(u32),
}

impl Call {
    /// The call of that name; `None` if no ABI has one. Profiles list names in order, as the table does:
    /// the search begins at `near`, which is where the last one ended.
    pub(super) fn find(name: &str, near: &mut usize) -> Option<Self> {
        let close = TABLE.iter().skip(*near).take(NEIGHBOURS);
        let place = close.zip(*near..).find(|((known, _), _)| *known == name);
        let place = match place {
            Some((_, place)) => Some(place),
            None => TABLE.binary_search_by_key(&name, |(known, _)| known).ok(),
        };
        if let Some(place) = place {
            *near = place + 1;
            return Some(Self::Common(place));
        }
        ARM_PRIVATE
            .iter()
            .find(|(private, _)| *private == name)
            .map(|&(_, number)| Self::Arm(number))
    }

    /// Its number in `abi`; `None` where that ABI has no such call.
    pub(super) fn number(self, abi: Abi) -> Option<u32> {
        match self {
            Self::Arm(number) => (abi == Abi::Arm).then_some(number),
            Self::Common(place) => {
                let number = u32::try_from(TABLE[place].1[abi.column()]).ok()?;
                Some(if abi == Abi::X32 { number | X32_BIT } else { number })
            }
        }
    }
}

/// So many rows are compared before the whole table is searched.
const NEIGHBOURS: usize = 4;

/// The number of `name` in `abi`.
#[cfg(test)]
pub(super) fn number(name: &str, abi: Abi) -> Option<u32> {
    Call::find(name, &mut 0)?.number(abi)
}

/// Every name of the table.
#[cfg(test)]
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|(name, _)| *name)
}

/// Marks the calls of x32 among those of the architecture that it shares with x86_64.
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// ARM's own calls lie outside the common range.
const ARM_PRIVATE: [(&str, u32); 6] = [
    ("breakpoint", 0xf_0001),
    ("cacheflush", 0xf_0002),
    ("usr26", 0xf_0003),
    ("usr32", 0xf_0004),
    ("set_tls", 0xf_0005),
    ("get_tls", 0xf_0006),
];

/// x86_64, x86, x32 (without its bit), arm, s390x, ppc64, aarch64, riscv64, loongarch64.
type Row = [i16; 9];

/// A call with one number everywhere, as all newer ones have.
const fn all(number: i16) -> Row {
    [number; 9]
}

/// A call with one number in the three ABIs that began with the generic table.
const fn row(x64: i16, x86: i16, x32: i16, arm: i16, s390x: i16, ppc: i16, generic: i16) -> Row {
    [x64, x86, x32, arm, s390x, ppc, generic, generic, generic]
}

#[rustfmt::skip]
const TABLE: &[(&str, Row)] = &[
    ("_llseek", row(-1, 140, -1, 140, -1, 140, -1)),
    ("_newselect", row(-1, 142, -1, 142, -1, 142, -1)),
    ("_sysctl", row(156, 149, -1, 149, 149, 149, -1)),
    ("accept", row(43, -1, 43, 285, -1, 330, 202)),
    ("accept4", row(288, 364, 288, 366, 364, 344, 242)),
    ("access", row(21, 33, 21, 33, 33, 33, -1)), ("acct", row(163, 51, 163, 51, 51, 51, 89)),
    ("add_key", row(248, 286, 248, 309, 278, 269, 217)),
    ("adjtimex", row(159, 124, 159, 124, 124, 124, 171)),
    ("afs_syscall", row(183, 137, 183, -1, 137, 137, -1)),
    ("alarm", row(37, 27, 37, -1, 27, 27, -1)), ("arch_prctl", row(158, 384, 158, -1, -1, -1, -1)),
    ("arm_fadvise64_64", row(-1, -1, -1, 270, -1, -1, -1)),
    ("arm_sync_file_range", row(-1, -1, -1, 341, -1, -1, -1)),
    ("bdflush", row(-1, 134, -1, 134, 134, 134, -1)),
    ("bind", row(49, 361, 49, 282, 361, 327, 200)),
    ("bpf", row(321, 357, 321, 386, 351, 361, 280)), ("break", row(-1, 17, -1, -1, -1, 17, -1)),
    ("brk", row(12, 45, 12, 45, 45, 45, 214)), ("cachestat", all(451)),
    ("capget", row(125, 184, 125, 184, 184, 183, 90)),
    ("capset", row(126, 185, 126, 185, 185, 184, 91)), ("chdir", row(80, 12, 80, 12, 12, 12, 49)),
    ("chmod", row(90, 15, 90, 15, 15, 15, -1)), ("chown", row(92, 182, 92, 182, 212, 181, -1)),
    ("chown32", row(-1, 212, -1, 212, -1, -1, -1)), ("chroot", row(161, 61, 161, 61, 61, 61, 51)),
    ("clock_adjtime", row(305, 343, 305, 372, 337, 347, 266)),
    ("clock_adjtime64", row(-1, 405, -1, 405, -1, -1, -1)),
    ("clock_getres", row(229, 266, 229, 264, 261, 247, 114)),
    ("clock_getres_time64", row(-1, 406, -1, 406, -1, -1, -1)),
    ("clock_gettime", row(228, 265, 228, 263, 260, 246, 113)),
    ("clock_gettime64", row(-1, 403, -1, 403, -1, -1, -1)),
    ("clock_nanosleep", row(230, 267, 230, 265, 262, 248, 115)),
    ("clock_nanosleep_time64", row(-1, 407, -1, 407, -1, -1, -1)),
    ("clock_settime", row(227, 264, 227, 262, 259, 245, 112)),
    ("clock_settime64", row(-1, 404, -1, 404, -1, -1, -1)),
    ("clone", row(56, 120, 56, 120, 120, 120, 220)), ("clone3", all(435)),
    ("close", row(3, 6, 3, 6, 6, 6, 57)), ("close_range", all(436)),
    ("connect", row(42, 362, 42, 283, 362, 328, 203)),
    ("copy_file_range", row(326, 377, 326, 391, 375, 379, 285)),
    ("creat", row(85, 8, 85, 8, 8, 8, -1)), ("create_module", row(174, 127, -1, -1, 127, 127, -1)),
    ("delete_module", row(176, 129, 176, 129, 129, 129, 106)),
    ("dup", row(32, 41, 32, 41, 41, 41, 23)), ("dup2", row(33, 63, 33, 63, 63, 63, -1)),
    ("dup3", row(292, 330, 292, 358, 326, 316, 24)),
    ("epoll_create", row(213, 254, 213, 250, 249, 236, -1)),
    ("epoll_create1", row(291, 329, 291, 357, 327, 315, 20)),
    ("epoll_ctl", row(233, 255, 233, 251, 250, 237, 21)),
    ("epoll_ctl_old", row(214, -1, -1, -1, -1, -1, -1)),
    ("epoll_pwait", row(281, 319, 281, 346, 312, 303, 22)), ("epoll_pwait2", all(441)),
    ("epoll_wait", row(232, 256, 232, 252, 251, 238, -1)),
    ("epoll_wait_old", row(215, -1, -1, -1, -1, -1, -1)),
    ("eventfd", row(284, 323, 284, 351, 318, 307, -1)),
    ("eventfd2", row(290, 328, 290, 356, 323, 314, 19)),
    ("execve", row(59, 11, 520, 11, 11, 11, 221)),
    ("execveat", row(322, 358, 545, 387, 354, 362, 281)), ("exit", row(60, 1, 60, 1, 1, 1, 93)),
    ("exit_group", row(231, 252, 231, 248, 248, 234, 94)),
    ("faccessat", row(269, 307, 269, 334, 300, 298, 48)), ("faccessat2", all(439)),
    ("fadvise64", row(221, 250, 221, -1, 253, 233, 223)),
    ("fadvise64_64", row(-1, 272, -1, -1, -1, -1, -1)),
    ("fallocate", row(285, 324, 285, 352, 314, 309, 47)),
    ("fanotify_init", row(300, 338, 300, 367, 332, 323, 262)),
    ("fanotify_mark", row(301, 339, 301, 368, 333, 324, 263)),
    ("fchdir", row(81, 133, 81, 133, 133, 133, 50)), ("fchmod", row(91, 94, 91, 94, 94, 94, 52)),
    ("fchmodat", row(268, 306, 268, 333, 299, 297, 53)), ("fchmodat2", all(452)),
    ("fchown", row(93, 95, 93, 95, 207, 95, 55)), ("fchown32", row(-1, 207, -1, 207, -1, -1, -1)),
    ("fchownat", row(260, 298, 260, 325, 291, 289, 54)),
    ("fcntl", row(72, 55, 72, 55, 55, 55, 25)), ("fcntl64", row(-1, 221, -1, 221, -1, -1, -1)),
    ("fdatasync", row(75, 148, 75, 148, 148, 148, 83)),
    ("fgetxattr", row(193, 231, 193, 231, 229, 214, 10)), ("file_getattr", all(468)),
    ("file_setattr", all(469)), ("finit_module", row(313, 350, 313, 379, 344, 353, 273)),
    ("flistxattr", row(196, 234, 196, 234, 232, 217, 13)),
    ("flock", row(73, 143, 73, 143, 143, 143, 32)), ("fork", row(57, 2, 57, 2, 2, 2, -1)),
    ("fremovexattr", row(199, 237, 199, 237, 235, 220, 16)), ("fsconfig", all(431)),
    ("fsetxattr", row(190, 228, 190, 228, 226, 211, 7)), ("fsmount", all(432)),
    ("fsopen", all(430)), ("fspick", all(433)), ("fstat", row(5, 108, 5, 108, 108, 108, 80)),
    ("fstat64", row(-1, 197, -1, 197, -1, -1, -1)),
    ("fstatat64", row(-1, 300, -1, 327, -1, -1, -1)),
    ("fstatfs", row(138, 100, 138, 100, 100, 100, 44)),
    ("fstatfs64", row(-1, 269, -1, 267, 266, 253, -1)),
    ("fsync", row(74, 118, 74, 118, 118, 118, 82)), ("ftime", row(-1, 35, -1, -1, -1, 35, -1)),
    ("ftruncate", row(77, 93, 77, 93, 93, 93, 46)),
    ("ftruncate64", row(-1, 194, -1, 194, -1, -1, -1)),
    ("futex", row(202, 240, 202, 240, 238, 221, 98)), ("futex_requeue", all(456)),
    ("futex_time64", row(-1, 422, -1, 422, -1, -1, -1)), ("futex_wait", all(455)),
    ("futex_waitv", all(449)), ("futex_wake", all(454)),
    ("futimesat", row(261, 299, 261, 326, 292, 290, -1)),
    ("get_kernel_syms", row(177, 130, -1, -1, 130, 130, -1)),
    ("get_mempolicy", row(239, 275, 239, 320, 269, 260, 236)),
    ("get_robust_list", row(274, 312, 531, 339, 305, 299, 100)),
    ("get_thread_area", row(211, 244, -1, -1, -1, -1, -1)),
    ("getcpu", row(309, 318, 309, 345, 311, 302, 168)),
    ("getcwd", row(79, 183, 79, 183, 183, 182, 17)),
    ("getdents", row(78, 141, 78, 141, 141, 141, -1)),
    ("getdents64", row(217, 220, 217, 217, 220, 202, 61)),
    ("getegid", row(108, 50, 108, 50, 202, 50, 177)),
    ("getegid32", row(-1, 202, -1, 202, -1, -1, -1)),
    ("geteuid", row(107, 49, 107, 49, 201, 49, 175)),
    ("geteuid32", row(-1, 201, -1, 201, -1, -1, -1)),
    ("getgid", row(104, 47, 104, 47, 200, 47, 176)),
    ("getgid32", row(-1, 200, -1, 200, -1, -1, -1)),
    ("getgroups", row(115, 80, 115, 80, 205, 80, 158)),
    ("getgroups32", row(-1, 205, -1, 205, -1, -1, -1)),
    ("getitimer", row(36, 105, 36, 105, 105, 105, 102)),
    ("getpeername", row(52, 368, 52, 287, 368, 332, 205)),
    ("getpgid", row(121, 132, 121, 132, 132, 132, 155)),
    ("getpgrp", row(111, 65, 111, 65, 65, 65, -1)), ("getpid", row(39, 20, 39, 20, 20, 20, 172)),
    ("getpmsg", row(181, 188, 181, -1, 188, 187, -1)),
    ("getppid", row(110, 64, 110, 64, 64, 64, 173)),
    ("getpriority", row(140, 96, 140, 96, 96, 96, 141)),
    ("getrandom", row(318, 355, 318, 384, 349, 359, 278)),
    ("getresgid", row(120, 171, 120, 171, 211, 170, 150)),
    ("getresgid32", row(-1, 211, -1, 211, -1, -1, -1)),
    ("getresuid", row(118, 165, 118, 165, 209, 165, 148)),
    ("getresuid32", row(-1, 209, -1, 209, -1, -1, -1)),
    ("getrlimit", [97, 76, 97, -1, 191, 76, 163, 163, -1]),
    ("getrusage", row(98, 77, 98, 77, 77, 77, 165)),
    ("getsid", row(124, 147, 124, 147, 147, 147, 156)),
    ("getsockname", row(51, 367, 51, 286, 367, 331, 204)),
    ("getsockopt", row(55, 365, 542, 295, 365, 340, 209)),
    ("gettid", row(186, 224, 186, 224, 236, 207, 178)),
    ("gettimeofday", row(96, 78, 96, 78, 78, 78, 169)),
    ("getuid", row(102, 24, 102, 24, 199, 24, 174)),
    ("getuid32", row(-1, 199, -1, 199, -1, -1, -1)),
    ("getxattr", row(191, 229, 191, 229, 227, 212, 8)), ("getxattrat", all(464)),
    ("gtty", row(-1, 32, -1, -1, -1, 32, -1)), ("idle", row(-1, 112, -1, -1, 112, 112, -1)),
    ("init_module", row(175, 128, 175, 128, 128, 128, 105)),
    ("inotify_add_watch", row(254, 292, 254, 317, 285, 276, 27)),
    ("inotify_init", row(253, 291, 253, 316, 284, 275, -1)),
    ("inotify_init1", row(294, 332, 294, 360, 324, 318, 26)),
    ("inotify_rm_watch", row(255, 293, 255, 318, 286, 277, 28)),
    ("io_cancel", row(210, 249, 210, 247, 247, 231, 3)),
    ("io_destroy", row(207, 246, 207, 244, 244, 228, 1)),
    ("io_getevents", row(208, 247, 208, 245, 245, 229, 4)),
    ("io_pgetevents", row(333, 385, 333, 399, 382, 388, 292)),
    ("io_pgetevents_time64", row(-1, 416, -1, 416, -1, -1, -1)),
    ("io_setup", row(206, 245, 543, 243, 243, 227, 0)),
    ("io_submit", row(209, 248, 544, 246, 246, 230, 2)), ("io_uring_enter", all(426)),
    ("io_uring_register", all(427)), ("io_uring_setup", all(425)),
    ("ioctl", row(16, 54, 514, 54, 54, 54, 29)), ("ioperm", row(173, 101, 173, -1, -1, 101, -1)),
    ("iopl", row(172, 110, 172, -1, -1, 110, -1)),
    ("ioprio_get", row(252, 290, 252, 315, 283, 274, 31)),
    ("ioprio_set", row(251, 289, 251, 314, 282, 273, 30)),
    ("ipc", row(-1, 117, -1, -1, 117, 117, -1)), ("kcmp", row(312, 349, 312, 378, 343, 354, 272)),
    ("kexec_file_load", row(320, -1, 320, 401, 381, 382, 294)),
    ("kexec_load", row(246, 283, 528, 347, 277, 268, 104)),
    ("keyctl", row(250, 288, 250, 311, 280, 271, 219)), ("kill", row(62, 37, 62, 37, 37, 37, 129)),
    ("landlock_add_rule", all(445)), ("landlock_create_ruleset", all(444)),
    ("landlock_restrict_self", all(446)), ("lchown", row(94, 16, 94, 16, 198, 16, -1)),
    ("lchown32", row(-1, 198, -1, 198, -1, -1, -1)),
    ("lgetxattr", row(192, 230, 192, 230, 228, 213, 9)), ("link", row(86, 9, 86, 9, 9, 9, -1)),
    ("linkat", row(265, 303, 265, 330, 296, 294, 37)),
    ("listen", row(50, 363, 50, 284, 363, 329, 201)), ("listmount", all(458)),
    ("listns", all(470)), ("listxattr", row(194, 232, 194, 232, 230, 215, 11)),
    ("listxattrat", all(465)), ("llistxattr", row(195, 233, 195, 233, 231, 216, 12)),
    ("lock", row(-1, 53, -1, -1, -1, 53, -1)),
    ("lookup_dcookie", row(212, 253, 212, 249, 110, 235, 18)),
    ("lremovexattr", row(198, 236, 198, 236, 234, 219, 15)),
    ("lseek", row(8, 19, 8, 19, 19, 19, 62)), ("lsetxattr", row(189, 227, 189, 227, 225, 210, 6)),
    ("lsm_get_self_attr", all(459)), ("lsm_list_modules", all(461)),
    ("lsm_set_self_attr", all(460)), ("lstat", row(6, 107, 6, 107, 107, 107, -1)),
    ("lstat64", row(-1, 196, -1, 196, -1, -1, -1)),
    ("madvise", row(28, 219, 28, 220, 219, 205, 233)), ("map_shadow_stack", all(453)),
    ("mbind", row(237, 274, 237, 319, 268, 259, 235)),
    ("membarrier", row(324, 375, 324, 389, 356, 365, 283)),
    ("memfd_create", row(319, 356, 319, 385, 350, 360, 279)),
    ("memfd_secret", [447, 447, 447, -1, 447, -1, 447, 447, -1]),
    ("migrate_pages", row(256, 294, 256, 400, 287, 258, 238)),
    ("mincore", row(27, 218, 27, 219, 218, 206, 232)), ("mkdir", row(83, 39, 83, 39, 39, 39, -1)),
    ("mkdirat", row(258, 296, 258, 323, 289, 287, 34)),
    ("mknod", row(133, 14, 133, 14, 14, 14, -1)),
    ("mknodat", row(259, 297, 259, 324, 290, 288, 33)),
    ("mlock", row(149, 150, 149, 150, 150, 150, 228)),
    ("mlock2", row(325, 376, 325, 390, 374, 378, 284)),
    ("mlockall", row(151, 152, 151, 152, 152, 152, 230)), ("mmap", row(9, 90, 9, -1, 90, 90, 222)),
    ("mmap2", row(-1, 192, -1, 192, -1, -1, -1)),
    ("modify_ldt", row(154, 123, 154, -1, -1, 123, -1)),
    ("mount", row(165, 21, 165, 21, 21, 21, 40)), ("mount_setattr", all(442)),
    ("move_mount", all(429)), ("move_pages", row(279, 317, 533, 344, 310, 301, 239)),
    ("mprotect", row(10, 125, 10, 125, 125, 125, 226)), ("mpx", row(-1, 56, -1, -1, -1, 56, -1)),
    ("mq_getsetattr", row(245, 282, 245, 279, 276, 267, 185)),
    ("mq_notify", row(244, 281, 527, 278, 275, 266, 184)),
    ("mq_open", row(240, 277, 240, 274, 271, 262, 180)),
    ("mq_timedreceive", row(243, 280, 243, 277, 274, 265, 183)),
    ("mq_timedreceive_time64", row(-1, 419, -1, 419, -1, -1, -1)),
    ("mq_timedsend", row(242, 279, 242, 276, 273, 264, 182)),
    ("mq_timedsend_time64", row(-1, 418, -1, 418, -1, -1, -1)),
    ("mq_unlink", row(241, 278, 241, 275, 272, 263, 181)),
    ("mremap", row(25, 163, 25, 163, 163, 163, 216)), ("mseal", all(462)),
    ("msgctl", row(71, 402, 71, 304, 402, 402, 187)),
    ("msgget", row(68, 399, 68, 303, 399, 399, 186)),
    ("msgrcv", row(70, 401, 70, 302, 401, 401, 188)),
    ("msgsnd", row(69, 400, 69, 301, 400, 400, 189)),
    ("msync", row(26, 144, 26, 144, 144, 144, 227)),
    ("multiplexer", row(-1, -1, -1, -1, -1, 201, -1)),
    ("munlock", row(150, 151, 150, 151, 151, 151, 229)),
    ("munlockall", row(152, 153, 152, 153, 153, 153, 231)),
    ("munmap", row(11, 91, 11, 91, 91, 91, 215)),
    ("name_to_handle_at", row(303, 341, 303, 370, 335, 345, 264)),
    ("nanosleep", row(35, 162, 35, 162, 162, 162, 101)),
    ("newfstatat", row(262, -1, 262, -1, 293, 291, 79)),
    ("nfsservctl", row(180, 169, -1, 169, 169, 168, 42)),
    ("nice", row(-1, 34, -1, 34, 34, 34, -1)), ("oldfstat", row(-1, 28, -1, -1, -1, 28, -1)),
    ("oldlstat", row(-1, 84, -1, -1, -1, 84, -1)),
    ("oldolduname", row(-1, 59, -1, -1, -1, 59, -1)), ("oldstat", row(-1, 18, -1, -1, -1, 18, -1)),
    ("olduname", row(-1, 109, -1, -1, -1, 109, -1)), ("open", row(2, 5, 2, 5, 5, 5, -1)),
    ("open_by_handle_at", row(304, 342, 304, 371, 336, 346, 265)), ("open_tree", all(428)),
    ("open_tree_attr", all(467)), ("openat", row(257, 295, 257, 322, 288, 286, 56)),
    ("openat2", all(437)), ("pause", row(34, 29, 34, 29, 29, 29, -1)),
    ("pciconfig_iobase", row(-1, -1, -1, 271, -1, 200, -1)),
    ("pciconfig_read", row(-1, -1, -1, 272, -1, 198, -1)),
    ("pciconfig_write", row(-1, -1, -1, 273, -1, 199, -1)),
    ("perf_event_open", row(298, 336, 298, 364, 331, 319, 241)),
    ("personality", row(135, 136, 135, 136, 136, 136, 92)), ("pidfd_getfd", all(438)),
    ("pidfd_open", all(434)), ("pidfd_send_signal", all(424)),
    ("pipe", row(22, 42, 22, 42, 42, 42, -1)), ("pipe2", row(293, 331, 293, 359, 325, 317, 59)),
    ("pivot_root", row(155, 217, 155, 218, 217, 203, 41)),
    ("pkey_alloc", row(330, 381, 330, 395, 385, 384, 289)),
    ("pkey_free", row(331, 382, 331, 396, 386, 385, 290)),
    ("pkey_mprotect", row(329, 380, 329, 394, 384, 386, 288)),
    ("poll", row(7, 168, 7, 168, 168, 167, -1)), ("ppoll", row(271, 309, 271, 336, 302, 281, 73)),
    ("ppoll_time64", row(-1, 414, -1, 414, -1, -1, -1)),
    ("prctl", row(157, 172, 157, 172, 172, 171, 167)),
    ("pread64", row(17, 180, 17, 180, 180, 179, 67)),
    ("preadv", row(295, 333, 534, 361, 328, 320, 69)),
    ("preadv2", row(327, 378, 546, 392, 376, 380, 286)),
    ("prlimit64", row(302, 340, 302, 369, 334, 325, 261)), ("process_madvise", all(440)),
    ("process_mrelease", all(448)), ("process_vm_readv", row(310, 347, 539, 376, 340, 351, 270)),
    ("process_vm_writev", row(311, 348, 540, 377, 341, 352, 271)),
    ("prof", row(-1, 44, -1, -1, -1, 44, -1)), ("profil", row(-1, 98, -1, -1, -1, 98, -1)),
    ("pselect6", row(270, 308, 270, 335, 301, 280, 72)),
    ("pselect6_time64", row(-1, 413, -1, 413, -1, -1, -1)),
    ("ptrace", row(101, 26, 521, 26, 26, 26, 117)),
    ("putpmsg", row(182, 189, 182, -1, 189, 188, -1)),
    ("pwrite64", row(18, 181, 18, 181, 181, 180, 68)),
    ("pwritev", row(296, 334, 535, 362, 329, 321, 70)),
    ("pwritev2", row(328, 379, 547, 393, 377, 381, 287)),
    ("query_module", row(178, 167, -1, -1, 167, 166, -1)),
    ("quotactl", row(179, 131, 179, 131, 131, 131, 60)), ("quotactl_fd", all(443)),
    ("read", row(0, 3, 0, 3, 3, 3, 63)), ("readahead", row(187, 225, 187, 225, 222, 191, 213)),
    ("readdir", row(-1, 89, -1, -1, 89, 89, -1)), ("readlink", row(89, 85, 89, 85, 85, 85, -1)),
    ("readlinkat", row(267, 305, 267, 332, 298, 296, 78)),
    ("readv", row(19, 145, 515, 145, 145, 145, 65)),
    ("reboot", row(169, 88, 169, 88, 88, 88, 142)), ("recv", row(-1, -1, -1, 291, -1, 336, -1)),
    ("recvfrom", row(45, 371, 517, 292, 371, 337, 207)),
    ("recvmmsg", row(299, 337, 537, 365, 357, 343, 243)),
    ("recvmmsg_time64", row(-1, 417, -1, 417, -1, -1, -1)),
    ("recvmsg", row(47, 372, 519, 297, 372, 342, 212)),
    ("remap_file_pages", row(216, 257, 216, 253, 267, 239, 234)),
    ("removexattr", row(197, 235, 197, 235, 233, 218, 14)), ("removexattrat", all(466)),
    ("rename", row(82, 38, 82, 38, 38, 38, -1)),
    ("renameat", [264, 302, 264, 329, 295, 293, 38, -1, -1]),
    ("renameat2", row(316, 353, 316, 382, 347, 357, 276)),
    ("request_key", row(249, 287, 249, 310, 279, 270, 218)),
    ("restart_syscall", row(219, 0, 219, 0, 7, 0, 128)),
    ("riscv_flush_icache", [-1, -1, -1, -1, -1, -1, -1, 259, -1]),
    ("riscv_hwprobe", [-1, -1, -1, -1, -1, -1, -1, 258, -1]),
    ("rmdir", row(84, 40, 84, 40, 40, 40, -1)), ("rseq", row(334, 386, 334, 398, 383, 387, 293)),
    ("rseq_slice_yield", all(471)), ("rt_sigaction", row(13, 174, 512, 174, 174, 173, 134)),
    ("rt_sigpending", row(127, 176, 522, 176, 176, 175, 136)),
    ("rt_sigprocmask", row(14, 175, 14, 175, 175, 174, 135)),
    ("rt_sigqueueinfo", row(129, 178, 524, 178, 178, 177, 138)),
    ("rt_sigreturn", row(15, 173, 513, 173, 173, 172, 139)),
    ("rt_sigsuspend", row(130, 179, 130, 179, 179, 178, 133)),
    ("rt_sigtimedwait", row(128, 177, 523, 177, 177, 176, 137)),
    ("rt_sigtimedwait_time64", row(-1, 421, -1, 421, -1, -1, -1)),
    ("rt_tgsigqueueinfo", row(297, 335, 536, 363, 330, 322, 240)),
    ("rtas", row(-1, -1, -1, -1, -1, 255, -1)),
    ("s390_guarded_storage", row(-1, -1, -1, -1, 378, -1, -1)),
    ("s390_pci_mmio_read", row(-1, -1, -1, -1, 353, -1, -1)),
    ("s390_pci_mmio_write", row(-1, -1, -1, -1, 352, -1, -1)),
    ("s390_runtime_instr", row(-1, -1, -1, -1, 342, -1, -1)),
    ("s390_sthyi", row(-1, -1, -1, -1, 380, -1, -1)),
    ("sched_get_priority_max", row(146, 159, 146, 159, 159, 159, 125)),
    ("sched_get_priority_min", row(147, 160, 147, 160, 160, 160, 126)),
    ("sched_getaffinity", row(204, 242, 204, 242, 240, 223, 123)),
    ("sched_getattr", row(315, 352, 315, 381, 346, 356, 275)),
    ("sched_getparam", row(143, 155, 143, 155, 155, 155, 121)),
    ("sched_getscheduler", row(145, 157, 145, 157, 157, 157, 120)),
    ("sched_rr_get_interval", row(148, 161, 148, 161, 161, 161, 127)),
    ("sched_rr_get_interval_time64", row(-1, 423, -1, 423, -1, -1, -1)),
    ("sched_setaffinity", row(203, 241, 203, 241, 239, 222, 122)),
    ("sched_setattr", row(314, 351, 314, 380, 345, 355, 274)),
    ("sched_setparam", row(142, 154, 142, 154, 154, 154, 118)),
    ("sched_setscheduler", row(144, 156, 144, 156, 156, 156, 119)),
    ("sched_yield", row(24, 158, 24, 158, 158, 158, 124)),
    ("seccomp", row(317, 354, 317, 383, 348, 358, 277)),
    ("security", row(185, -1, 185, -1, -1, -1, -1)), ("select", row(23, 82, 23, -1, 142, 82, -1)),
    ("semctl", row(66, 394, 66, 300, 394, 394, 191)),
    ("semget", row(64, 393, 64, 299, 393, 393, 190)), ("semop", row(65, -1, 65, 298, -1, -1, 193)),
    ("semtimedop", row(220, -1, 220, 312, 392, 392, 192)),
    ("semtimedop_time64", row(-1, 420, -1, 420, -1, -1, -1)),
    ("send", row(-1, -1, -1, 289, -1, 334, -1)), ("sendfile", row(40, 187, 40, 187, 187, 186, 71)),
    ("sendfile64", row(-1, 239, -1, 239, -1, -1, -1)),
    ("sendmmsg", row(307, 345, 538, 374, 358, 349, 269)),
    ("sendmsg", row(46, 370, 518, 296, 370, 341, 211)),
    ("sendto", row(44, 369, 44, 290, 369, 335, 206)),
    ("set_mempolicy", row(238, 276, 238, 321, 270, 261, 237)),
    ("set_mempolicy_home_node", all(450)),
    ("set_robust_list", row(273, 311, 530, 338, 304, 300, 99)),
    ("set_thread_area", row(205, 243, -1, -1, -1, -1, -1)),
    ("set_tid_address", row(218, 258, 218, 256, 252, 232, 96)),
    ("setdomainname", row(171, 121, 171, 121, 121, 121, 162)),
    ("setfsgid", row(123, 139, 123, 139, 216, 139, 152)),
    ("setfsgid32", row(-1, 216, -1, 216, -1, -1, -1)),
    ("setfsuid", row(122, 138, 122, 138, 215, 138, 151)),
    ("setfsuid32", row(-1, 215, -1, 215, -1, -1, -1)),
    ("setgid", row(106, 46, 106, 46, 214, 46, 144)),
    ("setgid32", row(-1, 214, -1, 214, -1, -1, -1)),
    ("setgroups", row(116, 81, 116, 81, 206, 81, 159)),
    ("setgroups32", row(-1, 206, -1, 206, -1, -1, -1)),
    ("sethostname", row(170, 74, 170, 74, 74, 74, 161)),
    ("setitimer", row(38, 104, 38, 104, 104, 104, 103)),
    ("setns", row(308, 346, 308, 375, 339, 350, 268)),
    ("setpgid", row(109, 57, 109, 57, 57, 57, 154)),
    ("setpriority", row(141, 97, 141, 97, 97, 97, 140)),
    ("setregid", row(114, 71, 114, 71, 204, 71, 143)),
    ("setregid32", row(-1, 204, -1, 204, -1, -1, -1)),
    ("setresgid", row(119, 170, 119, 170, 210, 169, 149)),
    ("setresgid32", row(-1, 210, -1, 210, -1, -1, -1)),
    ("setresuid", row(117, 164, 117, 164, 208, 164, 147)),
    ("setresuid32", row(-1, 208, -1, 208, -1, -1, -1)),
    ("setreuid", row(113, 70, 113, 70, 203, 70, 145)),
    ("setreuid32", row(-1, 203, -1, 203, -1, -1, -1)),
    ("setrlimit", [160, 75, 160, 75, 75, 75, 164, 164, -1]),
    ("setsid", row(112, 66, 112, 66, 66, 66, 157)),
    ("setsockopt", row(54, 366, 541, 294, 366, 339, 208)),
    ("settimeofday", row(164, 79, 164, 79, 79, 79, 170)),
    ("setuid", row(105, 23, 105, 23, 213, 23, 146)),
    ("setuid32", row(-1, 213, -1, 213, -1, -1, -1)),
    ("setxattr", row(188, 226, 188, 226, 224, 209, 5)), ("setxattrat", all(463)),
    ("sgetmask", row(-1, 68, -1, -1, -1, 68, -1)), ("shmat", row(30, 397, 30, 305, 397, 397, 196)),
    ("shmctl", row(31, 396, 31, 308, 396, 396, 195)),
    ("shmdt", row(67, 398, 67, 306, 398, 398, 197)),
    ("shmget", row(29, 395, 29, 307, 395, 395, 194)),
    ("shutdown", row(48, 373, 48, 293, 373, 338, 210)),
    ("sigaction", row(-1, 67, -1, 67, 67, 67, -1)),
    ("sigaltstack", row(131, 186, 525, 186, 186, 185, 132)),
    ("signal", row(-1, 48, -1, -1, 48, 48, -1)),
    ("signalfd", row(282, 321, 282, 349, 316, 305, -1)),
    ("signalfd4", row(289, 327, 289, 355, 322, 313, 74)),
    ("sigpending", row(-1, 73, -1, 73, 73, 73, -1)),
    ("sigprocmask", row(-1, 126, -1, 126, 126, 126, -1)),
    ("sigreturn", row(-1, 119, -1, 119, 119, 119, -1)),
    ("sigsuspend", row(-1, 72, -1, 72, 72, 72, -1)),
    ("socket", row(41, 359, 41, 281, 359, 326, 198)),
    ("socketcall", row(-1, 102, -1, -1, 102, 102, -1)),
    ("socketpair", row(53, 360, 53, 288, 360, 333, 199)),
    ("splice", row(275, 313, 275, 340, 306, 283, 76)),
    ("spu_create", row(-1, -1, -1, -1, -1, 279, -1)),
    ("spu_run", row(-1, -1, -1, -1, -1, 278, -1)), ("ssetmask", row(-1, 69, -1, -1, -1, 69, -1)),
    ("stat", row(4, 106, 4, 106, 106, 106, -1)), ("stat64", row(-1, 195, -1, 195, -1, -1, -1)),
    ("statfs", row(137, 99, 137, 99, 99, 99, 43)),
    ("statfs64", row(-1, 268, -1, 266, 265, 252, -1)), ("statmount", all(457)),
    ("statx", row(332, 383, 332, 397, 379, 383, 291)), ("stime", row(-1, 25, -1, -1, -1, 25, -1)),
    ("stty", row(-1, 31, -1, -1, -1, 31, -1)), ("subpage_prot", row(-1, -1, -1, -1, -1, 310, -1)),
    ("swapcontext", row(-1, -1, -1, -1, -1, 249, -1)),
    ("swapoff", row(168, 115, 168, 115, 115, 115, 225)),
    ("swapon", row(167, 87, 167, 87, 87, 87, 224)),
    ("switch_endian", row(-1, -1, -1, -1, -1, 363, -1)),
    ("symlink", row(88, 83, 88, 83, 83, 83, -1)),
    ("symlinkat", row(266, 304, 266, 331, 297, 295, 36)),
    ("sync", row(162, 36, 162, 36, 36, 36, 81)),
    ("sync_file_range", row(277, 314, 277, -1, 307, -1, 84)),
    ("sync_file_range2", row(-1, -1, -1, 341, -1, 308, -1)),
    ("syncfs", row(306, 344, 306, 373, 338, 348, 267)),
    ("sys_debug_setcontext", row(-1, -1, -1, -1, -1, 256, -1)),
    ("sysfs", row(139, 135, 139, 135, 135, 135, -1)),
    ("sysinfo", row(99, 116, 99, 116, 116, 116, 179)),
    ("syslog", row(103, 103, 103, 103, 103, 103, 116)),
    ("tee", row(276, 315, 276, 342, 308, 284, 77)),
    ("tgkill", row(234, 270, 234, 268, 241, 250, 131)),
    ("time", row(201, 13, 201, -1, -1, 13, -1)),
    ("timer_create", row(222, 259, 526, 257, 254, 240, 107)),
    ("timer_delete", row(226, 263, 226, 261, 258, 244, 111)),
    ("timer_getoverrun", row(225, 262, 225, 260, 257, 243, 109)),
    ("timer_gettime", row(224, 261, 224, 259, 256, 242, 108)),
    ("timer_gettime64", row(-1, 408, -1, 408, -1, -1, -1)),
    ("timer_settime", row(223, 260, 223, 258, 255, 241, 110)),
    ("timer_settime64", row(-1, 409, -1, 409, -1, -1, -1)),
    ("timerfd", row(-1, -1, -1, -1, 317, -1, -1)),
    ("timerfd_create", row(283, 322, 283, 350, 319, 306, 85)),
    ("timerfd_gettime", row(287, 326, 287, 354, 321, 312, 87)),
    ("timerfd_gettime64", row(-1, 410, -1, 410, -1, -1, -1)),
    ("timerfd_settime", row(286, 325, 286, 353, 320, 311, 86)),
    ("timerfd_settime64", row(-1, 411, -1, 411, -1, -1, -1)),
    ("times", row(100, 43, 100, 43, 43, 43, 153)),
    ("tkill", row(200, 238, 200, 238, 237, 208, 130)),
    ("truncate", row(76, 92, 76, 92, 92, 92, 45)),
    ("truncate64", row(-1, 193, -1, 193, -1, -1, -1)),
    ("tuxcall", row(184, -1, 184, -1, -1, 225, -1)),
    ("ugetrlimit", row(-1, 191, -1, 191, -1, 190, -1)),
    ("ulimit", row(-1, 58, -1, -1, -1, 58, -1)), ("umask", row(95, 60, 95, 60, 60, 60, 166)),
    ("umount", row(-1, 22, -1, -1, 22, 22, -1)), ("umount2", row(166, 52, 166, 52, 52, 52, 39)),
    ("uname", row(63, 122, 63, 122, 122, 122, 160)), ("unlink", row(87, 10, 87, 10, 10, 10, -1)),
    ("unlinkat", row(263, 301, 263, 328, 294, 292, 35)),
    ("unshare", row(272, 310, 272, 337, 303, 282, 97)),
    ("uprobe", row(336, -1, 336, -1, -1, -1, -1)),
    ("uretprobe", row(335, -1, 335, -1, -1, -1, -1)), ("uselib", row(134, 86, -1, 86, 86, 86, -1)),
    ("userfaultfd", row(323, 374, 323, 388, 355, 364, 282)),
    ("ustat", row(136, 62, 136, 62, 62, 62, -1)), ("utime", row(132, 30, 132, -1, 30, 30, -1)),
    ("utimensat", row(280, 320, 280, 348, 315, 304, 88)),
    ("utimensat_time64", row(-1, 412, -1, 412, -1, -1, -1)),
    ("utimes", row(235, 271, 235, 269, 313, 251, -1)),
    ("vfork", row(58, 190, 58, 190, 190, 189, -1)),
    ("vhangup", row(153, 111, 153, 111, 111, 111, 58)),
    ("vm86", row(-1, 166, -1, -1, -1, 113, -1)), ("vm86old", row(-1, 113, -1, -1, -1, -1, -1)),
    ("vmsplice", row(278, 316, 532, 343, 309, 285, 75)),
    ("vserver", row(236, 273, -1, 313, -1, -1, -1)),
    ("wait4", row(61, 114, 61, 114, 114, 114, 260)),
    ("waitid", row(247, 284, 529, 280, 281, 272, 95)), ("waitpid", row(-1, 7, -1, -1, -1, 7, -1)),
    ("write", row(1, 4, 1, 4, 4, 4, 64)), ("writev", row(20, 146, 516, 146, 146, 146, 66)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted() {
        assert!(TABLE.is_sorted_by(|(left, _), (right, _)| left < right));
    }

    #[test]
    fn numbers_are_those_of_the_kernel() {
        for (name, abi, expected) in [
            ("read", Abi::X86_64, Some(0)),
            ("read", Abi::X86, Some(3)),
            ("read", Abi::Aarch64, Some(63)),
            ("execve", Abi::X32, Some(X32_BIT | 520)),
            ("open", Abi::Riscv64, None),
            ("riscv_hwprobe", Abi::Riscv64, Some(258)),
            ("set_tls", Abi::Arm, Some(0xf_0005)),
            ("set_tls", Abi::Aarch64, None),
            ("mseal", Abi::S390x, Some(462)),
            ("no_such_call", Abi::X86_64, None),
        ] {
            assert_eq!(number(name, abi), expected, "{name} {abi:?}");
        }
    }

    #[test]
    fn a_call_is_found_from_wherever_the_search_begins() {
        for (place, name) in names().enumerate() {
            for near in [0, place.saturating_sub(2), place, place + 1, TABLE.len()] {
                let mut near = near;
                assert_eq!(Call::find(name, &mut near), Some(Call::Common(place)));
                assert_eq!(near, place + 1);
            }
        }
        assert_eq!(Call::find("breakpoint", &mut 3), Some(Call::Arm(0xf_0001)));
        assert_eq!(Call::find("no_such_call", &mut 3), None);
    }
}
