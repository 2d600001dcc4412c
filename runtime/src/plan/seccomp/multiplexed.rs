//! Calls that some ABIs have as kinds of one call, besides or instead of as calls of their own.

use super::table::Call;

/// `socketcall`'s and `ipc`'s numbers for what are calls of their own elsewhere.
const MULTIPLEXED: [(&str, &str, u64); 32] = [
    ("accept", "socketcall", 5),
    ("accept4", "socketcall", 18),
    ("bind", "socketcall", 2),
    ("connect", "socketcall", 3),
    ("getpeername", "socketcall", 7),
    ("getsockname", "socketcall", 6),
    ("getsockopt", "socketcall", 15),
    ("listen", "socketcall", 4),
    ("msgctl", "ipc", 14),
    ("msgget", "ipc", 13),
    ("msgrcv", "ipc", 12),
    ("msgsnd", "ipc", 11),
    ("recv", "socketcall", 10),
    ("recvfrom", "socketcall", 12),
    ("recvmmsg", "socketcall", 19),
    ("recvmsg", "socketcall", 17),
    ("semctl", "ipc", 3),
    ("semget", "ipc", 2),
    ("semop", "ipc", 1),
    ("semtimedop", "ipc", 4),
    ("send", "socketcall", 9),
    ("sendmmsg", "socketcall", 20),
    ("sendmsg", "socketcall", 16),
    ("sendto", "socketcall", 11),
    ("setsockopt", "socketcall", 14),
    ("shmat", "ipc", 21),
    ("shmctl", "ipc", 24),
    ("shmdt", "ipc", 22),
    ("shmget", "ipc", 23),
    ("shutdown", "socketcall", 13),
    ("socket", "socketcall", 1),
    ("socketpair", "socketcall", 8),
];

/// The call that has the one of that name as one of its kinds, and the kind's number.
pub(super) fn multiplexer(name: &str) -> Option<(Call, u64)> {
    let position = MULTIPLEXED.binary_search_by_key(&name, |(name, ..)| name).ok()?;
    let (_, through, selector) = MULTIPLEXED[position];
    Some((Call::find(through, &mut 0)?, selector))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multiplexed_calls_are_sorted_and_their_calls_are_known() {
        assert!(MULTIPLEXED.is_sorted_by(|left, right| left.0 < right.0));
        for (name, _, selector) in MULTIPLEXED {
            assert_eq!(multiplexer(name).map(|(_, kind)| kind), Some(selector), "{name}");
        }
    }
}
