//! Programs compared with what the profile says, call by call: an interpreter runs the program,
//! an evaluator reads the profile, and neither knows anything of how the program was made.

#[path = "../../../../imgtool/src/bundle/seccomp.rs"]
mod docker;
mod oracle;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use self::oracle::{ABIS, ALLOW, Call, ENOSYS, Evaluator, I386, X86_64, interpret};
use super::table;
use crate::spec::seccomp::{Argument, Seccomp, Syscall};

const EPERM: u32 = 0x0005_0001;

fn profile(value: Value) -> Seccomp {
    serde_json::from_value(value).unwrap()
}

/// Every kind of rule that the profile of Docker has, over most of the calls there are.
fn like_the_default(architectures: &[&str]) -> Seccomp {
    let allowed: Vec<&str> = table::names()
        .filter(|name| {
            !["bpf", "clone", "clone3", "keyctl", "personality", "socket"].contains(name)
        })
        .filter(|name| !name.contains("mount") && !name.contains("module"))
        .collect();
    profile(json!({
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "architectures": architectures,
        "syscalls": [
            {"names": allowed, "action": "SCMP_ACT_ALLOW"},
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
            {"names": ["socket"], "action": "SCMP_ACT_ALLOW",
             "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_LT"}]},
            {"names": ["socket"], "action": "SCMP_ACT_ALLOW",
             "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_GT"}]},
            {"names": ["personality"], "action": "SCMP_ACT_ALLOW",
             "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]},
            {"names": ["personality"], "action": "SCMP_ACT_ALLOW",
             "args": [{"index": 0, "value": 0xffff_ffff_u32, "op": "SCMP_CMP_EQ"}]},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW",
             "args": [{"index": 0, "value": 0x7e02_0000, "op": "SCMP_CMP_MASKED_EQ"}]},
        ]
    }))
}

/// Which arguments a call whose conditions count is tried with.
#[derive(Clone, Copy)]
enum Cases {
    /// Three walks over the edges, each with other neighbours in the other arguments, thinned.
    Some,
    /// Each edge and each single bit in each argument, beside zeros and beside ones.
    All,
}

impl Cases {
    fn arguments(self, edges: &[u64]) -> Vec<[u64; 6]> {
        let count = edges.len();
        match self {
            Cases::Some => (0..count * 3)
                .step_by(count / 24 + 1)
                .map(|case| {
                    let pick = |shift: usize| edges[(case + shift * (case / count + 1)) % count];
                    std::array::from_fn(pick)
                })
                .collect(),
            Cases::All => {
                let bits = (0..64).map(|bit| 1 << bit);
                let values = edges.iter().copied().chain(bits);
                let at = |value: u64, index: usize, rest: u64| {
                    let mut arguments = [rest; 6];
                    arguments[index] = value;
                    arguments
                };
                values
                    .flat_map(|value| (0..6).map(move |index| (value, index)))
                    .flat_map(|(value, index)| [at(value, index, 0), at(value, index, u64::MAX)])
                    .collect()
            }
        }
    }
}

/// Compares program and profile for every number of interest and every argument that stands at
/// an edge of some condition.
fn assert_agreement(profile: &Seccomp, numbers: impl Iterator<Item = u32>, cases: Cases) {
    let numbers: Vec<u32> = numbers.collect();
    let program = super::compile(profile).unwrap().unwrap().program;
    let evaluator = Evaluator::new(profile);
    let mut edges = BTreeSet::from([0, 1, u64::MAX]);
    for arg in profile.syscalls.iter().flat_map(|rule| &rule.args) {
        for value in [arg.value, arg.value_two] {
            edges.extend([value, value.wrapping_add(1), value.wrapping_sub(1), value ^ (1 << 32)]);
        }
        edges.extend([arg.value_two & arg.value, !arg.value, arg.value_two ^ arg.value]);
    }
    let edges: Vec<u64> = edges.into_iter().collect();
    let examined: BTreeSet<(u32, u32)> = conditional_numbers(profile);
    let (many, one) = (cases.arguments(&edges), [std::array::from_fn(|index| edges[index % 3])]);
    for arch in [X86_64, I386, 0xc000_00b7, 0x4000_0028, 0x1234_5678] {
        for &number in &numbers {
            let arguments = if examined.contains(&(arch, number)) { &many[..] } else { &one };
            for &args in arguments {
                let call = Call { arch, number, args };
                assert_eq!(
                    interpret(&program, &call),
                    evaluator.answer(&call),
                    "{call:x?} in {}",
                    serde_json::to_string(profile).unwrap()
                );
            }
        }
    }
}

