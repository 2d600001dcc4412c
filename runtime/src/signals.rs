//! Signal names and numbers, real-time ones included.

use anyhow::{Result, bail};

const SIGNALS: &[(&str, i32, &str)] = &[
    ("HUP", libc::SIGHUP, "hangup"),
    ("INT", libc::SIGINT, "interrupt"),
    ("QUIT", libc::SIGQUIT, "quit"),
    ("ILL", libc::SIGILL, "illegal instruction"),
    ("TRAP", libc::SIGTRAP, "trace/breakpoint trap"),
    ("ABRT", libc::SIGABRT, "aborted"),
    ("BUS", libc::SIGBUS, "bus error"),
    ("FPE", libc::SIGFPE, "floating point exception"),
    ("KILL", libc::SIGKILL, "killed"),
    ("USR1", libc::SIGUSR1, "user defined signal 1"),
    ("SEGV", libc::SIGSEGV, "segmentation fault"),
    ("USR2", libc::SIGUSR2, "user defined signal 2"),
    ("PIPE", libc::SIGPIPE, "broken pipe"),
    ("ALRM", libc::SIGALRM, "alarm clock"),
    ("TERM", libc::SIGTERM, "terminated"),
    ("STKFLT", libc::SIGSTKFLT, "stack fault"),
    ("CHLD", libc::SIGCHLD, "child exited"),
    ("CONT", libc::SIGCONT, "continued"),
    ("STOP", libc::SIGSTOP, "stopped (signal)"),
    ("TSTP", libc::SIGTSTP, "stopped"),
    ("TTIN", libc::SIGTTIN, "stopped (tty input)"),
    ("TTOU", libc::SIGTTOU, "stopped (tty output)"),
    ("URG", libc::SIGURG, "urgent I/O condition"),
    ("XCPU", libc::SIGXCPU, "CPU time limit exceeded"),
    ("XFSZ", libc::SIGXFSZ, "file size limit exceeded"),
    ("VTALRM", libc::SIGVTALRM, "virtual timer expired"),
    ("PROF", libc::SIGPROF, "profiling timer expired"),
    ("WINCH", libc::SIGWINCH, "window changed"),
    ("IO", libc::SIGIO, "I/O possible"),
    ("PWR", libc::SIGPWR, "power failure"),
    ("SYS", libc::SIGSYS, "bad system call"),
    // Second names.
    ("IOT", libc::SIGIOT, "aborted"),
    ("CLD", libc::SIGCHLD, "child exited"),
    ("POLL", libc::SIGPOLL, "I/O possible"),
];

/// The kernel's first and last real-time signal; glibc keeps two of them for itself, but a
/// program in the container need not be glibc's.
const RT_MIN: i32 = 34;
const RT_MAX: i32 = 64;

/// A number (0 only asks whether there is a process), or a name in any case, with or without `SIG`; `RTMIN+n` and `RTMAX-n` too.
pub(crate) fn parse(text: &str) -> Result<i32> {
    let number = text.parse::<i32>().ok().filter(|number| (0..=RT_MAX).contains(number));
    match number.or_else(|| by_name(text)) {
        Some(number) => Ok(number),
        None => bail!("unknown signal {text:?}"),
    }
}

fn by_name(text: &str) -> Option<i32> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, number, _)) = SIGNALS.iter().find(|(known, ..)| *known == name) {
        return Some(*number);
    }
    let number = if let Some(rest) = name.strip_prefix("RTMIN") {
        RT_MIN.checked_add(offset(rest)?)?
    } else {
        RT_MAX.checked_add(offset(name.strip_prefix("RTMAX")?)?)?
    };
    (RT_MIN..=RT_MAX).contains(&number).then_some(number)
}

fn offset(text: &str) -> Option<i32> {
    if text.is_empty() { Some(0) } else { text.parse().ok() }
}

/// The signal in words, as Go prints what ended a process.
pub(crate) fn description(signal: i32) -> String {
    match SIGNALS.iter().find(|(_, number, _)| *number == signal) {
        Some((.., words)) => (*words).to_owned(),
        None => format!("signal {signal}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_in_any_spelling() {
        for (text, number) in [
            ("9", 9),
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigterm", 15),
            ("bus", 7),
            ("trap", 5),
            ("SIGRTMIN", 34),
            ("RTMIN+3", 37),
            ("SIGRTMAX-1", 63),
            ("64", 64),
        ] {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
    }

    #[test]
    fn what_is_no_signal_is_quoted_in_the_error() {
        for text in ["FOO", "65", "-9", "", "RTMIN+31", "RTMAX+1", "SIGSIGKILL"] {
            assert_eq!(parse(text).unwrap_err().to_string(), format!("unknown signal {text:?}"));
        }
    }
}