fn conditional_numbers(profile: &Seccomp) -> BTreeSet<(u32, u32)> {
    let rules = profile.syscalls.iter().filter(|rule| !rule.args.is_empty());
    let names = rules.flat_map(|rule| rule.names.iter().map(String::as_str));
    names
        .chain(["socketcall", "ipc"])
        .flat_map(|name| {
            ABIS.iter().filter_map(move |(_, abi, arch)| Some((*arch, table::number(name, *abi)?)))
        })
        .collect()
}

fn edge_numbers() -> impl Iterator<Item = u32> + Clone {
    [0x3fff_ffff, 0x4000_0000, 0x7fff_ffff, 0x8000_0000, 0xbfff_ffff, 0xc000_0000]
        .into_iter()
        .chain([u32::MAX - 1, u32::MAX, 0xf_0000, 0xf_0001, 0xf_0005, 0xf_0006])
}

#[test]
fn a_profile_like_the_default_is_followed_call_by_call() {
    for architectures in [
        &[][..],
        &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        &["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
    ] {
        let numbers = (0..600).chain(0x4000_0000..0x4000_0300).chain(edge_numbers());
        assert_agreement(&like_the_default(architectures), numbers, Cases::All);
    }
}

#[test]
fn the_profile_that_bundles_get_is_followed_call_by_call() {
    for capabilities in [&[][..], &["CAP_SYS_ADMIN", "CAP_SYS_NICE"]] {
        for architecture in ["amd64", "arm64"] {
            let profile = profile(docker::default_profile(capabilities, architecture));
            let numbers = (0..600).chain(0x4000_0000..0x4000_0300).chain(edge_numbers());
            assert_agreement(&profile, numbers, Cases::All);
        }
    }
}

#[test]
fn random_profiles_are_followed_call_by_call() {
    for seed in 1..=1000_u64 {
        let profile = random_profile(&mut Random(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed)));
        let Ok(Some(_)) = super::compile(&profile) else {
            continue; // one call, the same conditions, two actions: refused
        };
        let named = profile.syscalls.iter().flat_map(|rule| &rule.names);
        let numbers: BTreeSet<u32> = named
            .flat_map(|name| ABIS.iter().filter_map(|(_, abi, _)| table::number(name, *abi)))
            .chain([102, 117])
            .flat_map(|number| [number, number + 1])
            .collect();
        assert_agreement(&profile, numbers.into_iter().chain(edge_numbers()), Cases::Some);
    }
}

/// xorshift64*: the same profiles in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

fn random_profile(random: &mut Random) -> Seccomp {
    const ACTIONS: [&str; 5] = [
        "SCMP_ACT_ALLOW",
        "SCMP_ACT_ERRNO",
        "SCMP_ACT_TRAP",
        "SCMP_ACT_LOG",
        "SCMP_ACT_KILL_PROCESS",
    ];
    const NAMES: [&str; 12] = [
        "read",
        "clone",
        "socket",
        "accept4",
        "send",
        "semop",
        "shmat",
        "socketcall",
        "ipc",
        "execve",
        "set_tls",
        "mseal",
    ];
    const VALUES: [u64; 9] =
        [0, 1, 5, 0x28, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0005, u64::MAX, 0xff00_0000_00ff];
    let mut syscalls = Vec::new();
    for _ in 0..random.below(14) {
        let args = (0..random.below(4))
            .map(|_| Argument {
                index: u32::try_from(random.below(3)).unwrap(),
                value: random.pick(&VALUES),
                value_two: random.pick(&VALUES),
                op: random.pick(&super::OPERATORS).to_owned(),
            })
            .collect();
        let names = (0..=random.below(2)).map(|_| random.pick(&NAMES).to_owned()).collect();
        let errno_ret = [None, Some(38), Some(7)][random.below(3)];
        syscalls.push(Syscall { names, action: random.pick(&ACTIONS).to_owned(), errno_ret, args });
    }
    let architectures = ABIS[1..].iter().filter(|_| random.below(2) == 0);
    Seccomp {
        architectures: architectures.map(|(name, ..)| (*name).to_owned()).collect(),
        default_action: random.pick(&ACTIONS).to_owned(),
        default_errno_ret: [None, Some(5)][random.below(2)],
        syscalls,
        ..Seccomp::default()
    }
}

#[test]
fn jumps_farther_than_a_byte_are_bridged() {
    // 400 argument programs that differ, and 200 calls in a row with values of their own.
    let argument_rules =
        table::names().enumerate().filter(|(row, _)| row % 2 == 0).map(|(row, name)| {
            json!({"names": [name], "action": "SCMP_ACT_ALLOW",
               "args": [{"index": row % 6, "value": row * 0x1_0000_0001, "op": "SCMP_CMP_LE"}]})
        });
    let plain_rules = table::names()
        .enumerate()
        .filter(|(row, _)| row % 2 == 1)
        .map(|(row, name)| json!({"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": row}));
    let rules: Vec<Value> = argument_rules.chain(plain_rules).collect();
    let profile = profile(json!({
        "defaultAction": "SCMP_ACT_KILL_PROCESS",
        "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": rules,
    }));
    let program = super::compile(&profile).unwrap().unwrap().program;
    assert!(program.len() > 1000, "{}", program.len());
    let evaluator = Evaluator::new(&profile);
    for number in (0..480).chain(0x4000_0000..0x4000_0230) {
        for arch in [X86_64, I386] {
            for arg in [0, 5, u64::from(number) << 32, u64::from(number) * 0x1_0000_0001, u64::MAX]
            {
                let call = Call { arch, number, args: [arg; 6] };
                // Selectors beyond the five of the evaluator are not its matter.
                if arch == X86_64 || !(number == 102 || number == 117) {
                    assert_eq!(interpret(&program, &call), evaluator.answer(&call), "{call:x?}");
                }
            }
        }
    }
}

#[test]
fn jumps_reach_their_targets_at_every_distance() {
    let named: Vec<_> = table::names()
        .filter_map(|name| Some((name, table::number(name, super::abi::Abi::X86_64)?)))
        .collect();
    for count in (90..=named.len()).step_by(3) {
        let rules: Vec<Value> = named[..count]
            .iter()
            .map(|(name, number)| {
                json!({"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": number + 1000})
            })
            .collect();
        let profile = profile(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}));
        let program = super::compile(&profile).unwrap().unwrap().program;
        for &(name, number) in &named[..count] {
            let call = Call { arch: X86_64, number, args: [0; 6] };
            assert_eq!(interpret(&program, &call), 0x0005_0000 | (number + 1000), "{count} {name}");
        }
    }
}

#[test]
fn the_program_stays_small() {
    let one = super::compile(&like_the_default(&[])).unwrap().unwrap();
    let three = super::compile(&like_the_default(&["SCMP_ARCH_X86", "SCMP_ARCH_X32"]));
    assert!(one.program.len() < 120, "{}", one.program.len());
    assert!(three.unwrap().unwrap().program.len() < 350);
}

#[test]
fn calls_newer_than_the_profile_are_unknown_to_it() {
    let old = profile(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["read", "openat2"], "action": "SCMP_ACT_ALLOW"}]}));
    let program = super::compile(&old).unwrap().unwrap().program;
    let answer = |number| interpret(&program, &Call { arch: X86_64, number, args: [0; 6] });
    assert_eq!([answer(0), answer(436), answer(437), answer(438)], [ALLOW, EPERM, ALLOW, ENOSYS]);
}

#[test]
fn a_profile_that_says_nothing_is_no_filter() {
    assert!(super::compile(&Seccomp::default()).unwrap().is_none());
    assert!(super::compile(&profile(json!({"syscalls": null}))).unwrap().is_none());
}

#[test]
fn unknown_words_are_refused_with_their_place() {
    let allow = "SCMP_ACT_ALLOW";
    for (document, expected) in [
        (
            json!({"defaultAction": "SCMP_ACT_NOPE"}),
            "linux.seccomp.defaultAction: string SCMP_ACT_NOPE is not a valid action for seccomp",
        ),
        (
            json!({"syscalls": [{"names": ["read"], "action": allow}]}),
            "linux.seccomp.defaultAction: string  is not a valid action for seccomp",
        ),
        (
            json!({"defaultAction": allow, "architectures": ["SCMP_ARCH_VAX"]}),
            "linux.seccomp.architectures[0]: string SCMP_ARCH_VAX is not a valid arch for seccomp",
        ),
        (
            json!({"defaultAction": allow, "flags": ["SECCOMP_FILTER_FLAG_LOG", "LOUD"]}),
            "linux.seccomp.flags[1]: seccomp flag LOUD is not known to runc",
        ),
        (
            json!({"defaultAction": allow, "syscalls": [
                {"names": ["read"], "action": "SCMP_ACT_LOG"}, {"names": ["read"], "action": "DENY"}]}),
            "linux.seccomp.syscalls[1].action: string DENY is not a valid action for seccomp",
        ),
        (
            json!({"defaultAction": allow, "syscalls": [{"names": ["read"], "action": "SCMP_ACT_LOG",
                "args": [{"index": 0, "value": 1, "op": "=="}]}]}),
            "linux.seccomp.syscalls[0].args[0].op: string == is not a valid operator for seccomp",
        ),
        (
            json!({"defaultAction": allow, "syscalls": [{"names": ["read"], "action": "SCMP_ACT_LOG",
                "args": [{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]}]}),
            "linux.seccomp.syscalls[0].args[0].index: 6 is not an argument: calls have 6, from 0",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_NOTIFY"}),
            "linux.seccomp.defaultAction: SCMP_ACT_NOTIFY cannot be used as default action",
        ),
        (
            json!({"defaultAction": allow, "syscalls": [
                {"names": ["mkdir", "write"], "action": "SCMP_ACT_NOTIFY"}]}),
            "linux.seccomp.syscalls[0].names: SCMP_ACT_NOTIFY cannot be used for the write syscall",
        ),
        (
            json!({"defaultAction": allow, "syscalls": [
                {"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}),
            "linux.seccomp.listenerPath: seccomp listenerPath is not set",
        ),
    ] {
        let error = super::compile(&profile(document.clone())).unwrap_err();
        assert_eq!(format!("{error:#}"), expected, "{document}");
    }
}

#[test]
fn a_call_with_the_same_conditions_and_two_actions_is_refused() {
    let rule = |action: &str| {
        json!({"names": ["personality"], "action": action,
               "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]})
    };
    let twice = profile(json!({"defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [rule("SCMP_ACT_ALLOW"), rule("SCMP_ACT_ALLOW")]}));
    assert!(super::compile(&twice).is_ok());
    let torn = profile(json!({"defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [rule("SCMP_ACT_ALLOW"), rule("SCMP_ACT_LOG")]}));
    let error = super::compile(&torn).unwrap_err();
    assert!(format!("{error:#}").starts_with("linux.seccomp.syscalls[1]: "), "{error:#}");
}

#[test]
fn flags_are_those_asked_for_and_what_the_rules_need() {
    let flags = |document: Value| super::compile(&profile(document)).unwrap().unwrap().flags;
    let allow = "SCMP_ACT_ALLOW";
    assert_eq!(flags(json!({"defaultAction": allow})), 4);
    assert_eq!(flags(json!({"defaultAction": allow, "flags": null})), 4);
    assert_eq!(flags(json!({"defaultAction": allow, "flags": []})), 0);
    let tsync = ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG"];
    assert_eq!(flags(json!({"defaultAction": allow, "flags": tsync})), 2);
    let killable = ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"];
    let notify = json!([{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]);
    let document = json!({"defaultAction": allow, "flags": killable, "listenerPath": "/agent",
        "listenerMetadata": "m", "syscalls": notify});
    assert_eq!(flags(document.clone()), 8 | 32);
    let filter = super::compile(&profile(document)).unwrap().unwrap();
    let listener = filter.listener.unwrap();
    assert_eq!((&*listener.path, &*listener.metadata), ("/agent", "m"));

    let alone = profile(json!({"defaultAction": allow, "flags": killable, "listenerPath": "/x"}));
    let filter = super::compile(&alone).unwrap().unwrap();
    assert_eq!((filter.flags, filter.warnings.len(), filter.listener), (0, 1, None));
}

#[test]
fn names_that_no_kernel_has_are_skipped() {
    let newer = profile(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["read", "call_of_tomorrow"], "action": "SCMP_ACT_ALLOW"}]}));
    assert_eq!(super::compile(&newer).unwrap().unwrap().unknown, ["call_of_tomorrow"]);
}
